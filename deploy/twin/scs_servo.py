"""One emulated Feetech SCS servo: `FeetechServo` with another control table, and less in it.

    servo = ScsServo(1, MODELS["SCS0009"], 1_000_000, shaft_ticks=512)

After Feetech's memory table of potentiometer servos: no offset, turns, mode, acceleration, torque
limit or current; both position limits at 0 make it a motor whose duty is Running Time; torque 2
brakes. Where that is silent, the less convenient is assumed: beyond the potentiometer's ends the
end is read, a Goal Velocity of 0 is a standstill unless Phase says otherwise. What P does is taken
as an STS's; Running Time is not emulated in position mode.
"""

from deploy.feetech import scs_registers as registers
from deploy.feetech.registers import LOAD_FULL, Fault, Mode, Register
from deploy.feetech.scs_registers import DAMPED, FASTEST_TICKS_S, TICKS, ZERO_IS_FASTEST
from deploy.twin.feetech_servo import FIRMWARE, FeetechServo


class ScsServo(FeetechServo):
    """A servo on the bus; see `FeetechServo`."""

    SYNC_READS = False
    FACTORY = {
        registers.FIRMWARE_MAJOR: FIRMWARE[0],
        registers.FIRMWARE_MINOR: FIRMWARE[1],
        registers.END: 1,
        registers.RESPONSE_LEVEL: 1,
        registers.MIN_POSITION_LIMIT: 20,
        registers.MAX_POSITION_LIMIT: 1003,
        registers.MAX_TORQUE: LOAD_FULL,
        registers.UNLOAD_CONDITION: Fault.INPUT_VOLTAGE | Fault.OVERHEATING | Fault.OVERLOAD,
        registers.LED_ALARM: Fault.INPUT_VOLTAGE | Fault.OVERHEATING | Fault.OVERLOAD,
        registers.CW_DEAD_ZONE: 1,
        registers.CCW_DEAD_ZONE: 1,
        registers.PROTECTIVE_TORQUE: 20,
        registers.PROTECTION_TIME: 200,
        registers.OVERLOAD_TORQUE: 80,
    }

    @property
    def return_delay_s(self) -> float:
        """None that could be set."""
        return 0.0

    @property
    def _present(self) -> int:
        return min(max(round(self._raw_shaft), 0), TICKS - 1)

    @property
    def _torque_limit(self) -> Register:
        return registers.MAX_TORQUE

    @property
    def _ramp(self) -> float:
        return 0.0

    @property
    def _operating_mode(self) -> int:
        limits = self._get(registers.MIN_POSITION_LIMIT), self._get(registers.MAX_POSITION_LIMIT)
        return Mode.POSITION if any(limits) else Mode.PWM

    def _law(self) -> float:
        braking = self._get(registers.TORQUE_ENABLE) == DAMPED  # a motor at no duty brakes
        return 0.0 if braking else super()._law()

    def _draws_too_much(self) -> bool:
        return False

    def _measure_current(self) -> None:
        pass

    def _make_middle(self) -> None:
        pass

    def _boot(self) -> None:
        super()._boot()
        self._set(registers.GOAL_SPEED, FASTEST_TICKS_S)

    def _replan(self) -> None:
        if not (self._get(registers.GOAL_SPEED) or self._get(registers.PHASE) & ZERO_IS_FASTEST):
            self._goal = round(self._motion[0])
        super()._replan()
