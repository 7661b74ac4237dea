"""A simulated robot behind the servos' own bytes; the only part of `deploy` that needs MuJoCo."""
