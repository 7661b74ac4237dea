import numpy as np
import pytest

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.registers import RAD_PER_TICK
from deploy.errors import ConfigError
from deploy.twin.parameters import TwinParameters, draw
from deploy.twin.robot import Twin, build_model

GAINS = {"shoulder": 640, "elbow": 400}


def torque_on(twin: Twin) -> None:
    for servo, p_gain in zip(twin.servos, GAINS.values(), strict=True):
        servo.write(registers.POSITION_P_GAIN.address, p_gain.to_bytes(2, "little"))
        servo.write(registers.POSITION_D_GAIN.address, b"\0\0")
        servo.write(registers.TORQUE_ENABLE.address, b"\x01")


def move_to(twin: Twin, angles: list[float], config) -> None:
    for servo, joint, angle in zip(twin.servos, config.joints.values(), angles, strict=True):
        ticks = round(joint.zero_ticks + joint.direction * angle / RAD_PER_TICK)
        servo.write(registers.GOAL_POSITION.address, registers.GOAL_POSITION.encode(ticks))


def test_starts_in_the_rest_pose_and_falls_without_torque(twin):
    assert twin.joint_position == pytest.approx([0.0, 0.5])
    twin.advance(3.0)
    assert twin.joint_position[1] > 1.4  # its friction does not hold the elbow


def test_servos_report_the_joints_through_their_wiring(twin):
    shoulder, elbow = (
        registers.PRESENT_POSITION.decode(servo.read(132, 4).data) for servo in twin.servos
    )
    assert shoulder == 2048
    assert elbow == round(2000 - 0.5 / RAD_PER_TICK)  # direction -1, zero at 2000


def test_every_drawn_robot_moves_differently(arm_path, arm_config):
    def swing(parameters: TwinParameters) -> np.ndarray:
        twin = Twin(arm_path, arm_config, parameters)
        torque_on(twin)
        move_to(twin, [-0.6, 1.2], arm_config)
        twin.advance(0.08)
        return twin.joint_position

    poses = [swing(draw(seed, arm_path)) for seed in (None, 0, 1, 2)]
    for index, pose in enumerate(poses):
        for other in poses[index + 1 :]:
            assert np.abs(pose - other).min() > 1e-4


def test_motors_coast_without_torque_and_brake_with_it(arm_path, arm_config):
    def drop(*, torque: bool) -> float:
        twin = Twin(arm_path, arm_config)
        for servo in twin.servos:
            servo.write(registers.POSITION_P_GAIN.address, b"\0\0")
            servo.write(registers.TORQUE_ENABLE.address, bytes([torque]))
        twin.advance(0.2)
        return twin.joint_position[1]

    assert drop(torque=False) - 0.5 > 1.2 * (drop(torque=True) - 0.5) > 0


@pytest.mark.parametrize("pieces", [1, 7, 150])
def test_same_calls_give_the_same_robot_whatever_the_steps(arm_path, arm_config, pieces):
    def run(steps: int) -> tuple[bytes, np.ndarray]:
        twin = Twin(arm_path, arm_config, draw(5, arm_path))
        twin.receive(protocol.sync_read([1, 2], 124, 12), 0.1)
        for end_s in np.linspace(0.1, 0.25, steps + 1)[1:]:
            twin.advance(end_s)
        return twin.take(0.25), twin.joint_position

    reply, pose = run(1)
    same_reply, same_pose = run(pieces)
    assert len(reply) == 2 * 23
    assert same_reply == reply
    assert np.array_equal(same_pose, pose)


def test_parameters_scale_the_model(arm_path):
    nominal, *_ = build_model(arm_path, ["shoulder"], TwinParameters())
    parameters = TwinParameters(
        mass_scale={"lower": 1.1}, friction_scale={"elbow": 0.7}, armature_scale={"elbow": 1.2}
    )
    model, *_ = build_model(arm_path, ["shoulder"], parameters)

    assert model.body("lower").mass == pytest.approx(1.1 * nominal.body("lower").mass)
    assert model.body("lower").inertia == pytest.approx(1.1 * nominal.body("lower").inertia)
    assert model.body("upper").mass == nominal.body("upper").mass
    assert model.joint("elbow").frictionloss == pytest.approx(0.0028)
    assert model.joint("elbow").armature == pytest.approx(0.0024)
    assert model.joint("shoulder").frictionloss == pytest.approx(0.004)


def test_unknown_joint_is_named_with_the_nearest_one(arm_path):
    with pytest.raises(ConfigError) as caught:
        build_model(arm_path, ["shoulder", "elbo"], TwinParameters())
    assert str(caught.value) == (
        f"joint 'elbo' is not in {arm_path} (did you mean 'elbow'?); it has shoulder, elbow. "
        "Correct `joints` in the robot file"
    )
