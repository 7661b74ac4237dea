"""Tasks × algorithms × seeds beside each other, and what their scores say: `robotrl bench`."""
