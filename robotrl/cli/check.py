"""Verify a policy file, or the randomization of a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import needs, out, reported


def check(
    file: Annotated[
        Path,
        typer.Argument(help="An ONNX file `robotrl export` wrote, or e.g. configs/train/X.yaml."),
    ],
    robot: Annotated[
        Path | None, typer.Argument(help="Also check that the policy fits this robot.")
    ] = None,
) -> None:
    """Verify a policy file, and its fit to a robot; or measure a configuration's randomization.

    Of a policy: hashes, schema, golden vectors. Of a configuration: what each randomization term
    changes and by how much, the strongest first; terms without effect are errors.

    Examples: `robotrl check policy.onnx configs/robots/desk_arm.yaml` and
    `robotrl check configs/train/arm_reach.yaml`
    """
    if file.suffix in (".yaml", ".yml"):
        if robot is not None:
            raise typer.BadParameter("a configuration is checked alone; leave the robot out")
        _check_config(file)
    else:
        _check_policy(file, robot)


def _check_config(path: Path) -> None:
    with needs("train"):
        from robotrl.runs.check_config import check_config
        from robotrl.runs.train_config import load_train_config
    with reported():
        report = check_config(load_train_config(path, []))
        out.print(
            f"{path}: each term alone against the nominal robot, for a second of random targets.\n"
            "Effect on the joints in shares of how far they go; else on what the actor observes, "
            "in shares of its spread."
        )
        for line in report.lines():
            out.print(line)
    raise typer.Exit(1 if report.problems else 0)


def _check_policy(policy: Path, robot: Path | None) -> None:
    from deploy.configuration import load_yaml
    from deploy.controller import OnnxController
    from deploy.fit import from_elsewhere, matches
    from deploy.robot_config import RobotConfig

    with reported():
        contract = OnnxController(policy).contract
        elsewhere = from_elsewhere(contract)
        if robot is not None:  # first: nothing is called sound beside an error
            matches(contract, load_yaml(robot, RobotConfig), elsewhere)
        provenance = contract.provenance
        exported = provenance.versions.get("export_commit", "")
        out.print(
            f"{policy}: sound; {provenance.task} for {contract.robot}, "
            f"{1 / contract.control_dt_s:.0f} Hz, {provenance.env_steps:,} training steps, "
            f"commit {provenance.git_commit[:12]}{exported and f', exported by {exported[:12]}'}"
        )
        for joint in contract.joints:
            out.print(
                f"  {joint.name:16s} kp {joint.kp_nm_per_rad:7.3f} N·m/rad  "
                f"kd {joint.kd_nm_s_per_rad:6.3f}  "
                f"start {joint.default_position_rad:+.3f} rad  "
                f"range {' to '.join(map(_rounded, joint.position_limits_rad))} rad"
            )
        if elsewhere:
            out.print(f"needs {', '.join(elsewhere)} from another program: run it with --listen")
        if robot is not None:
            out.print(f"fits {robot}")


def _rounded(angle: float) -> str:
    """An angle without a negative zero."""
    return f"{round(angle, 2) + 0.0:+.2f}"
