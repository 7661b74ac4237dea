"""A training run: its configuration, its folder, the loop, and how good what it learned is."""
