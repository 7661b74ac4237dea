"""A robot's joints in all worlds: found by name once, then read by place.

    joints = RobotJoints(simulation, robot, margin_rad=0.03)
    joints.angle                                 # (num_envs, joints) [rad], as `robot.joints`
    state = joints.start(worlds, episode, draws, spread_rad=0.4)     # around the home pose

What else is in the model, such as an object on the desk, starts as its keyframe `home` says.
Friction and delay are fields of the model: the first look gives each world its own copy.
"""

import torch
from torch import Tensor

from deploy.contract import JointSpec
from envs.draws import Draws, Stream
from envs.rewards import beyond
from envs.robot import Robot
from envs.simulation import Simulation, State
from envs.worlds import Worlds, as_slice


class RobotJoints:
    """See the module docstring.

    Args:
        simulation: the worlds, of a model that begins with the robot's.
        robot: the robot.
        margin_rad: targets stay this far inside the joint limits.

    Raises:
        ConfigError: the robot is not driven by position, or its home pose is out of range.
    """

    def __init__(self, simulation: Simulation, robot: Robot, *, margin_rad: float):
        device = simulation.device
        self._simulation, self.robot, self.names = simulation, robot, robot.joints
        self._range = robot.target_range(margin_rad)
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._ctrl, self._force = simulation.data("ctrl"), simulation.data("actuator_force")
        self.actuators = torch.from_numpy(robot.actuators).to(device)
        """(joints,) their places in `ctrl`."""
        self._servos = as_slice(self.actuators)
        self._angles = as_slice(torch.from_numpy(robot.qpos).to(device))
        self._dofs = as_slice(torch.from_numpy(robot.dofs).to(device))
        self._start = torch.from_numpy(simulation.model.keyframe("home").qpos).to(self._qpos)
        self.home, self.low, self.high = (
            torch.from_numpy(values).to(self._qpos) for values in (robot.home, *self._range)
        )
        """(joints,) home pose, lowest and highest target [rad]."""
        self._max_torque = torch.from_numpy(robot.max_torque).float().to(device)

    @property
    def angle(self) -> Tensor:
        """(num_envs, joints) true angles [rad]."""
        return self._qpos[:, self._angles].float()

    @property
    def speed(self) -> Tensor:
        """(num_envs, joints) true speeds [rad/s]."""
        return self._qvel[:, self._dofs].float()

    @property
    def from_home(self) -> Tensor:
        """(num_envs, joints) true angles as seen from home [rad]."""
        return (self._qpos[:, self._angles] - self.home).float()

    @property
    def outside(self) -> Tensor:
        """(num_envs,) how far joints are beyond the range of their targets, summed [rad]."""
        return beyond(self._qpos[:, self._angles], self.low, self.high).float()

    @property
    def torque(self) -> Tensor:
        """(num_envs, joints) of the servos [N·m]."""
        return self._force[:, self._servos].float()

    @property
    def effort(self) -> Tensor:
        """(num_envs, joints) torque as a share of the servo's largest."""
        return self.torque / self._max_torque

    @property
    def target(self) -> Tensor:
        """(num_envs, joints) what the servos have been told [rad]."""
        return self._ctrl[:, self._servos].float()

    @property
    def friction_loss(self) -> Tensor:
        """(num_envs, joints) friction of this episode [N·m]."""
        return self._simulation.field("dof_frictionloss")[:, self._dofs].float()

    @property
    def delay(self) -> Tensor:
        """(num_envs, joints) from a target to its use, in this episode [s]."""
        return self._simulation.field("actuator_delay")[:, self._servos].float()

    def columns(self, names: list[str]) -> Tensor | slice:
        """Where some joints are among all, to index the tables above."""
        places = [self.names.index(name) for name in names]
        return as_slice(torch.tensor(places, device=self.actuators.device))

    def lead(self, effort: float) -> Tensor:
        """(joints,) from an angle to the target at which a servo gives that part of its torque."""
        gains = [joint.kp_nm_per_rad for joint in self.specs(1.0)]
        return effort * self._max_torque / torch.tensor(gains, device=self._max_torque.device)

    def specs(self, velocity_limit: float) -> list[JointSpec]:
        """What the contract says of them; `velocity_limit` [rad/s] is the fastest target."""
        low, high = (values.tolist() for values in self._range)
        return self.robot.joint_specs(low=low, high=high, velocity_limit=velocity_limit)

    def start(self, worlds: Worlds, episode: Tensor, draws: Draws, *, spread_rad: float) -> State:
        """At rest around the home pose, with servos that hold what they have.

        Args:
            worlds: where.
            episode: (n,) their episodes.
            draws: the run's random numbers.
            spread_rad: how far each joint may be from home, within its range.
        """
        (u,) = draws.uniform([self.pose_stream], worlds.ids, episode)
        return self.around_home(u, spread_rad=spread_rad)

    @property
    def pose_stream(self) -> Stream:
        """What `start` draws, for a task that draws more at once."""
        return Stream("initial_pose", len(self.home))

    def around_home(self, uniform: Tensor, *, spread_rad: float) -> State:
        """See `start`; `uniform` (n, joints) are its numbers in [0, 1)."""
        pose = (self.home + spread_rad * (2 * uniform - 1)).clamp(self.low, self.high)
        qpos = self._start.repeat(len(uniform), 1)
        qpos[:, self._angles] = pose
        ctrl = qpos.new_zeros(len(uniform), self._ctrl.shape[1])
        ctrl[:, self._servos] = pose
        return State(qpos, qpos.new_zeros(len(uniform), self._qvel.shape[1]), ctrl)
