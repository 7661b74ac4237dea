"""Every servo model that can be driven, by name, whatever its family."""

from collections.abc import Mapping
from types import MappingProxyType

from deploy.dynamixel import servos as dynamixel
from deploy.feetech import servos as feetech
from deploy.servos.sheet import ServoSheet

MODELS: Mapping[str, ServoSheet] = MappingProxyType({**dynamixel.MODELS, **feetech.MODELS})
"""Known servo models by name."""
