"""A device that is lost while the robot is driven, and comes back: its adapter, or its power.

    find_again(drive)                    # waits and looks; nothing moves
    drive.robot.energise()               # once somebody has said so: holds where the joints are
    drive.begin_run()

`Runtime` comes here from any state in which the robot is driven, after all devices were brought
into the safe state: those that answer at once, the lost one as soon as it can be told. A device
counts as back when it passes all that `connect` checks: ids, models, settings, supply. Settings
that are kept at power-off must be as they were; nobody is asked to change them now. A joint that
has kept its torque must not be elsewhere, if it is driven by position; a limp one may be, within
its limits.
"""

from enum import Enum

import numpy as np

from deploy.drive import Drive, Floats
from deploy.errors import BusError, SafetyError

RETRY_S = 0.1
"""Between two looks for what is missing."""


class Reconnect(Enum):
    """What a run does when a device is lost."""

    NEVER = "the run ends in the safe state"
    ASKED = "it waits, and goes on once the device is back and somebody resumes"
    ALONE = "it waits, and goes on by itself once the device is back, unless it was paused before"


def find_again(drive: Drive) -> None:
    """Wait until every device is back and checked, for at most `safety.reconnect_s`.

    Raises:
        BusError: one is not back, or not what it was.
        SafetyError: a held joint is elsewhere, or a stop was asked for.
    """
    robot, clock, requests = drive.robot, drive.clock, drive.requests
    seen, sent = robot.position.copy(), drive.sent.copy()
    patience_s = robot.config.safety.reconnect_s
    give_up_s = clock.now() + patience_s
    missing = list(robot.devices)
    while missing:
        drive.poll()
        drive.check_stop()
        try:
            robot.reconnect(missing[0])
            missing.pop(0)
        except BusError as error:
            if requests.finished or clock.now() >= give_up_s:
                raise BusError(
                    f"device {missing[0].name!r} was lost and is not back, looked for it for at "
                    f"most {patience_s:g} s (`safety.reconnect_s`): {error}"
                ) from error
            clock.sleep_until(clock.now() + RETRY_S)
    _refuse_moved(drive, np.minimum(seen, sent), np.maximum(seen, sent))


def wait_for_resume(drive: Drive) -> None:
    """Look on, limp or held as the robot was found, until somebody resumes or finishes.

    Raises:
        DeviceLost: it is gone again.
        SafetyError: a stop was asked for.
    """
    requests = drive.requests
    while requests.paused and not requests.finished:
        drive.clock.sleep_until(drive.clock.now() + drive.period_s)
        drive.poll()
        drive.check_stop()
        drive.robot.read(drive.clock.now() + drive.period_s)
        drive.robot.check_heard()


def _refuse_moved(drive: Drive, lowest: Floats, highest: Floats) -> None:
    """Refuse joints that held and are not between where they were and where they were told to."""
    if drive.governor.mode != "position":
        return  # it rolled on until its watchdog stopped it, or fell
    robot, allowed = drive.robot, drive.robot.config.safety.pose_tolerance_rad
    held = {joint for device in robot.devices if device.energised for joint in device.joints}
    for row, joint in enumerate(robot.joints):
        angle = robot.position[row]
        off = max(lowest[row] - angle, angle - highest[row])
        if joint.name in held and off > allowed:
            raise SafetyError(
                f"joint {joint.name!r} is at {angle:.2f} rad after it was lost, {off:.2f} rad from "
                f"where it was held, allowed {allowed:g} rad; its horn has slipped, or it is "
                "another servo. Park the robot, then start again"
            )
