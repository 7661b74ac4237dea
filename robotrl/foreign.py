"""Policies that were trained elsewhere, on our environment: Stable-Baselines3, or plain torch.

    policy, origin = load_foreign(Path("model.zip"), env, normalizer=Path("vecnormalize.pkl"))
    policy, origin = load_foreign(Path("actor.pt"), env, activation="ReLU", squash="tanh")

Of Stable-Baselines3's archives (`MlpPolicy` of PPO and SAC; A2C, TRPO and TQC have the same) the
weights and the JSON are read and nothing is unpickled, so a file from a stranger runs no code, and
the package is not needed. What the JSON says of a policy that is another kind is refused. The
statistics of its `VecNormalize` are a pickle; one that names anything but arrays and its own
classes is refused. A plain torch actor is a state dict (.pt) of linear layers with one activation
between them; actors of any other shape go to `robotrl.export.export_policy` as a module.

Stable-Baselines3's PPO clips its mean to the action space; its SAC takes the tanh, as ours do, and
with gSDE bounds the mean before that.
"""

import json
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from robotrl.algorithms.normalizer import Normalizer
from robotrl.algorithms.policy import Policy
from robotrl.runs.checkout import UNKNOWN

_ACTIVATIONS = {
    name: getattr(nn, name)
    for name in ("Tanh", "ReLU", "ELU", "SiLU", "GELU", "LeakyReLU", "Mish", "Sigmoid", "Softplus")
}
_HARMLESS = {
    **{("numpy", name): getattr(np, name) for name in ("ndarray", "dtype")},
    ("builtins", "dict"): dict,
    **{
        (f"numpy.{core}.multiarray", name): getattr(multiarray, name)
        for core in ("core", "_core")  # before and since numpy 2
        for name in ("_reconstruct", "scalar")
    },
}
Squash = Literal["clip", "tanh"]
_POLICIES = {
    "stable_baselines3.common.policies",
    "stable_baselines3.sac.policies",
    "sb3_contrib.tqc.policies",
}
"""Where the classes are that compute what we do; a class of one's own may do anything."""
_EXTRACTOR = "stable_baselines3.common.torch_layers.FlattenExtractor"
_INERT = re.compile(r"^(stable_baselines3|gymnasium|gym|numpy\.random)\.")


class ClippedPolicy(Policy):
    """A policy whose mean is the action, clipped."""

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action (..., num_actions) in [-1, 1]."""
        return self.mean(self.normalizer(observation)).clamp(-1, 1)


class Origin(NamedTuple):
    """Where a policy comes from."""

    env_steps: int
    """Environment steps it was trained for, 0 if unknown."""
    versions: dict[str, str]
    """Of what trained it, by package."""
    git_commit: str = UNKNOWN
    """Of the checkout of this program that trained it."""


def load_foreign(
    path: Path,
    env: VectorEnv,
    *,
    normalizer: Path | None = None,
    activation: str | None = None,
    squash: Squash = "clip",
) -> tuple[Policy, Origin]:
    """Read a policy and hold it against the environment.

    Args:
        path: `.zip` of Stable-Baselines3, or `.pt`, a state dict of linear layers.
        env: what it was trained on.
        normalizer: `.pkl` of Stable-Baselines3's VecNormalize, if it was trained with one.
        activation: of a `.pt`, between its layers, e.g. ReLU.
        squash: of a `.pt`, what makes an action in [-1, 1] of its output.

    Raises:
        ConfigError: it is neither, cannot be read, or has other observations or actions.
    """
    size = env.observation_sizes["actor"]
    if path.suffix == ".zip":
        network, kind, origin = _read_sb3(path, env)
    elif path.suffix == ".pt":
        kind = Policy if squash == "tanh" else ClippedPolicy
        network, origin = _read_layers(path, activation), Origin(0, {})
    else:
        raise ConfigError(
            f"{path}: expected a run's folder, a .zip of Stable-Baselines3 or a .pt with the "
            "state dict of an actor"
        )
    policy = kind(size, network)
    policy.normalizer = Normalizer(size, eps=0.0, clip=math.inf)  # nothing changes
    if normalizer is not None:
        _read_normalizer(normalizer, policy, size)
    policy = policy.eval()
    try:
        with torch.no_grad():
            action = policy(torch.zeros(2, size))
        found = tuple(action.shape)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: does not take two observations of {size} columns ({reason}); the task's are "
            f"{_listed(env.columns['actor'])}. Give the configuration it was trained with"
        ) from error
    if found != (2, env.num_actions):
        raise ConfigError(
            f"{path}: gives {found[1:]} actions, this task takes ({env.num_actions},); give the "
            "configuration it was trained with"
        )
    return policy, origin


def _read_sb3(path: Path, env: VectorEnv) -> tuple[nn.Sequential, type[Policy], Origin]:
    """The actor of an archive of Stable-Baselines3."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
            package = archive.read("_stable_baselines3_version").decode().strip()
            with archive.open("policy.pth") as file:
                state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # zip, JSON and torch raise many kinds for a damaged file
        raise ConfigError(
            f"{path}: cannot be read as a model of Stable-Baselines3: {error}"
        ) from error
    if problem := _stranger(data, env):
        raise ConfigError(f"{path}: {problem}")
    settings, kind, bounds = data.get("policy_kwargs") or {}, Policy, list[nn.Module]()
    if "action_net.weight" in state:
        hidden, last, usual = "mlp_extractor.policy_net", "action_net", "Tanh"
        kind = Policy if settings.get("squash_output") else ClippedPolicy
    else:
        hidden, last, usual = "actor.latent_pi", "actor.mu", "ReLU"
        if data.get("use_sde"):
            last, limit = "actor.mu.0", float(settings.get("clip_mean", 2.0))
            bounds = [nn.Hardtanh(-limit, limit)]
    activation = str(settings.get("activation_fn", usual))
    if torchs := re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", activation):
        activation = torchs[1]
    names = [
        *(name for name in state if re.match(rf"{hidden}\.\d+\.(weight|bias)", name)),
        f"{last}.weight",
        f"{last}.bias",
    ]
    network = _stack(path, {name: state[name] for name in names}, activation).extend(bounds)
    return network, kind, Origin(int(data.get("num_timesteps", 0)), {"stable-baselines3": package})


