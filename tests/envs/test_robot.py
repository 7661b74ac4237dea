"""Robots are read by name: any order of the MJCF gives the same, and what is missing is listed."""

import copy
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import torch

import envs
import envs.robot
from deploy.errors import ConfigError
from envs.robot import Robot, load_robot

ARM = load_robot("desk_arm")
Element = ElementTree.Element
Install = Callable[[str], str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Adds the robot `test_arm`, from its MJCF; returns its name."""
    (tmp_path / "test_arm").mkdir()
    (tmp_path / "desk_arm").symlink_to(ARM.path.parent)
    monkeypatch.setattr(envs.robot, "_FOLDER", tmp_path)

    def install(xml: str) -> str:
        (tmp_path / "test_arm" / "test_arm.xml").write_text(xml)
        return "test_arm"

    return install


def desk_arm() -> Element:
    return ElementTree.parse(ARM.path).getroot()


def find(root: Element, path: str) -> Element:
    found = root.find(path)
    assert found is not None, path
    return found


def shuffled() -> Element:
    """The desk arm with servos and sensors in another order, and servos of other names."""
    root = desk_arm()
    for section in ("actuator", "sensor"):
        parent = find(root, section)
        children = list(parent)
        for child in children:
            parent.remove(child)
        parent.extend([*children[1::2], *reversed(children[::2])])
    for servo in find(root, "actuator"):
        servo.set("name", f"servo_of_{servo.get('joint')}")
    for key in find(root, "keyframe"):
        numbers = dict(zip(ARM.joints, key.get("ctrl", "").split(), strict=True))
        servos = find(root, "actuator")
        key.set("ctrl", " ".join(numbers[servo.get("joint", "")] for servo in servos))
    return root


def accompanied() -> Element:
    """The shuffled arm, with a ball on the desk before it and a loose cover on its upper arm."""
    root = shuffled()
    ball = ElementTree.fromstring(
        '<body name="ball" pos="0.5 0 1"><freejoint name="ball"/><geom size="0.01" mass="1e-3"/>'
        "</body>"
    )
    world = find(root, "worldbody")
    world.insert([child.tag for child in world].index("body"), ball)
    cover = ElementTree.fromstring(
        '<body name="cover"><joint name="cover" axis="1 0 0" damping="1e-6"/>'
        '<geom size="0.01" mass="1e-6"/></body>'
    )
    upper_arm = find(root, ".//body[@name='upper_arm']")
    upper_arm.insert([child.tag for child in upper_arm].index("body"), cover)
    for key in find(root, "keyframe"):
        pan, lift, *rest = key.get("qpos", "").split()
        key.set("qpos", " ".join(["0.5 0 1 1 0 0 0", pan, lift, "0", *rest]))
    return root


def text(root: Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def make(robot: str, **settings: object) -> envs.VectorEnv:
    return envs.make(
        "arm_reach", num_envs=4, num_threads=1, task_config={"robot": robot, **settings}
    )


def test_arm_with_shuffled_servos_and_sensors_lives_the_same_episodes_to_the_bit(
    install: Install, monkeypatch: pytest.MonkeyPatch
):
    env = envs.make("arm_reach", num_envs=4, num_threads=1)
    other = make(install(text(shuffled())))
    assert [
        servo.name for servo in map(other.deployment.robot.model.actuator, range(6))
    ] != ARM.joints

    first, first_other = env.reset(), other.reset()
    assert torch.equal(first["critic"], first_other["critic"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        action = 2 * torch.rand(4, 5, generator=generator) - 1
        one, two = env.step(action), other.step(action)
        assert torch.equal(one[0]["critic"], two[0]["critic"])
        assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("variant", [shuffled, accompanied])
def test_every_joint_keeps_its_home_limits_and_gains_under_its_name(
    install: Install, variant: Callable[[], Element]
):
    original = envs.make("arm_reach").deployment
    env = make(install(text(variant())))

    assert env.deployment.robot.joints == ARM.joints
    assert env.deployment.joints == original.joints
    assert np.array_equal(env.deployment.robot.home, ARM.home)


@pytest.mark.parametrize("variant", [shuffled, accompanied])
def test_target_of_a_joint_moves_that_joint(install: Install, variant: Callable[[], Element]):
    env = make(install(text(variant())), start_spread_rad=0.0)
    env.reset()
    model, data = env.deployment.robot.model, env._simulation.data
    for index, joint in enumerate(ARM.joints):
        env.reset()
        target = torch.from_numpy(ARM.home).float().repeat(4, 1)
        target[:, index] += 0.3

        for _ in range(30):
            env.step_targets(target)

        moved = data("qpos")[0] - torch.from_numpy(env.deployment.robot.home_qpos)
        place = int(model.joint(joint).qposadr[0])
        others = [int(model.joint(other).qposadr[0]) for other in ARM.joints if other != joint]
        assert moved[place] > 0.2, joint
        assert moved[others].abs().max() < 0.1, joint
        servo = next(a for a in range(6) if model.actuator_trnid[a, 0] == model.joint(joint).id)
        assert data("ctrl")[0, servo].item() == pytest.approx(ARM.home[index] + 0.3)
        assert env.signals["joint_target"][0, index].item() == pytest.approx(ARM.home[index] + 0.3)
        assert env.signals["joint_position"][0, index].item() == pytest.approx(
            data("qpos")[0, place].item()
        )


def test_other_joints_and_bodies_are_out_of_sight(install: Install):
    env, other = envs.make("arm_reach", num_envs=4), make(install(text(accompanied())))
    one, two = env.reset(), other.reset()

    # At the start bit by bit; then the ball falls and the cover weighs a milligram.
    assert torch.equal(one["actor"], two["actor"])
    torch.testing.assert_close(one["critic"], two["critic"], atol=1e-7, rtol=0)
    for _ in range(20):
        one, reward, *_ = env.step(torch.full((4, 5), 0.3))
        two, other_reward, *_ = other.step(torch.full((4, 5), 0.3))
        torch.testing.assert_close(one["critic"], two["critic"], atol=1e-4, rtol=0)
        torch.testing.assert_close(reward, other_reward, atol=1e-4, rtol=0)


def test_tool_is_where_mujoco_puts_it_with_other_joints_around(install: Install):
    env = make(install(text(accompanied())))
    model = env.deployment.robot.model
    data = mujoco.MjData(model)
    angles = np.random.default_rng(0).uniform(-1, 1, (20, 6))
    kinematics = env.task.encoder.get_submodule("features.kinematics")
    for row in angles:
        data.qpos[:] = env.deployment.robot.home_qpos
        for joint, angle in zip(ARM.joints, row, strict=True):
            data.joint(joint).qpos = angle
        mujoco.mj_kinematics(model, data)
        found = kinematics(torch.from_numpy(row).float()[None])[0]
        assert np.abs(found.numpy() - data.site("tool").xpos).max() < 1e-6


# --- what is missing ---------------------------------------------------------------------------

BARE = """
<mujoco>
  <worldbody>
    <body name="base">
      <freejoint name="floating"/>
      <geom size="0.1"/>
      <body name="arm"><joint name="hip"/><geom size="0.1"/><site name="tool"/></body>
    </body>
  </worldbody>
  <actuator><motor name="hip_motor" joint="hip"/></actuator>
</mujoco>
"""


def refusal(robot: str, **settings: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        make(robot, **settings)
    return str(error.value).splitlines()


def test_everything_that_is_missing_is_listed_at_once(install: Install, tmp_path: Path):
    path = tmp_path / "test_arm" / "test_arm.xml"

    assert refusal(install(BARE), arm_joints=["hip"]) == [
        f"robot 'test_arm' ({path}) cannot be trained:",
        "  actuator hip_motor is no position servo, so its gains are not known: use "
        "<position kp=...>, or <velocity kv=...> for a wheel",
        "  actuator hip_motor has no forcerange: give the stall torque of the servo",
        '  actuator hip_motor has no ctrlrange: write inheritrange="1" to take that of the joint',
        "  joint 'hip' has no <jointpos/> sensor",
        "  joint 'hip' has no <jointvel/> sensor",
        "  keyframe 'home' is missing: the start pose",
        "  keyframe 'rest' is missing: a pose that is stable without power",
        "  its base moves freely, by joint 'floating'; this task needs it fixed",
    ]


def without_actuators(root: Element) -> None:
    for child in list(find(root, "actuator")):
        find(root, "actuator").remove(child)
    for key in find(root, "keyframe"):
        del key.attrib["ctrl"]


def second_servo(root: Element) -> None:
    twin = copy.deepcopy(find(root, "actuator")[0])
    twin.set("name", "again")
    find(root, "actuator").append(twin)
    for key in find(root, "keyframe"):
        del key.attrib["ctrl"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without_actuators, "it has no actuators"),
        (second_servo, "actuator again drives the same joint as actuator shoulder_pan"),
        (
            lambda root: find(root, "actuator")[0].set("gear", "2"),
            "actuator shoulder_pan has a gear ratio, so its target is no joint angle: use gear 1",
        ),
        (
            lambda root: find(root, "sensor").remove(find(root, "sensor")[2]),
            "joint 'elbow_flex' has no <jointpos/> sensor",
        ),
        (
            lambda root: find(root, "keyframe").remove(find(root, "keyframe")[1]),
            "keyframe 'rest' is missing: a pose that is stable without power",
        ),
    ],
    ids=["no actuators", "two on one joint", "gear", "sensor", "keyframe"],
)  # fmt: skip
def test_what_is_missing_is_named(
    install: Install, change: Callable[[Element], None], problem: str
):
    root = desk_arm()
    change(root)

    assert refusal(install(text(root)))[1:] == [f"  {problem}"]


def test_home_outside_the_limits_is_refused_by_name(install: Install):
    root = desk_arm()
    find(root, "keyframe")[0].set("qpos", "0 -0.2 0.2 0.2 0 3")

    (line,) = refusal(install(text(root)))

    assert line.startswith("the home pose of ['gripper'] lies outside their limits")


def test_passive_joint_between_the_base_and_the_tool_is_refused(install: Install):
    root = desk_arm()
    find(root, ".//body[@name='hand']").insert(
        0, ElementTree.fromstring('<joint name="loose" axis="0 0 1"/>')
    )
    find(root, ".//body[@name='hand']").remove(find(root, ".//joint[@name='wrist_roll']"))
    for section in ("actuator", "sensor"):
        for child in list(find(root, section)):
            if child.get("joint") == "wrist_roll":
                find(root, section).remove(child)
    for key in find(root, "keyframe"):
        del key.attrib["ctrl"]

    joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex"]
    (line,) = refusal(install(text(root)), arm_joints=joints)

    assert line.startswith("joint 'loose' moves the site, but is not in")


@pytest.mark.parametrize(
    ("tag", "settings"),
    [("position", {"timeconst": "0.1"}), ("intvelocity", {"actrange": "-1 1", "kv": "0.1"})],
)
def test_servo_that_filters_or_integrates_its_target_is_refused(
    install: Install, tag: str, settings: dict[str, str]
):
    root = desk_arm()
    servo = find(root, "actuator/position[@joint='elbow_flex']")
    kept = {"ctrlrange": "-1 1", "forcerange": "-0.5 0.5", "kp": servo.get("kp", "")}
    servo.attrib = {"name": "elbow_flex", "joint": "elbow_flex", **kept, **settings}
    servo.tag = tag

    (_, *problems) = refusal(install(ElementTree.tostring(root, encoding="unicode")))

    assert problems == [
        "  actuator elbow_flex filters or integrates its target: use <position> without timeconst"
    ]


def test_file_that_mujoco_cannot_read_is_refused(install: Install):
    (line, *_) = refusal(install("<mujoco><worldbody><body/></mujoco>"))

    assert "test_arm.xml: MuJoCo cannot read it: " in line


def test_robot_of_another_class_is_checked_before_its_joints_are_read(tmp_path: Path):
    path = tmp_path / "bare.xml"
    path.write_text(BARE)

    with pytest.raises(ConfigError, match="hip_motor is no position servo"):
        _ = Robot("bare", path).joints
