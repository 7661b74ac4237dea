"""Learning and tools: train, evaluate, export, run, report; see `robotrl --help`."""