def _stranger(data: dict[str, Any], env: VectorEnv) -> str:
    """Why what an archive says of itself is not what would be exported, or nothing."""
    policy, observation, action, settings = (
        found if isinstance(found := data.get(name), dict) else {}
        for name in ("policy_class", "observation_space", "action_space", "policy_kwargs")
    )
    module, size = policy.get("__module__"), env.observation_sizes["actor"]
    if module not in _POLICIES:
        return (
            f"its policy is of {module}, expected the MlpPolicy of Stable-Baselines3's PPO or SAC; "
            "save its layers as a state dict (.pt) and give --activation, or use "
            "robotrl.export.export_policy for another kind of network"
        )
    if (shape := _shape(observation)) != [size]:
        told = f"observations of {shape} numbers" if shape else "observations that are no vector"
        frames = (
            "; frames that a wrapper stacks are not in the controller: let the task keep them "
            "(task_config.history) and train again"
            if len(shape) == 1 and shape[0] % size == 0
            else "; give the configuration it was trained with"
        )
        return f"was trained on {told}, expected the [{size}] of this task{frames}"
    if _shape(action) != [env.num_actions] or not _is_unit(action):
        return (
            f"its actions are {_told(action)}, expected {env.num_actions} from -1 to 1, which is "
            "what the environment takes; train it without a wrapper that changes them"
        )
    extractor = settings.get("features_extractor_class")
    if extractor is not None and _EXTRACTOR not in str(extractor):
        return "its policy has a features extractor; expected an MlpPolicy"
    return ""


def _shape(space: dict[str, Any]) -> list[int]:
    """Of a Box; empty for any other kind of space."""
    is_box = "spaces.box.Box" in str(space.get(":type:"))
    return [int(size) for size in re.findall(r"\d+", str(space.get("_shape")))] if is_box else []


def _is_unit(space: dict[str, Any]) -> bool:
    """Whether a Box reaches from -1 to 1."""
    ends = [set(str(space.get(name)).strip("[]").split()) for name in ("low", "high")]
    return ends == [{"-1."}, {"1."}]


def _told(space: dict[str, Any]) -> str:
    if not _shape(space):
        return f"a {re.sub(r'.*[.]|[^A-Za-z]', '', str(space.get(':type:')))}"
    return f"{_shape(space)} from {space.get('low')} to {space.get('high')}"


def _read_layers(path: Path, activation: str | None) -> nn.Sequential:
    """The network of a state dict."""
    if activation is None:
        raise ConfigError(f"{path}: a state dict does not say its activation; give --activation")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ConfigError(f"{path}: cannot be read as a state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(part, Tensor) for part in state.values()):
        raise ConfigError(f"{path}: expected the state dict of a module, tensors by name")
    return _stack(path, state, activation)


def _stack(path: Path, state: dict[str, Tensor], activation: str) -> nn.Sequential:
    """Linear layers, in the order of their names in the state, with an activation between them."""
    if activation not in _ACTIVATIONS:
        raise ConfigError(
            f"{path}: the activation {activation!r}{did_you_mean(activation, _ACTIVATIONS)} cannot "
            f"be exported; those that can are {', '.join(_ACTIVATIONS)}"
        )
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    others = {*state} - {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    plain = all(f"{name}.bias" in state and state[f"{name}.weight"].ndim == 2 for name in names)
    if others or not names or not plain:
        raise ConfigError(
            f"{path}: expected the weights and biases of linear layers alone, found "
            f"{', '.join([*others, *state][:5])}; save the actor's part of the state dict, or use "
            "robotrl.export.export_policy for another kind of network"
        )
    layers: list[nn.Module] = []
    for name in names:
        weight = state[f"{name}.weight"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": state[f"{name}.bias"]})
        layers += [linear, _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class _Inert:
    """Stands for an object of another package: keeps what it was told, does nothing."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _HarmlessUnpickler(pickle.Unpickler):
    """Arrays and inert objects; anything else in the file is refused."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if _INERT.match(module):
            return _Inert
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read_normalizer(path: Path, policy: Policy, size: int) -> None:
    """Give a policy the statistics of observations that a VecNormalize has kept."""
    try:
        with path.open("rb") as file:
            saved = vars(_HarmlessUnpickler(file).load())
        statistics = vars(saved["obs_rms"])
        mean, var = (torch.from_numpy(np.array(statistics[name])) for name in ("mean", "var"))
        eps, clip = float(saved["epsilon"]), float(saved["clip_obs"])
    except Exception as error:  # a pickle can fail in any way
        raise ConfigError(
            f"{path}: cannot be read as what VecNormalize.save wrote: {error}"
        ) from error
    if mean.shape != (size,) or var.shape != (size,):
        raise ConfigError(
            f"{path}: is of {tuple(mean.shape)} numbers, the actor's observation has ({size},); "
            "give the file that belongs to this policy"
        )
    if not saved.get("norm_obs", True):
        return
    policy.normalizer = Normalizer(size, eps=eps, clip=clip)
    policy.normalizer.mean.copy_(mean)
    policy.normalizer.var.copy_(var)


def _listed(columns: list[str]) -> str:
    return ", ".join(columns[:3]) + (" …" if len(columns) > 3 else "")
