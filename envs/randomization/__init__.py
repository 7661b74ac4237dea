"""x."""

from typing import Any

Term: Any = object
Randomization: Any = object
