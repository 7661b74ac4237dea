"""What no robot has, and MuJoCo computes with all the same: refused before training starts."""

from collections.abc import Iterator, Mapping, Sequence

import mujoco
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization.physics.model_fields import field_values, model_field
from envs.randomization.term import RandomTerm
from envs.robot import position_servos

_POSITIVE = ("_mass", "_inertia", "_size", "opt.impratio")
_NEVER_NEGATIVE = (
    "_frictionloss",
    "_friction",
    "_damping",
    "_armature",
    "_stiffness",
    "opt.density",
    "opt.viscosity",
)
_BUFFERS = {"actuator_delay": "actuator_history", "sensor_delay": "sensor_history"}
_GAINS = {"actuator_gainprm": 0, "actuator_biasprm": 1}
_ZERO_ORDER_HOLD = 0
_ROUNDING = 1e-9


def check_limits(
    model: mujoco.MjModel, values: Mapping[str, Tensor], terms: Sequence[RandomTerm]
) -> None:
    """Refuse values that no robot has.

    Args:
        model: the nominal model.
        values: (cases, rows, columns) of each field: what it could become.
        terms: what leads there, for the message.

    Raises:
        ConfigError: names the field, the element, the value and the terms.
    """
    for name, table in values.items():
        for wrong, why in _rules(model, name, table):
            if wrong.any():
                case, row = torch.nonzero(wrong)[0].tolist()
                element = model_field(model, name).rows[row] or f"row {row}"
                numbers = [float(f"{number:.4g}") for number in table[case, row].tolist()]
                causes = " and ".join(f"'{term}'" for term in terms)
                raise ConfigError(
                    f"randomization: {name} of {element!r} could become "
                    f"{numbers[0] if len(numbers) == 1 else numbers} by {causes}; {why}"
                )
    _check_targets(model, values, terms)


def _check_targets(
    model: mujoco.MjModel, values: Mapping[str, Tensor], terms: Sequence[RandomTerm]
) -> None:
    """Refuse position servos that would pull elsewhere than to their target."""
    if not values.keys() & _GAINS.keys():
        return
    nominal = {name: torch.from_numpy(field_values(model, name)) for name in _GAINS}
    gain, bias = (values.get(name, nominal[name])[..., col] for name, col in _GAINS.items())
    wrong = ((gain + bias).abs() > _ROUNDING * gain) & torch.from_numpy(position_servos(model))
    if wrong.any():
        place = tuple(torch.nonzero(wrong)[0].tolist())
        element = model_field(model, "actuator_gainprm").rows[place[-1]]
        causes = " and ".join(f"'{term}'" for term in terms)
        share = float((gain / -bias).expand(wrong.shape)[place])
        raise ConfigError(
            f"randomization: the servo {element!r} could pull to {share:.4g} times its target by "
            f"{causes}, as its gain is in actuator_gainprm and actuator_biasprm: use `kp`, which "
            "keeps both equal"
        )


def _rules(model: mujoco.MjModel, name: str, table: Tensor) -> Iterator[tuple[Tensor, str]]:
    """For each rule where it is broken, (cases, rows), and what to do."""
    nominal = torch.from_numpy(field_values(model, name))
    kind = model_field(model, name).kind
    if name.endswith(_POSITIVE):
        lost = (table <= 0) & (nominal > 0) | (table < 0)
        yield lost.any(dim=-1), "it must stay above zero: narrow the range"
    if name.endswith(_NEVER_NEGATIVE):
        yield (table < 0).any(dim=-1), "it must not be negative: raise the low end of the range"
    if kind == "moments":
        others = table.sum(dim=-1, keepdim=True) - table
        yield (
            (table > others * (1 + _ROUNDING)).any(dim=-1),
            (
                "no body has such moments of inertia, none of which exceeds the sum of the others: "
                "use `mass`, or `shared: columns`"
            ),
        )
    if kind == "range":
        low, high = table.unbind(dim=-1)
        was_range = nominal[:, 0] < nominal[:, 1]
        yield (high < low) | (high == low) & was_range, "its low end must stay below its high end"
        if name in ("actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange"):
            lost = (low > 0) & (nominal[:, 0] <= 0) | (high < 0) & (nominal[:, 1] >= 0)
            yield lost, "it must still hold zero: a motor that always pushes one way is none"
    if "solref" in name:
        changed = (table.sign() != nominal.sign()).any(dim=-1)
        yield changed, "with another sign these numbers mean something else: keep the sign"
    if "solimp" in name:
        wrong = (table[..., :2] < 0) | (table[..., :2] > 1)
        yield wrong.any(dim=-1), "an impedance lies between 0 and 1, and MuJoCo clips it there"
    if name == "opt.gravity":
        upwards = (table * nominal).sum(dim=-1) < 0
        yield upwards, f"gravity would pull up: nominally it is {nominal[0].tolist()}"
    if name == "actuator_gainprm":
        wrong = torch.from_numpy(position_servos(model)) & (table[..., 0] <= 0)
        yield wrong, "a position gain kp must stay above zero: raise the low end of the range"
    if name == "actuator_biasprm":
        wrong = torch.from_numpy(position_servos(model)) & (table[..., 1] >= 0)
        yield wrong, "a servo must pull back to its target: use `kp`, which keeps both gains equal"
        wrong = torch.from_numpy(position_servos(model)) & (table[..., 2] > 0)
        yield wrong, "a damping gain kd must not be negative: raise the low end of the range"
    if name in _BUFFERS:
        yield from _delay_rules(model, name, table[..., 0], nominal[:, 0])


def _delay_rules(
    model: mujoco.MjModel, name: str, delay: Tensor, nominal: Tensor
) -> Iterator[tuple[Tensor, str]]:
    history = torch.from_numpy(getattr(model, _BUFFERS[name]).astype(float))
    step_s = model.opt.timestep
    for row, held_s in enumerate((history[:, 0] * step_s).tolist()):
        late = torch.zeros_like(delay, dtype=torch.bool)
        late[:, row] = delay[:, row] > held_s + _ROUNDING
        yield late, f"its buffer holds {held_s:g} s: raise nsample in the MJCF or narrow the range"
    yield delay < 0, "a delay must not be negative: raise the low end of the range"
    shortened = (delay < step_s - _ROUNDING) & (delay.amax(dim=0) > _ROUNDING)
    least = f"MuJoCo makes every delay at least one physics step, {step_s:g} s: raise the low end"
    yield shortened & (delay != nominal), least
    steps = delay / step_s
    broken = (steps - steps.round()).abs() * step_s > _ROUNDING
    coarse = broken | (delay.amin(dim=0) < delay.amax(dim=0))
    whole = (
        f'with interp="zoh" it acts in whole physics steps of {step_s:g} s, rounded up: write '
        'interp="linear" in the MJCF'
    )
    yield coarse & (delay != nominal) & (history[:, 1] == _ZERO_ORDER_HOLD), whole
