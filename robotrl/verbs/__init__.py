"""What `robotrl VERB` does, a file each.

A verb imports what it needs when it is called: `run` starts fast on a Pi, without torch.
"""
