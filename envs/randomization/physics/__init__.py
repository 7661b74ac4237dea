"""What differs in the bodies, servos and surroundings of the worlds, and where episodes start."""
