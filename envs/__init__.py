"""Simulated robots and tasks: `envs.make(...)`, or Gymnasium's `robotrl/<Task>-v0`."""

from envs.gymnasium_env import GymnasiumEnv as GymnasiumEnv
from envs.gymnasium_vector_env import GymnasiumVectorEnv as GymnasiumVectorEnv
from envs.registry import make as make
from envs.vector_env import VectorEnv as VectorEnv
