"""What a log says, as a page, with a verdict: `robotrl report`."""
