"""PPO and SAC, a file each, over shared parts: policy, networks, returns, replay, optimiser."""
