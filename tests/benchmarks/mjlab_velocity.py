"""mjlab's velocity task on its Unitree Go1, measured as ours are, and its robot for our task.

mjlab 1.6 wants MuJoCo 3.11 and we want 4.0, so it has a Python of its own:

    python -m venv /tmp/mjlab && /tmp/mjlab/bin/pip install mjlab==1.6.0
    PYTHONPATH=. /tmp/mjlab/bin/python tests/benchmarks/mjlab_velocity.py --save /tmp/go1
    python tests/benchmarks/simulation_gpu.py --task /tmp/go1/walk.yaml

The environment is theirs as it ships: flat ground, their randomization and pushes, 50 Hz control of
200 Hz physics. `--save` writes their compiled scene with their physics options, and a training
configuration of ours for it: the same bodies, contacts, motors, solver and rates, with our signals,
rewards and a similar randomization. `waits` as in simulation_gpu.py; "-" on a CPU.
"""

import argparse
import contextlib
import math
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu_timing import HEAD, count_waits, row, time_each

TASK = "Mjlab-Velocity-Flat-Unitree-Go1"
OPTIONS = (
    *("timestep", "integrator", "cone", "jacobian", "solver", "impratio", "iterations"),
    *("tolerance", "ls_iterations", "ls_tolerance", "ccd_iterations", "ccd_tolerance"),
)
ROBOT = """\
model: scene.xml
name: go1
imu: {body: robot/trunk, position_m: [-0.01592, -0.06659, -0.00617]}
home:
  joints: {"*R_hip_joint": 0.1, "*L_hip_joint": -0.1, "*_thigh_joint": 0.9, "*_calf_joint": -1.8}
  base_position_m: [0, 0, 0.2945]          # on its feet; theirs begins 16 mm lower
rest: {joints: {"*_thigh_joint": 1.3, "*_calf_joint": -2.7}, base_position_m: [0, 0, 0.1]}
"""
WALK = """\
task: velocity
num_envs: 4096
env_steps: 1e8
task_config:
  robot: go1.yaml
  gait:
    feet:
      robot/FL_foot_collision: 0.0
      robot/RR_foot_collision: 0.0
      robot/FR_foot_collision: 0.5
      robot/RL_foot_collision: 0.5
    lift_m: 0.1
  command: {low: [-1.0, -1.0, -0.5], high: [1.0, 1.0, 0.5], interval_s: [3.0, 8.0]}
randomization:
  - {field: geom_friction, match: "*_foot_collision", columns: slide, operation: set,
     range: [0.3, 1.5], shared: true, when: startup}
  - {field: body_ipos, body: robot/trunk, operation: add, range: [-0.025, 0.025], when: startup}
  - {field: joint_zero, operation: add, range: [-0.015, 0.015], when: startup}
  - {signal: imu_angular_velocity, operation: add, range: [-0.2, 0.2], when: step}
  - {signal: projected_gravity, operation: add, range: [-0.05, 0.05], when: step}
  - {signal: joint_position, operation: add, range: [-0.01, 0.01], when: step}
  - {signal: joint_velocity, operation: add, range: [-1.5, 1.5], when: step}
  - {initial: yaw, range: [-3.14, 3.14]}
  - {push: "*", columns: [x, y], range: [-0.5, 0.5], interval_s: [1.0, 3.0]}
"""


def main() -> None:
    """Print one line for each number of worlds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--steps", type=int, default=200, help="control steps in a round")
    parser.add_argument("--save", type=Path, help="folder for the robot and our configuration")
    arguments = parser.parse_args()
    try:
        import_module("mjlab.tasks")  # registers them
    except ImportError as error:
        sys.exit(f"mjlab is not in this Python ({error}); see the top of {Path(__file__).name}")
    device = "CPU: whether it runs; these are no speeds"
    if arguments.device != "cpu":
        device = torch.cuda.get_device_name(arguments.device)
    print(f"{device}; {TASK}\n{HEAD}")
    for num_envs in arguments.num_envs:
        with contextlib.redirect_stdout(sys.stderr):  # which tells what it is made of
            env = make(num_envs, arguments.device)
        if arguments.save:
            save(env, arguments.save)
            arguments.save = None
        print(measure(env, arguments.device, arguments.steps), flush=True)


def make(num_envs: int, device: str) -> Any:
    """Their environment, its episodes staggered."""
    config = import_module("mjlab.tasks.registry").load_env_cfg(TASK)
    config.scene.num_envs = num_envs
    env = import_module("mjlab.envs").ManagerBasedRlEnv(config, device=device)
    env.reset()
    env.episode_length_buf = torch.randint_like(env.episode_length_buf, env.max_episode_length)
    return env


def measure(env: Any, device: str, steps: int) -> str:
    """One line of the table."""
    num_envs, substeps = env.num_envs, round(env.step_dt / env.physics_dt)
    action = torch.rand(num_envs, env.action_manager.total_action_dim, device=device) * 2 - 1

    def physics() -> None:
        for _ in range(substeps):
            env.sim.step()

    whole = time_each(lambda: env.step(action), steps, device)
    alone = time_each(physics, steps, device)
    env.reset()
    waits = "-" if device == "cpu" else count_waits(lambda: env.step(action))
    return row("mjlab Go1", num_envs, whole, alone, device, waits)


def save(env: Any, folder: Path) -> None:
    """Their scene as an MJCF of ours: with its physics options, and targets within its limits."""
    constants = import_module("mjlab.asset_zoo.robots.unitree_go1.go1_constants")
    spec, model = env.scene.spec, env.sim.mj_model
    for name in OPTIONS:
        setattr(spec.option, name, getattr(model.opt, name))
    for actuator in spec.actuators:
        low, high = actuator.ctrlrange
        if not math.isfinite(low) or not low < high:
            sys.exit(
                f"actuator {actuator.name} has the range {low} to {high}; expected its joint's"
            )
        actuator.ctrllimited = True
    env.scene.write(folder)
    shutil.copytree(constants.GO1_XML.parent / "assets", folder / "assets", dirs_exist_ok=True)
    (folder / "go1.yaml").write_text(ROBOT)
    (folder / "walk.yaml").write_text(WALK)
    print(f"{folder}/walk.yaml: their robot, our task", file=sys.stderr)


if __name__ == "__main__":
    main()
