"""Contracts of earlier schemas in today's words.

Only the words change: what an old contract says too much, too little or wrongly is left for the
checks of `deploy.contract`, which are those of every contract. Hashes are of the file as it was
written, so they are checked before.

    schema 1 → 2    units in the names of a joint's numbers; the command says its elements, unit
                    and frame, which were always those of a point; columns of the observation have
                    names, unknown for a policy that was exported without
"""

from typing import Any

_JOINT_NAMES = {
    "kp": "kp_nm_per_rad",
    "kd": "kd_nm_s_per_rad",
    "default_position": "default_position_rad",
    "position_limits": "position_limits_rad",
    "velocity_limit": "velocity_limit_rad_s",
    "effort_limit": "effort_limit_nm",
}
_A_POINT = {"elements": ["x", "y", "z"], "unit": "m", "frame": "base"}


def from_schema_1(document: dict[str, Any]) -> dict[str, Any]:
    """A contract of schema 1 as one of schema 2, not checked.

    Raises:
        ValueError: it uses a word that schema 1 does not have, so it is of neither.
    """
    upgraded = _with(document, {"observation": []}) | {"schema_version": 2}
    joints, command = upgraded.get("joints"), upgraded.get("command")
    if isinstance(joints, list):
        upgraded["joints"] = [_renamed(joint) if isinstance(joint, dict) else joint
                              for joint in joints]  # fmt: skip
    if isinstance(command, dict):
        upgraded["command"] = _with(command, _A_POINT)
    return upgraded


def _with(section: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    _refuse(section, news)
    return section | news


def _renamed(joint: dict[str, Any]) -> dict[str, Any]:
    _refuse(joint, {*_JOINT_NAMES.values(), "lead_rad"})
    return {_JOINT_NAMES.get(name, name): value for name, value in joint.items()}


def _refuse(section: dict[str, Any], later: Any) -> None:
    if found := sorted(section.keys() & set(later)):
        raise ValueError(f"schema version 1 has no key {found[0]!r}; export the policy again")
