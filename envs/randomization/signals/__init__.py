"""What is between a true value and a reading, and between a target and the servo."""
