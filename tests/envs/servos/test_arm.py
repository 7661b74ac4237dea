"""The desk arm with servos from the table, play and friction under load, in a task."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from deploy.servos.models import SERVOS
from envs.divergence import replay
from envs.forward_kinematics import ForwardKinematics
from envs.robot import load_robot
from envs.servos import add_backlash, add_servo

P_GAINS = {
    "shoulder_pan": 800,
    "shoulder_lift": 1200,
    "elbow_flex": 3000,
    "wrist_flex": 1600,
    "wrist_roll": 800,
    "gripper": 800,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    spec = mujoco.MjSpec.from_file(str(load_robot("desk_arm").path))
    for actuator in spec.actuators:
        spec.delete(actuator)
    for joint, p_gain in P_GAINS.items():
        servo = SERVOS["XL430-W250" if joint.startswith("shoulder") else "XL330-M288"]
        add_servo(spec, joint, servo, p_gain=p_gain, load_friction=True, delay_s=0.01)
        add_backlash(spec, joint, 0.004)
    path = tmp_path / "arm.xml"
    path.write_text(spec.to_xml())
    return path


def test_task_runs_on_it_and_continues_from_a_checkpoint_to_the_bit(path):
    friction = {
        "field": "dof_frictionloss",
        "match": list(P_GAINS),
        "operation": "scale",
        "range": [0.5, 2.0],
    }
    env = envs.make(
        "arm_reach",
        num_envs=4,
        num_threads=1,
        task_config={"robot": str(path)},
        randomization=[friction],
    )
    observation = env.reset()["critic"]
    generator = torch.Generator().manual_seed(0)

    def drive(steps: int) -> torch.Tensor:
        nonlocal observation
        for _ in range(steps):
            action = 2 * torch.rand(4, env.num_actions, generator=generator) - 1
            observation = env.step(action).observation["critic"]
        return observation

    drive(40)
    saved, random = env.state_dict(), generator.get_state()
    expected = drive(20)
    env.load_state_dict(saved)
    generator.set_state(random)
    assert torch.equal(drive(20), expected)
    assert env.diverged == 0
    assert expected.isfinite().all()


def test_arm_that_blows_up_is_replayed_by_plain_mujoco(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    env = envs.make("arm_reach", num_envs=3, num_threads=1, task_config={"robot": str(path)})
    env.reset()
    env.record_divergences(tmp_path / "diverged")
    env.step(torch.ones(3, env.num_actions))

    env.simulation.data("qvel")[1, 0] = 3e6
    env.step(torch.ones(3, env.num_actions))

    assert env.diverged == 1
    (file,) = (tmp_path / "diverged").iterdir()
    result = replay(file)
    assert result.dump.divergence.world == 1
    assert result.cause == result.dump.divergence.cause != ""


def test_tool_is_where_the_encoders_say(path):
    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    kinematics = ForwardKinematics(model, "tool", list(P_GAINS))
    for _ in range(5):
        for joint in P_GAINS:
            data.joint(joint).qpos = rng.uniform(-1, 1)
            data.joint(joint + "/backlash").qpos = rng.uniform(-0.004, 0.004)
        mujoco.mj_forward(model, data)
        seen = [data.sensor(f"{joint}_position").data.item() for joint in P_GAINS]
        tool = kinematics(torch.tensor([seen], dtype=torch.float32))[0]
        assert tool.numpy() == pytest.approx(data.site("tool").xpos, abs=1e-5)


def test_supply_that_sags_is_a_term_like_any_other(path):
    sag = {"field": "supply_resistance_ohm", "operation": "set", "range": [0.05, 0.3]}
    settings = {"num_envs": 4, "num_threads": 1, "task_config": {"robot": str(path)}}
    sagging = envs.make("arm_reach", randomization=[sag], **settings)
    stiff = envs.make("arm_reach", **settings)
    sagging.reset()
    stiff.reset()

    ohm = sagging.simulation.field("supply_resistance_ohm")[:, 0]
    assert len(set(ohm.tolist())) == 4
    assert ((ohm >= 0.05) & (ohm <= 0.3)).all()
    for _ in range(10):
        sagging.step(torch.ones(4, sagging.num_actions))
        stiff.step(torch.ones(4, stiff.num_actions))
    one, other = (env.simulation.data("qpos") for env in (sagging, stiff))
    assert ((one - other).abs().amax(dim=1) > 1e-4).all()


def test_sag_without_a_servo_whose_motor_is_known_is_refused():
    sag = {"field": "supply_resistance_ohm", "operation": "set", "range": [0.05, 0.3]}

    with pytest.raises(ConfigError, match=r"this model has none whose motor is known; put them"):
        envs.make("arm_reach", randomization=[sag])
