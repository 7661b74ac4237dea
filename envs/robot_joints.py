"""A robot's joints in all worlds: found by name once, then read by place.

    joints = RobotJoints(simulation, robot, margin_rad=0.03)
    joints.angle                                 # (num_envs, joints) [rad], as `robot.joints`
    state = joints.start(worlds, episode, draws, spread_rad=0.4)     # around the home pose

What else is in the model, such as an object on the desk, starts as its keyframe `home` says.
"""

import torch
from torch import Tensor

from deploy.contract import JointSpec
from envs.draws import Draws, Stream
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
        self.robot, self.names = robot, robot.joints
        self._range = robot.target_range(margin_rad)
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._ctrl = simulation.data("ctrl")
        self._friction = simulation.field("dof_frictionloss")
        self._delay = simulation.field("actuator_delay")
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

    @property
    def angle(self) -> Tensor:
        """(num_envs, joints) true angles [rad]."""
        return self._qpos[:, self._angles].float()

    @property
    def speed(self) -> Tensor:
        """(num_envs, joints) true speeds [rad/s]."""
        return self._qvel[:, self._dofs].float()

    @property
    def target(self) -> Tensor:
        """(num_envs, joints) what the servos have been told [rad]."""
        return self._ctrl[:, self._servos].float()

    @property
    def friction_loss(self) -> Tensor:
        """(num_envs, joints) friction of this episode [N·m]."""
        return self._friction[:, self._dofs].float()

    @property
    def delay(self) -> Tensor:
        """(num_envs, joints) from a target to its use, in this episode [s]."""
        return self._delay[:, self._servos].float()

    def columns(self, names: list[str]) -> Tensor | slice:
        """Where some joints are among all, to index the tables above."""
        places = [self.names.index(name) for name in names]
        return as_slice(torch.tensor(places, device=self.actuators.device))

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
        (u,) = draws.uniform([Stream("initial_pose", len(self.home))], worlds.ids, episode)
        pose = (self.home + spread_rad * (2 * u - 1)).clamp(self.low, self.high)
        qpos = self._start.repeat(len(worlds), 1)
        qpos[:, self._angles] = pose
        ctrl = qpos.new_zeros(len(worlds), self._ctrl.shape[1])
        ctrl[:, self._servos] = pose
        return State(qpos, qpos.new_zeros(len(worlds), self._qvel.shape[1]), ctrl)
