"""The kinematics inside the exported graph against MuJoCo's own."""

import mujoco
import numpy as np
import pytest
import torch

from envs.forward_kinematics import ForwardKinematics
from envs.robot import load_robot


def site_positions(model: mujoco.MjModel, site: str, qpos: np.ndarray) -> np.ndarray:
    """MuJoCo's positions of a site at angles (n, nq), (n, 3)."""
    data = mujoco.MjData(model)
    positions = []
    for pose in qpos:
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        positions.append(data.site(site).xpos.copy())
    return np.array(positions)


def largest_error(model: mujoco.MjModel, site: str, joints: list[str], poses: int = 1000) -> float:
    """Greatest distance [m] between MuJoCo and the module at random angles up to ±3 rad."""
    kinematics = ForwardKinematics(model, site, joints)
    columns = [int(model.joint(name).qposadr[0]) for name in joints]
    qpos = np.random.default_rng(0).uniform(-3, 3, (poses, model.nq))

    found = kinematics(torch.tensor(qpos[:, columns], dtype=torch.float32))

    return float(np.linalg.norm(found.numpy() - site_positions(model, site, qpos), axis=1).max())


def chain(body: str) -> mujoco.MjModel:
    """A model with `body` below a turned and shifted first link."""
    return mujoco.MjModel.from_xml_string(f"""
    <mujoco><worldbody>
      <body name="first" pos="0.1 0.2 0.3" euler="10 20 30">
        <joint name="a" axis="0 0 1"/><geom size="0.01"/>{body}
      </body>
    </worldbody></mujoco>""")


WRIST = """
<body name="wrist" pos="0 0.1 0" euler="40 0 0"><joint name="b" axis="1 2 3"/><geom size="0.01"/>
  <site name="tip" pos="0.05 0.06 0.07"/></body>"""
WELDED = '<body pos="0.2 0 0.1" euler="0 50 60"><geom size="0.01"/>{}</body>'


def test_tool_of_the_desk_arm_is_where_mujoco_puts_it():
    robot = load_robot("desk_arm")

    assert largest_error(robot.model, "tool", robot.joints) < 1e-6


def test_links_may_be_turned_and_axes_oblique():
    assert largest_error(chain(WRIST), "tip", ["a", "b"]) < 1e-6


@pytest.mark.parametrize(
    "body",
    [
        WELDED.format(WRIST),
        WRIST.replace("<site", WELDED.format("<site").replace("</body>", "")).replace(
            "</body>", "</body></body>"
        ),
        WELDED.format(WELDED.format(WRIST)),
    ],
    ids=["between joints", "at the tip", "two in a row"],
)
def test_welded_body_carries_what_hangs_on_it(body: str):
    assert largest_error(chain(body), "tip", ["a", "b"]) < 1e-6


def test_welded_body_below_the_world_carries_the_whole_chain():
    model = mujoco.MjModel.from_xml_string(f"""
    <mujoco><worldbody>{WELDED.format(WRIST)}</worldbody></mujoco>""")

    assert largest_error(model, "tip", ["b"]) < 1e-6


def test_joints_come_in_the_order_of_the_caller():
    model = chain(WRIST)
    angles = np.array([[0.3, -0.8]])
    expected = site_positions(model, "tip", angles)

    found = ForwardKinematics(model, "tip", ["b", "other", "a"])(torch.tensor([[-0.8, 9.0, 0.3]]))

    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_joint_with_an_offset_of_its_zero_is_where_mujoco_puts_it():
    model = chain(WRIST.replace('<joint name="b"', '<joint name="b" ref="45"'))

    assert largest_error(model, "tip", ["a", "b"]) < 1e-6


def test_joints_outside_the_chain_do_not_move_the_site():
    robot = load_robot("desk_arm")
    kinematics = ForwardKinematics(robot.model, "tool", robot.joints)
    pose = torch.zeros(2, 6)
    pose[1, robot.joints.index("gripper")] = 1.0

    positions = kinematics(pose)

    assert torch.equal(positions[0], positions[1])


@pytest.mark.parametrize(
    ("joints", "text"),
    [
        ('<joint name="b" type="slide"/>', "body 'wrist' needs exactly one hinge"),
        ('<joint name="b" axis="1 0 0"/><joint name="c"/>', "body 'wrist' needs exactly one hinge"),
        ('<joint name="b" type="ball"/>', "body 'wrist' needs exactly one hinge"),
        ('<joint name="b" pos="0 0 0.1"/>', "joint 'b' must be at its body's origin"),
    ],
    ids=["slide", "two hinges", "ball", "off the origin"],
)
def test_chain_that_is_not_made_of_hinges_is_refused(joints: str, text: str):
    model = chain(WRIST.replace('<joint name="b" axis="1 2 3"/>', joints))

    with pytest.raises(ValueError, match=f"^{text}$"):
        ForwardKinematics(model, "tip", ["a", "b", "c"])


def test_joint_of_the_chain_that_is_not_an_input_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^joint 'b' moves the site, but is not in \['a'\]$"):
        ForwardKinematics(chain(WRIST), "tip", ["a"])


def test_site_that_no_joint_moves_is_refused():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><site name="mark" pos="1 2 3"/></worldbody></mujoco>'
    )

    with pytest.raises(ValueError, match=r"^no joint moves the site 'mark'$"):
        ForwardKinematics(model, "mark", [])
