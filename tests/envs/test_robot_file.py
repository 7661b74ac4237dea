"""A robot by path: what a YAML adds to an MJCF or URDF, and everything wrong with it at once."""

import hashlib
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from deploy.servos.models import SERVOS, servos_of
from envs.robot import load_robot
from envs.sensors import SENSORS

MODELS = Path(__file__).parent / "models"
ARM = MODELS / "arm.yaml"
ANT = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
ANT_JOINTS = [f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")]
ANT_YAML = f"""
model: {ANT}
replace_actuators: true
servos:
  - {{joints: ["hip_*", "ankle_*"], servo: XM430-W350, p_gain: 800, supply_v: 12.0}}
imu: {{body: torso, position_m: [0.1, 0, 0], quaternion_wxyz: [0, 0, 0, 1]}}
sites: {{left_foot: {{body: aux_1}}}}
home:
  joints: {{"ankle_*": 0.9, ankle_2: -0.9, ankle_3: -0.9}}
  base_position_m: [0, 0, 0.6]
rest: {{joints: {{"ankle_*": 0.6, ankle_2: -0.6, ankle_3: -0.6}}, base_position_m: [0, 0, 0.4]}}
"""


def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_robot(str(path)).check()
    return str(error.value).splitlines()


def write(folder: Path, text: str, model: str = "") -> Path:
    path = folder / "robot.yaml"
    path.write_text(text)
    if model:
        (folder / "model.xml").write_text(model)
    return path


# --- what is added -----------------------------------------------------------------------------


def test_servos_of_a_urdf_are_those_of_the_table_and_its_own_torque_limits_are_gone(
    tmp_path: Path,
):
    text = ARM.read_text().replace("model: ", f"model: {MODELS}/").replace("5.0", "6.0")
    robot = load_robot(str(write(tmp_path, text)))
    robot.check()
    model = robot.model

    assert robot.name == "maker_arm"
    assert robot.joints == ["pan", "lift", "elbow"]
    assert {joint: servo.name for joint, servo in servos_of(model).items()} == {
        "pan": "XL430-W250", "lift": "XL430-W250", "elbow": "XL330-M288"
    }  # fmt: skip
    xl330 = SERVOS["XL330-M288"].plain
    elbow = model.actuator("elbow")
    assert elbow.gainprm[0] == pytest.approx(xl330.kp(400, 6.0))
    assert elbow.forcerange[1] == pytest.approx(xl330.drive_torque(6.0))
    assert model.dof_armature[2] == xl330.armature
    assert model.dof_frictionloss[2] == xl330.friction.at_rest
    assert model.actuator_delay.tolist() == [0.01, 0.01, 0.015]
    assert not model.jnt_actfrclimited.any()  # effort="0.1" of the URDF
    assert model.actuator_ctrlrange.tolist() == [[-2, 2], [-1.5, 1.5], [-2, 2]]
    assert (model.opt.timestep, model.opt.integrator) == (
        0.005, int(mujoco.mjtIntegrator.mjINT_IMPLICITFAST)
    )  # fmt: skip


def test_arm_of_a_urdf_droops_as_its_lever_and_its_gain_say():
    robot = load_robot(str(ARM))
    model, data = robot.model, mujoco.MjData(robot.model)
    model.dof_frictionloss[:] = 0.0
    data.qpos[:] = data.ctrl[:] = [0, 1.4, 0]  # stretched out, almost level

    for _ in range(2000):
        mujoco.mj_step(model, data)

    # Level, the torque about the lift were (0.08 kg · 0.06 m + 0.06 kg · 0.12 m) · 9.81 m/s², about
    # lift and elbow together 0.06 kg · 0.05 m · 9.81 m/s² = 0.02943 N·m; it goes with the sine.
    lift, both = data.qpos[1], data.qpos[1] + data.qpos[2]
    fore = 0.02943 * np.sin(both)
    torque = np.array([0, 0.11772 * np.sin(lift) + fore, fore])
    droop = torque / model.actuator_gainprm[:, 0]
    assert data.qpos - data.ctrl == pytest.approx(droop, rel=1e-3, abs=1e-6)


def test_poses_sites_and_home_are_where_the_yaml_says():
    robot = load_robot(str(ARM))
    model, data = robot.model, mujoco.MjData(robot.model)

    assert robot.home.tolist() == [0, 0.4, 0.8]
    assert model.keyframe("rest").qpos.tolist() == [0, -1.49, -1.65]
    assert model.keyframe("rest").ctrl.tolist() == [0, -1.49, -1.65]
    mujoco.mj_forward(model, data)
    # Shoulder 0.05 m up, upper arm 0.12 m, forearm 0.1 m to the tip, and 0.01 m on it.
    assert data.site("tool").xpos == pytest.approx([0, 0, 0.28])


def test_every_signal_can_be_measured_on_a_robot_that_had_no_sensor(tmp_path: Path):
    robot = load_robot(str(write(tmp_path, ANT_YAML)))

    places = robot.sensors(SENSORS)
    model, data = robot.model, mujoco.MjData(robot.model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    data.qvel[robot.dofs] = np.arange(8)
    mujoco.mj_forward(model, data)
    for sensor in range(model.nsensor):
        delayed = int(model.sensor_history[sensor, 0])
        assert delayed == 8, model.sensor(sensor)  # room for randomized delays

    assert robot.joints == ANT_JOINTS
    read = {kind: data.sensordata[columns] for kind, columns in places.items()}
    assert read["joint_position"] == pytest.approx(robot.home)
    assert read["joint_velocity"] == pytest.approx(np.arange(8))
    assert read["projected_gravity"] == pytest.approx([0, 0, 1])  # the sensor; gravity is opposite
    assert model.site("imu").quat == pytest.approx([0, 0, 0, 1])


def test_ant_on_named_servos_is_a_robot_and_what_it_had_is_untouched(tmp_path: Path):
    robot = load_robot(str(write(tmp_path, ANT_YAML)))
    robot.check()
    model, original = robot.model, mujoco.MjModel.from_xml_path(str(ANT))

    assert model.nu == 8
    assert robot.home.tolist() == [0, 0.9, 0, -0.9, 0, -0.9, 0, 0.9]
    assert model.keyframe("home").qpos[:7].tolist() == [0, 0, 0.6, 1, 0, 0, 0]
    for field in ("body_mass", "body_pos", "geom_size", "jnt_range", "jnt_axis"):
        assert np.array_equal(getattr(model, field), getattr(original, field)), field
    assert model.opt.timestep == original.opt.timestep == 0.01
    assert model.opt.integrator == original.opt.integrator


LEG = """
<mujoco>
  <worldbody>
    <body name="trunk" pos="0 0 0.2">
      <geom size="0.05" mass="1"/>
      <body name="leg"><joint name="hip" axis="0 1 0" range="-60 60"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.1" size="0.01" mass="0.1"/></body>
    </body>
  </worldbody>
</mujoco>
"""


def test_base_can_be_freed_and_put_on_a_floor(tmp_path: Path):
    text = """
model: model.xml
free_base: true
floor: true
servos: [{joints: [hip], servo: XL330-M288, p_gain: 400}]
home: {base_position_m: [0, 0, 0.112], base_quaternion_wxyz: [0.8, 0, 0, 0.6]}
rest: {base_position_m: [0, 0, 0.05]}
timestep_s: 0.004
"""
    robot = load_robot(str(write(tmp_path, text, LEG)))
    robot.check()
    model, data = robot.model, mujoco.MjData(robot.model)

    assert robot.home_qpos.tolist() == [0, 0, 0.112, 0.8, 0, 0, 0.6, 0]
    assert model.opt.timestep == 0.004
    mujoco.mj_resetDataKeyframe(model, data, model.key("rest").id)
    mujoco.mj_forward(model, data)
    assert model.geom("floor").id in data.contact.geom


def test_a_mesh_is_found_by_its_ros_package_as_the_folders_lie(tmp_path: Path):
    package = tmp_path / "maker_arm"
    (package / "meshes").mkdir(parents=True)
    (package / "urdf").mkdir()
    corners = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1"]
    faces = ["f 1 3 2", "f 1 2 4", "f 1 4 3", "f 2 3 4"]
    (package / "meshes" / "base.obj").write_text("\n".join([*corners, *faces]))
    urdf = (MODELS / "arm.urdf").read_text().replace(
        '<cylinder radius="0.04" length="0.04"/>',
        '<mesh filename="package://maker_arm/meshes/base.obj" scale="0.1 0.1 0.1"/>',
    )  # fmt: skip
    (package / "urdf" / "arm.urdf").write_text(urdf)
    (package / "urdf" / "arm.yaml").write_text(ARM.read_text())
    robot = load_robot(str(package / "urdf" / "arm.yaml"))

    assert robot.model.nmesh == 1
    assert [file.name for file in robot.files] == ["arm.yaml", "base.obj", "arm.urdf"]
    before = robot.sha256
    (package / "meshes" / "base.obj").write_text("\n".join(["v 0 0 -1", *corners, *faces]))
    assert load_robot(str(package / "urdf" / "arm.yaml")).sha256 != before


def test_motor_that_is_in_no_table_is_given_by_its_numbers(tmp_path: Path):
    text = """
model: model.xml
motors:
  - {joints: [hip], kp_nm_per_rad: 15.9, kd_nm_s_per_rad: 1.5, torque_nm: 23.7,
     armature_kg_m2: 0.004, delay_s: 0.006}
home: {}
rest: {}
"""
    robot = load_robot(str(write(tmp_path, text, LEG.replace("<joint", '<joint damping="0.3"'))))
    robot.check()
    (joint,) = robot.joint_specs(velocity_limit=10.0)

    assert (joint.kp_nm_per_rad, joint.kd_nm_s_per_rad) == (15.9, 1.5)
    assert joint.effort_limit_nm == 23.7
    assert joint.position_limits_rad == pytest.approx((-np.pi / 3, np.pi / 3))  # 60°
    assert robot.model.actuator_delay.tolist() == [0.006]
    assert robot.model.dof_armature.tolist() == [0.004]
    assert robot.model.dof_damping.tolist() == [0.3]  # the model's own
    assert servos_of(robot.model) == {}


def test_home_places_the_robot_and_not_what_lies_about():
    model = load_robot(str(MODELS / "strider.yaml")).model
    home = model.keyframe("home").qpos

    assert home[model.joint("root").qposadr[0] :][:3].tolist() == [0, 0, 0.14]
    assert home[model.joint("ball_root").qposadr[0] :][:3].tolist() == [2, 0, 0.1]


def test_lamp_goes_along_with_a_robot_that_walks_away():
    model = load_robot("quadruped").model
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    before = data.light_xpos.copy()

    data.qpos[:2] += [7.0, -3.0]
    mujoco.mj_forward(model, data)

    assert data.light_xpos - before == pytest.approx(np.array([[7.0, -3.0, 0.0]]))


# --- what it is identified by ------------------------------------------------------------------


def test_identity_is_that_of_all_files_and_not_of_where_they_are(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in ("arm.yaml", "arm.urdf"):
            (tmp_path / name / file).write_bytes((MODELS / file).read_bytes())
    one, two = (str(tmp_path / name / "arm.yaml") for name in ("one", "two"))
    same = load_robot(one).sha256

    assert same == load_robot(two).sha256 == load_robot(str(ARM)).sha256
    for file in ("arm.yaml", "arm.urdf"):
        changed = tmp_path / "two" / file
        changed.write_text(changed.read_text().replace("0.01", "0.02").replace("0.12", "0.13"))
        assert load_robot(two).sha256 != same
        changed.write_bytes((MODELS / file).read_bytes())


def test_identity_of_a_robot_of_one_file_is_that_of_the_file():
    robot = load_robot("desk_arm")

    assert robot.sha256 == hashlib.sha256(robot.path.read_bytes()).hexdigest()


def test_included_file_is_part_of_the_identity(tmp_path: Path):
    body = '<body><geom size="0.1"/></body>'
    (tmp_path / "part.xml").write_text(
        f"<mujocoinclude><worldbody>{body}</worldbody></mujocoinclude>"
    )
    main = tmp_path / "main.xml"
    main.write_text('<mujoco><include file="part.xml"/></mujoco>')
    before = load_robot(str(main)).sha256
    (tmp_path / "part.xml").write_text((tmp_path / "part.xml").read_text().replace("0.1", "0.2"))

    assert load_robot(str(main)).sha256 != before


def test_whole_robot_can_be_written_as_one_mjcf():
    robot = load_robot(str(ARM))

    again = mujoco.MjModel.from_xml_string(robot.mjcf())

    for field in ("body_mass", "dof_armature", "actuator_gainprm", "actuator_delay", "key_qpos"):
        found, expected = getattr(again, field), getattr(robot.model, field)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9, err_msg=field)
    assert servos_of(again) == servos_of(robot.model)


# --- what is wrong -----------------------------------------------------------------------------


def test_torque_motors_get_one_error_that_lists_what_is_missing():
    joints = ", ".join(map(repr, ANT_JOINTS))
    motors = ", ".join(map(str, range(8)))

    assert refusal(ANT) == [
        f"robot 'ant' ({ANT}) cannot be trained:",
        f"  each of the actuators {motors} is no position servo, so its gains are not known: use "
        "<position kp=...>, or <velocity kv=...> for a wheel",
        f"  each of the actuators {motors} has a gear ratio, so its target is no joint angle: use "
        "gear 1",
        f"  each of the actuators {motors} has no forcerange: give the stall torque of the servo",
        f"  each of the joints {joints} has no <jointpos/> sensor",
        f"  each of the joints {joints} has no <jointvel/> sensor",
        "  keyframe 'home' is missing: the start pose",
        "  keyframe 'rest' is missing: a pose that is stable without power",
    ]


def test_everything_wrong_in_a_yaml_is_listed_at_once(tmp_path: Path):
    text = """
model: model.xml
servos:
  - {joints: [hipp, "knee_*"], servo: XL330-M288, p_gain: 400}
  - {joints: [hip], servo: XL330-M287, p_gain: 400}
imu: {body: trunc}
sites: {tool: {body: leg, quaternion_wxyz: [1, 1, 0, 0]}}
home: {joints: {hipp: 0.3}, base_position_m: [0, 0, 0.1]}
"""
    path = write(tmp_path, text, LEG)

    assert refusal(path) == [
        f"robot 'robot' ({path}) cannot be trained:",
        "  servos.0: joint 'hipp' is not in the model (did you mean 'hip'?); it has hip",
        "  servos.0: joint 'knee_*' is not in the model; it has hip",
        "  servos.1: servo 'XL330-M287' is not known (did you mean 'XL330-M288'?); there are "
        + ", ".join(SERVOS),
        "  sites.tool: quaternion_wxyz (1.0, 1.0, 0.0, 0.0) is not of length 1; correct it",
        "  imu: body 'trunc' is not in the model (did you mean 'trunk'?); it has world, trunk, leg",
        "  home: joint 'hipp' is not in the model (did you mean 'hip'?); it has hip",
        "  home: the base stands fast, so it cannot be placed; say `free_base: true`",
        "  it has no actuators",
        "  keyframe 'rest' is missing: a pose that is stable without power",
    ]


SERVO = "servos: [{joints: [hip], servo: XL330-M288, p_gain: 400}]"


@pytest.mark.parametrize(
    ("text", "model", "problem"),
    [
        (SERVO + "\nhome: {}\nrest: {}", LEG.replace('range="-60 60"', ""),
         "servos.0: joint 'hip' has no limits, which a position servo needs; give it a range in "
         "the model (in a URDF: type `revolute`, with <limit>). What turns without end, such as a "
         "wheel, takes a <velocity> actuator in the MJCF"),
        (SERVO + "\nhome: {}\nrest: {}",
         LEG.replace("</mujoco>", '<actuator><motor joint="hip"/></actuator></mujoco>'),
         "servos.0: joint 'hip' has an actuator in the model already; delete that, or say "
         "`replace_actuators: true`"),
        (SERVO.replace("[hip]", "[hip, hip]") + "\nhome: {}\nrest: {}", LEG,
         "servos.0: joint 'hip' has a servo already; name it in one group"),
        (SERVO.replace("}]", ", supply_v: 24}]") + "\nhome: {}\nrest: {}", LEG,
         "servos.0: joint 'hip': a supply of 24 V, expected 2.5..10 for XL330-M288; correct "
         "supply_v"),
        (SERVO + "\nhome: {}\nrest: {}\nsites: {tool: {body: leg}}",
         LEG.replace('<body name="leg">', '<body name="leg"><site name="tool"/>'),
         "sites.tool: the model has a site 'tool' already; delete one of the two"),
        (SERVO + "\nhome: {}\nrest: {}",
         LEG.replace("</mujoco>", '<keyframe><key name="home"/></keyframe></mujoco>'),
         "home: the model has a keyframe 'home' already; delete one of the two"),
        (SERVO + "\nhome: {}\nrest: {}\nfree_base: true",
         LEG.replace('<body name="trunk" pos="0 0 0.2">',
                     '<body name="trunk"><freejoint name="root"/>'),
         "free_base: the first body, 'trunk', has the joint 'root' already; delete the line"),
    ],
    ids=["no limits", "motor", "twice", "supply", "site", "keyframe", "free"],
)  # fmt: skip
def test_what_does_not_go_with_the_model_is_named(
    tmp_path: Path, text: str, model: str, problem: str
):
    path = write(tmp_path, f"model: model.xml\n{text}", model)

    assert f"  {problem}" in refusal(path)


def test_missing_meshes_of_a_urdf_are_all_named(tmp_path: Path):
    urdf = (MODELS / "arm.urdf").read_text()
    for shape, mesh in (
        ('<cylinder radius="0.04" length="0.04"/>', "package://maker_arm/meshes/base.dae"),
        ('<box size="0.02 0.02 0.1"/>', "meshes/fore.stl"),
    ):
        urdf = urdf.replace(shape, f'<mesh filename="{mesh}"/>')
    (tmp_path / "arm.urdf").write_text(urdf)
    path = write(tmp_path, ARM.read_text().replace("joints: [elbow]", "joints: [elbo]"))

    assert refusal(path) == [
        f"robot 'maker_arm' ({path}) cannot be trained:",
        f"  the file {tmp_path}/maker_arm/meshes/base.dae is missing; put it there, or correct the "
        "model (MuJoCo reads meshes in .stl, .obj, .msh, so convert it)",
        f"  the file {tmp_path}/meshes/fore.stl is missing; put it there, or correct the model",
        "  servos.1: joint 'elbo' is not in the model (did you mean 'elbow'?); it has pan, lift, "
        "elbow",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: other.xml", "model: there is no file {folder}/other.xml; correct the path"),
        ("servo: []", "(top level): unknown key 'servo' (did you mean 'servos'?)"),
        ("model: model.xml\nservos: [{joints: [hip], servo: X, p_gain: -1}]",
         "servos.0.p_gain: input should be greater than or equal to 0, found -1"),
        ("model: model.xml\n", "MuJoCo cannot read it"),
    ],
    ids=["no file", "key", "gain", "no model"],
)  # fmt: skip
def test_file_of_which_nothing_can_be_made_is_refused(tmp_path: Path, text: str, message: str):
    path = write(tmp_path, text, "<mujoco><worldbody><body/></mujoco>")

    with pytest.raises(ConfigError) as error:
        load_robot(str(path)).check()

    assert message.format(folder=tmp_path) in str(error.value)


def test_path_without_a_file_is_refused():
    with pytest.raises(ConfigError, match=r"robot 'none\.yaml': there is no such file"):
        load_robot("none.yaml")


# --- what it is good for -----------------------------------------------------------------------


def test_arm_of_a_urdf_follows_the_targets_of_a_task():
    settings = {
        "robot": str(ARM),
        "arm_joints": ["pan", "lift", "elbow"],
        "target_low_m": [0.1, -0.05, 0.1],
        "target_high_m": [0.15, 0.05, 0.2],
        "start_spread_rad": 0.0,
    }
    env = envs.make("arm_reach", num_envs=1, num_threads=1, task_config=settings)
    env.reset()

    for _ in range(50):
        env.step_targets(torch.tensor([[0.5, 0.7, 0.4]]))

    measured = env.signals["joint_position"][0]
    assert measured.numpy() == pytest.approx([0.5, 0.7, 0.4], abs=0.05)
