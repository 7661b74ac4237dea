"""The servos of one bus as a `deploy.device.Device`: SI units above this file, counts below it.

    servos = DynamixelServos("bus", config, contract.joints, port, approve=ask_the_user)
    servos.connect()                     # checks and sets up every servo; nothing moves
    servos.energise()                    # torque on, holding where it is
    servos.read(deadline_s)              # position, velocity, effort, age_s
    servos.write(targets)                # [rad], or rad/s or N·m, as the contract's joints say
    servos.health(deadline_s)            # one servo a tick: is it still as it was set up?

What all families of servos have in common; a family says which registers it has and what they must
hold (what has no body here and in `deploy.servos.setup`). `connect` checks and sets up every servo
as it says there, with gains computed from the contract's N·m/rad and read back: what is on the
servo is what was trained.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.device import Approve, Reading, refuse_changes
from deploy.errors import BusError, DeviceLost, SafetyError, ServoError
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port, latency_advice
from deploy.servos.bus import ATTEMPTS
from deploy.servos.register import Register
from deploy.servos.reply_times import MARGIN_S
from deploy.servos.scale import Linear
from deploy.servos.setup import ServoSetup
from deploy.servos.sync_read import Feedback, SyncRead
from deploy.signals import SignalKind
from deploy.statistics import Statistics

HOLD_REACH_RAD = 0.1
"""A held joint keeps its last target up to this far from where it is: what a load's droop needs,
and little enough to give way. Holding the measured angle instead would lower the load once more."""
LIMIT_TOLERANCE_RAD = 0.0125
"""A limp joint may lie this far (0.7°) outside its limits and be held at the nearest one."""
STILL_RAD, STILL_TRIES = 0.03, 50
"""A limp joint that moves so far (1.7°) while it is given its goal is not held, but given another:
half a second is enough for one that swings."""
ARM_TRIES = 5
"""How often watchdogs are switched on that trip at once: on a busy machine we may be too late."""
GOALS_MISSED = 3
"""A servo found so often in a row with another goal than the one sent does not get what is sent;
noise costs one."""


class ServoDevice(ServoSetup):
    """Servos on a bus; see the module docstring, and for the arguments `ServoSetup`."""

    SETTINGS: range
    """Addresses of what is read back while running, faults, supply and temperature included: they
    lie side by side."""
    BLOCK: np.dtype[Any]
    """What a tick reads of each servo."""
    SET_BY_ENERGISE: tuple[Register, ...]
    """What of the settings `connect` leaves alone."""

    def __init__(
        self,
        name: str,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ):
        super().__init__(name, config, joints, port, approve=approve)
        self.position: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured angles [rad]."""
        self.velocity: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured speeds [rad/s]."""
        self.effort: NDArray[np.float64] = np.zeros(len(joints))
        """Latest duty of the motors, -1 to 1, positive where it turns the joint forwards."""
        self.age_s: NDArray[np.float64] = np.full(len(joints), np.inf)
        """Age of each joint's reading [s]."""
        self.heard: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        """Joints that answered when they were read last."""
        self.current: NDArray[np.float64] = np.full(len(joints), np.nan)
        """Latest current of the motors [A]; not a number where a servo does not measure it."""
        self.voltage, self.temperature = np.full((2, len(joints)), np.nan)
        """Supply [V] and temperature [°C], each as `health` saw it last."""
        self.readings: dict[SignalKind, Reading] = {
            "joint_position": Reading(self.position, self.age_s),
            "joint_velocity": Reading(self.velocity, self.age_s),
            "joint_current": Reading(self.current, self.age_s),
            "joint_voltage": Reading(self.voltage, self.age_s),
            "joint_temperature": Reading(self.temperature, self.age_s),
        }
        """What a policy may be given, and what the governor watches, by kind."""
        self.energised = False
        """Whether the robot holds itself up, since `energise` or from an earlier run."""
        self.measured_latency_s = math.nan
        """What adapter and operating system added to a reply when `connect` measured it [s], in
        the median."""
        self.others: tuple[int, ...] = ()
        """Ids of what is no servo; it answers before them when they are read together."""
        self._reach = np.rint(HOLD_REACH_RAD / self._scale.rad_per_tick).astype(np.int32)
        self._goal_scale = self._make_goal_scale()
        self._goal_counts = np.zeros(len(joints), np.int32)
        self._read_at = np.full(len(joints), -np.inf)
        self._wanted: list[dict[Register, int]] = []
        self._limp: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        self._feedback: Feedback | None = None
        self._settings: list[SyncRead] = []
        self._fresh: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        self._counts: dict[str, NDArray[Any]] = {}
        """(n,) each, what was read last by its name in `BLOCK`; live, as `_fresh` is."""
        self._alerts: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        self._next_row = self._goals_missed = 0

    # What a family has of its own

    def _sync_read(self, ids: Sequence[int], addresses: range) -> SyncRead:
        """Reads the same bytes of several servos."""
        raise NotImplementedError

    def _feedback_read(self) -> Feedback:
        """Reads all that a tick needs: `BLOCK`."""
        raise NotImplementedError

    def _take(self, fresh: NDArray[np.bool_], asked_s: float) -> None:
        """Bring position, velocity and effort up to date; may take back what is `fresh`."""
        raise NotImplementedError

    def _make_goal_scale(self) -> Linear:
        """What a count of a goal is."""
        return self._scale

    def _send(self, goals: NDArray[np.int32]) -> None:
        """Send goals (n,) [counts] to all."""
        raise NotImplementedError

    def _goal_of(self, id: int) -> Register:
        """The goal that a servo follows as it is set up now, by whomever."""
        return self._goal

    def _arm(self) -> list[int]:
        """Switch their watchdogs on, if they have one; which of them have tripped again by then."""
        return []

    def _stopped_itself(self, id: int) -> bool:
        """Whether a servo holds where its watchdog has stopped it."""
        return False

    guarded = False
    """Whether they have a watchdog; see `Device`."""

    def prove(self) -> str:
        """Whether their watchdogs have acted; see `Device`."""
        raise NotImplementedError

    def watchdog(self) -> str:
        """What stops the joints when the host falls silent; see `Device`."""
        raise NotImplementedError

    def connect(self) -> None:
        """Check every servo and set it up; nothing moves.

        A robot that still holds itself up, as after an emergency stop, is not let go: then only
        settings that need no torque off may differ. A wheel that turns is stopped.

        Raises:
            BusError: a servo is missing, of another model, in error, or refuses a setting; all
                servos that are missing or of another model are named at once.
            ServoError: settings in EEPROM would have to change, and are not approved.
        """
        self._read_at[:] = -np.inf  # what was read before, if anything, tells nothing
        self.firmware = self._identify()
        self._wanted = [self._running_settings(row) for row in range(len(self._ids))]
        for row, joint in enumerate(self.joints):
            self._check_health(row, joint)
        holding = [bool(self.bus.read(id, self.TORQUE_ENABLE)) for id in self._ids]
        self.energised, self._limp = any(holding), ~np.array(holding)
        for id, holds in zip(self._ids, holding, strict=True):
            if holds:
                self._stop(id)
            else:  # a watchdog that has tripped locks the goals
                self._disarm(id)
        self._goal_counts[:] = [self.bus.read(id, self._goal) for id in self._ids]
        self._set_up_eeprom(holding)
        for id, wanted in zip(self._ids, self._wanted, strict=True):
            for register, value in wanted.items():
                if register not in self.SET_BY_ENERGISE and self.bus.read(id, register) != value:
                    self.bus.write_verified(id, register, value)
        self._approve = refuse_changes  # where they are kept nothing has to change again
        self.bus.return_delay_s = 0.0
        self.measured_latency_s = self.bus.measure_latency(self._ids)
        self._feedback = self._feedback_read()
        self._fresh = self._feedback.fresh[len(self.others) :]
        block = self._feedback.data[len(self.others) :].view(self.BLOCK)[:, 0]
        self._counts = {name: block[name] for name in self.BLOCK.names or ()}
        self._settings = [self._sync_read([id], self.SETTINGS) for id in self._ids]
        for _ in range(ATTEMPTS):  # one damaged reply is no silent servo
            if self.read(self._port.now() + 0.1) == len(self.joints):
                break
        if silent := [joint for joint, age in zip(self.joints, self.age_s, strict=True) if age > 1]:
            raise BusError(f"joints {silent} do not answer a sync read; check the cables")

    def energise(self) -> None:
        """Turn torque on, holding the present pose or standing still, and arm the watchdogs.

        Raises:
            SafetyError: a joint lies outside its limits: holding it there is not possible, and
                driving it inside is for a person to do. Or it is limp, and does not keep still.
            BusError: a servo does not confirm.
        """
        present = np.array([self.bus.read(id, self.PRESENT_POSITION) for id in self._ids])
        self._refuse_outside(present)
        for row, id in enumerate(self._ids):
            self._seed_goal(row, present)
            self.bus.write_verified(id, self.TORQUE_ENABLE, 1)
        tripped: list[int] = []
        for _ in range(ARM_TRIES):
            tripped = self._arm()
            for row in tripped:
                self._disarm(self._ids[row])
                self._seed_goal(row, present)
            if not tripped:
                break
        else:
            raise BusError(
                f"the watchdogs of {[self.joints[row] for row in tripped]} trip while they are "
                "switched on, expected something to be heard on their bus in time; check its "
                "cable, or raise `safety.watchdog_ms`"
            )
        self.energised = True

    def _seed_goal(self, row: int, present: NDArray[np.integer]) -> None:
        """Set a servo's goal to where its joint is: a stale one would make it jump.

        A limp joint may move while noise costs time, so it is looked at again afterwards. One that
        is driven by speed or torque is to have none.
        """
        id = self._ids[row]
        if self.mode != "position":
            self._stop(id)
            self._goal_counts[row] = 0
            return
        for _ in range(STILL_TRIES):
            holds = self.bus.read(id, self.TORQUE_ENABLE)
            present[row] = self.bus.read(id, self.PRESENT_POSITION)
            self._refuse_outside(present)
            goals = self._hold_ticks(present) if holds else np.clip(present, *self._scale.limits.T)
            self.bus.write_verified(id, self._goal, int(goals[row]))
            self._goal_counts[row] = goals[row]
            moved = abs(self.bus.read(id, self.PRESENT_POSITION) - int(present[row]))
            if holds or moved * self._scale.rad_per_tick[row] <= STILL_RAD:
                return
        raise SafetyError(
            f"{self.joints[row]} moves while it is limp, expected it to keep still: torque stays "
            "off, since it would be jerked back. Lay it down or support it, then start again"
        )

    def _refuse_outside(self, present: NDArray[np.integer]) -> None:
        """Raise a SafetyError if a joint, at `present` (n,) counts, is where it cannot be held."""
        goals = np.clip(present, *self._scale.limits.T)
        beyond_rad = abs(goals - present) * self._scale.rad_per_tick
        turned = (present < 0) | (present >= np.array([model.ticks for model in self._models]))
        endless = np.array([wiring.continuous for wiring in self._wirings])
        if outside := [
            f"{self.joints[row]} is at {self._scale.values(present)[row]:.2f} rad (count "
            f"{present[row]}), its limits are {list(self._wirings[row].position_limits_rad)} rad"
            for row in np.flatnonzero(~endless & (turned | (beyond_rad > LIMIT_TOLERANCE_RAD)))
        ]:
            raise SafetyError(
                f"{'; '.join(outside)}. Torque stays off, since it would throw the joint to its "
                "limit. Move it inside by hand; if it looks inside already, its `zero_ticks` or "
                "`direction` in the robot's YAML is wrong, or its horn is mounted one tooth off"
            )

    def read(self, deadline_s: float) -> int:
        """Read all joints; joints that did not answer keep their last value and grow older.

        Args:
            deadline_s: time on the port's clock to be done at.

        Returns:
            How many joints answered.
        """
        feedback = self._feedback
        assert feedback is not None, "connect() comes first"
        asked_s = self._port.now()  # what comes late is old, also after a pause in between
        feedback.read(deadline_s)
        self._take(self._fresh, asked_s)
        np.copyto(self.heard, self._fresh)
        np.copyto(self._read_at, asked_s, where=self.heard)
        np.subtract(self._port.now(), self._read_at, out=self.age_s)
        return int(np.count_nonzero(self._fresh))

    @property
    def statistics(self) -> Statistics:
        """What happened on the bus."""
        return self.bus.statistics

    @property
    def target(self) -> NDArray[np.float64]:
        """The targets sent last (n,), as the servos have them."""
        return self._goal_scale.values(self._goal_counts)

    @property
    def read_s(self) -> float:
        """Time a reading of all joints takes [s]."""
        assert self._feedback is not None, "connect() comes first"
        return self._feedback.wire_s + self.adapter_s

    @property
    def adapter_s(self) -> float:
        """What is reckoned for the adapter in that [s]: its median latency and a margin."""
        assert self._feedback is not None, "connect() comes first"
        return self._feedback.turns * (self.measured_latency_s + MARGIN_S)

    def describe(self) -> str:
        """What was found when connecting: servos, their firmware, and the bus."""
        servos = [
            f"{joint}: {model.name} firmware {firmware}"
            for joint, model, firmware in zip(self.joints, self._models, self.firmware, strict=True)
        ]
        return f"{', '.join(servos)}; reading all takes {self.describe_reading()}"

    def describe_reading(self) -> str:
        """How long a reading of all joints takes, and why."""
        assert self._feedback is not None, "connect() comes first"
        wire_ms, latency_ms = self._feedback.wire_s * 1e3, self.adapter_s * 1e3
        bus, where = self._bus_config, self.config.key_of(self.name)
        turns = f" in {self._feedback.turns} turns" if self._feedback.turns > 1 else ""
        return (
            f"{wire_ms + latency_ms:.1f} ms: {wire_ms:.1f} ms on the wire at {bus.baud_rate} baud, "
            f"{latency_ms:.1f} ms for the adapter{turns} (measured "
            f"{self.measured_latency_s * 1e3:.1f} ms, "
            f"`{where}.usb_latency_ms` says {bus.usb_latency_ms:g})"
        )

    def advise(self) -> str:
        """What to do if readings were lost because replies came late; empty if none were."""
        statistics = self.bus.statistics
        if not (statistics.late and statistics.lost):
            return ""
        return (
            f"{statistics.late} replies came late, {statistics.lost} readings were lost: replies "
            f"took {statistics.reply_times}, "
            f"`{self.config.key_of(self.name)}.usb_latency_ms` says "
            f"{self._bus_config.usb_latency_ms:g} ms. If it stays so, "
            f"{latency_advice(self._bus_config.port)}"
        )

    @property
    def alerts(self) -> NDArray[np.bool_]:
        """Joints whose servo reports a fault; `health` asks those that always do."""
        assert self._feedback is not None, "connect() comes first"
        alert = self._feedback.alert[len(self.others) :]
        return np.greater(alert, self._overfed, out=self._alerts)

    def write(self, targets: NDArray[np.float64]) -> None:
        """Send joint targets (n,) [rad, rad/s or N·m]."""
        self._send(self._goal_scale.counts(targets, out=self._goal_counts))

    def alarm(self) -> str:
        """What the servos complain about since the latest reading; empty if nothing."""
        if not np.count_nonzero(self.alerts) or not (complaints := self.describe_alerts()):
            return ""
        return f"a servo reports an error: {complaints}"

    def health(self, deadline_s: float, *, due: bool = False) -> str | None:
        """Read back whether one servo is still set up as it was: the next one at each call.

        Args:
            deadline_s: time on the port's clock to be done at.
            due: ask also if the reply may come too late, as a reading of the joints does.

        Returns:
            What is wrong with it, empty if nothing is or it did not answer; None if there was too
            little time to ask.
        """
        row = self._next_row
        settings = self._settings[row]
        latency_s = 0.0 if due else self.bus.latency_s
        if self._port.now() + settings.wire_s + latency_s > deadline_s:
            return None
        self._next_row = (row + 1) % len(self._ids)
        answered = settings.read(deadline_s)
        np.subtract(self._port.now(), self._read_at, out=self.age_s)
        if not answered:
            return ""
        data = settings.data[0].tobytes()

        def read(register: Register) -> int:
            return register.decode(data[register.address - self.SETTINGS.start :][: register.size])

        self.voltage[row] = read(self.PRESENT_VOLTAGE) * self.PRESENT_VOLTAGE.scale
        self.temperature[row] = read(self.PRESENT_TEMPERATURE)
        if faults := self._faults(row, read(self.FAULTS)):
            return f"{self.joints[row]}: {self.describe_faults(faults)}"
        for register, wanted in self._wanted[row].items():
            if (found := read(register)) != wanted:
                return f"{self.joints[row]}: its {register} reads {found}, expected {wanted}"
        register = self._goal
        found, sent = read(register), self._goal_counts[row]
        self._goals_missed = self._goals_missed + 1 if found != sent else 0
        if self._goals_missed:
            self._next_row = row  # it is asked again next
        if self._goals_missed < GOALS_MISSED:
            return ""
        self._goal_counts[row] = found  # what it is to hold
        return f"{self.joints[row]}: its {register} reads {found}, {sent} was sent"

    def rest_differences(self) -> list[str]:
        """Joints found limp that are not where the YAML says that the unpowered robot rests."""
        if self.mode != "position":
            return []
        differences = []
        for row in np.flatnonzero(self._limp):
            joint, wiring, angle = self.joints[row], self._wirings[row], self.position[row]
            if abs(angle - wiring.rest_rad) > wiring.rest_tolerance_rad:
                ticks = wiring.direction * (angle - wiring.rest_rad) / self._scale.rad_per_tick[row]
                differences.append(
                    f"{joint} reads {angle:+.2f} rad, at rest it should read "
                    f"{wiring.rest_rad:+.2f} ± {wiring.rest_tolerance_rad:g} rad; if it does lie "
                    f"at rest, its zero is at count {round(wiring.zero_ticks + ticks)}, not "
                    f"{wiring.zero_ticks}, or its direction is {-wiring.direction:+d}"
                )
        return differences

    def hold(self) -> None:
        """Stop: one command to all, then each goal is read back.

        Each joint keeps the target sent last, as far as that is within `HOLD_REACH_RAD` of where
        it was seen. One not seen lately may have missed targets: it keeps the goal it has. One
        driven by speed or torque gets none. Servos that confirm are then told to stop watching the
        bus: they hold anyway, and the watchdog would set the goal to wherever the load has pulled
        the joint.

        Raises:
            BusError: names the servos that do not confirm; the others hold.
        """
        seen = self._port.now() - self._read_at <= self.config.safety.stale_after_ms / 1000
        if self.mode == "position":
            present = self._scale.counts(self.position, out=np.zeros_like(self._goal_counts))
            np.copyto(self._goal_counts, self._hold_ticks(present), where=seen)
        else:
            self._goal_counts[:], seen[:] = 0, True
        if seen.all():
            self._send(self._goal_counts)
        unseen = {id for id, known in zip(self._ids, seen, strict=True) if not known}

        def confirm(id: int) -> None:
            goal = self._own_goal(id) if id in unseen else self._goal_counts[self._ids.index(id)]
            astray = self.mode == "position" and self.bus.read(id, self._goal) != goal
            if astray and not self._stopped_itself(id):
                self.bus.write_verified(id, self._goal, int(goal))
            if not self.bus.read(id, self.TORQUE_ENABLE):
                raise ServoError(f"servo {id}: {self.TORQUE_ENABLE} reads 0, it has let go")
            self._stop(id)

        seen_first = sorted(self.id_of.items(), key=lambda joint: joint[1] in unseen)
        _for_each_servo(dict(seen_first), confirm)

    def release(self) -> None:
        """Turn torque off: one command to all, then each servo is written and read back.

        Their watchdogs are switched off as well: one that is left armed trips in the silence that
        follows, and the servo then refuses the next program's goals.

        Raises:
            BusError: names the servos that do not confirm; the others are limp.
        """
        self.bus.broadcast_write(self.TORQUE_ENABLE, 0)
        _for_each_servo(self.id_of, lambda id: self.bus.write_verified(id, self.TORQUE_ENABLE, 0))
        _for_each_servo(self.id_of, self._disarm)
        self.energised = False
        if self._feedback is not None and self.mode != "position":
            for id in self._ids:  # whoever switches torque on next is not to find a speed
                with contextlib.suppress(BusError):
                    self.bus.write_verified(id, self._goal, 0)

    def rescue(self, *, let_go: bool) -> None:
        """Hold, or let go, servos that another program has left as they are; see `Device`."""
        if let_go:
            self.release()
            return

        def stop(id: int) -> None:
            if not self.bus.read(id, self.TORQUE_ENABLE):
                return
            goal = self._goal_of(id)
            if goal is self.GOALS["position"] and not self._stopped_itself(id):
                self.bus.write_verified(id, goal, self._own_goal(id))
            self._stop(id)

        _for_each_servo(self.id_of, stop)

    def _own_goal(self, id: int) -> int:
        """A goal [counts] for a joint that nobody has followed: its servo's, near where it is."""
        row = self._ids.index(id)
        self._goal_counts[row] = self.bus.read(id, self.GOALS["position"])
        present = self._goal_counts.copy()
        present[row] = self.bus.read(id, self.PRESENT_POSITION)
        self._goal_counts[row] = self._hold_ticks(present)[row]
        return int(self._goal_counts[row])

    def _stop(self, id: int) -> None:
        """Switch a servo's watchdog off, in whatever mode it is, and have it stay where it is.

        It has locked the goals if it has tripped, and nothing says that it has forgotten them.
        """
        tripped, goal = self._stopped_itself(id), self._goal_of(id)
        self._disarm(id)
        if goal is not self.GOALS["position"]:
            self.bus.write_verified(id, goal, 0)
        elif tripped:
            found, present = self.bus.read(id, goal), self.bus.read(id, self.PRESENT_POSITION)
            reach = int(self._reach[self._ids.index(id)])
            if (near := min(max(found, present - reach), present + reach)) != found:
                self.bus.write_verified(id, goal, near)

    def describe_alerts(self) -> str:
        """What the servos in alert complain about."""
        complaints = []
        for row in np.flatnonzero(self.alerts):
            status = self.bus.read(self._ids[row], self.FAULTS)
            complaints.append(f"{self.joints[row]}: {self.describe_faults(status)}")
        return ", ".join(complaints)

    def _hold_ticks(self, present: NDArray[np.integer]) -> NDArray[np.integer]:
        """Goals (n,) that stop each joint near `present`, see `HOLD_REACH_RAD`."""
        reach = self._reach
        return np.clip(np.clip(self._goal_counts, present - reach, present + reach),
                       *self._scale.limits.T)  # fmt: skip


def _for_each_servo(id_of: dict[str, int], action: Callable[[int], None]) -> None:
    """Call action(id) for every servo, and raise what went wrong only afterwards."""
    errors = []
    for name, id in id_of.items():
        try:
            action(id)
        except DeviceLost as error:  # with the port all others are out of reach
            errors.append(str(error))
            break
        except Exception as error:  # whatever it is: the next one is to be stopped too
            errors.append(f"{name}: {error}")
    if errors:
        raise BusError("; ".join(errors))
