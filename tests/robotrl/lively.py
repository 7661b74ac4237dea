"""Runs whose policy does something: one that has learned for a few steps hardly moves."""

from robotrl.runs.run_folder import RunFolder


def lively(folder: RunFolder) -> RunFolder:
    """The run, with a policy whose last layer is 100 times as strong."""
    checkpoint = folder.load_checkpoint()
    checkpoint["algorithm"]["policy"]["network.2.weight"] *= 100
    folder.save_checkpoint(checkpoint)
    return folder
