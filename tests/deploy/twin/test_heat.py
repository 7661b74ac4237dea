import numpy as np
import pytest

from deploy.twin.heat import AIR_C, CAPACITY_J_K, THERMAL_RESISTANCE_K_W, Heat


def test_temperature_rises_to_the_copper_loss_times_the_thermal_resistance():
    heat = Heat(np.array([3.0, 3.0]))
    for _ in range(3000):
        heat.step(np.array([0.5, 0.0]), 1.0)
    # 3 Ω · 0.25 A² · 20 K/W = 15 K; without a current none
    assert heat.temperature_c == pytest.approx([AIR_C + 15.0, AIR_C], abs=0.001)


def test_after_a_time_constant_63_percent_of_it_are_reached():
    heat = Heat(np.array([3.0]))
    for _ in range(round(CAPACITY_J_K * THERMAL_RESISTANCE_K_W / 0.1)):
        heat.step(np.array([0.5]), 0.1)
    assert heat.temperature_c[0] - AIR_C == pytest.approx(15.0 * (1 - np.exp(-1)), rel=1e-3)
