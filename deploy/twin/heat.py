"""How warm servos get: copper losses heat a lump that the air cools.

    heat = Heat(resistance_ohm)
    heat.step(current_a, 0.001)
    heat.temperature_c

    capacity · dT/dt = R · current² - (T - air) / thermal resistance

No maker publishes the thermal numbers, so they are estimated for the smallest servo, the XL330:
18 g at about 0.8 J/(g·K), and 42 cm² of case that lose 12 W/(m²·K) by convection and radiation in
still air. So it takes five minutes to warm up. Larger servos stay cooler than this says.
"""

import numpy as np
from numpy.typing import NDArray

AIR_C = 25.0
CAPACITY_J_K = 14.0
THERMAL_RESISTANCE_K_W = 20.0


class Heat:
    """See the module docstring.

    Args:
        resistance_ohm: (n,) of the windings.
    """

    def __init__(self, resistance_ohm: NDArray[np.float64]):
        self.temperature_c = np.full(len(resistance_ohm), AIR_C)
        """Of each servo, shape (n,)."""
        self._resistance_ohm = resistance_ohm

    def step(self, current_a: NDArray[np.float64], duration_s: float) -> None:
        """Motor currents (n,) flow for a while, short against five minutes."""
        lost_w = (self.temperature_c - AIR_C) / THERMAL_RESISTANCE_K_W
        made_w = self._resistance_ohm * current_a**2
        self.temperature_c += (made_w - lost_w) * (duration_s / CAPACITY_J_K)
