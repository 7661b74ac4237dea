"""Derived data as Gymnasium reads it: left where the last step computed it.

After `mj_step`, positions, velocities and forces in `mjData` describe the last state that the
integrator evaluated, not the one it arrived at. Gymnasium's MuJoCo tasks read them so, after one
more call, `mj_rnePostConstraint`, which computes `cfrc_ext` from the contacts of that evaluation.
A task that must agree with them, or that reads only `qpos` and `qvel`, asks for the same:

    request(spec, contact_forces=True)     # before spec.compile()
    requested(model)                       # the CPU backend then leaves data as a step does

No sensor computes these contact forces: inside a Runge-Kutta step sensors see only the first of
four evaluations. A MuJoCo plugin does, whose `advance`, called when the integrator moves the state,
is `mj_rnePostConstraint` itself; no Python runs while stepping. Its structure is `mjpPlugin` of
mjplugin.h, MuJoCo 4.0; tests compare the result with Gymnasium bit by bit. mujoco_warp knows no
such plugin and refuses it; without contact forces it runs the model, with current data.
"""

import ctypes
import functools
import re
from ctypes import CFUNCTYPE, c_char_p, c_int, c_void_p
from pathlib import Path

import mujoco

NAME = "robotrl.lagging_data"
_SENSOR = 1 << 1  # mjPLUGIN_SENSOR: of all kinds, the one that is only called if something uses it
_LIBRARY = re.compile(r"(lib)?mujoco[.\d]*\.(so|dylib|dll)[.\d]*")  # of three systems

_CountState = CFUNCTYPE(c_int, c_void_p, c_int)
_CountSensorData = CFUNCTYPE(c_int, c_void_p, c_int, c_int)
_Init = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)


class _Plugin(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("nattribute", c_int),
        ("attributes", c_void_p),
        ("capabilityflags", c_int),
        ("needstage", c_int),
        ("nstate", _CountState),
        ("nsensordata", _CountSensorData),
        ("init", _Init),
        ("destroy", c_void_p),
        ("copy", c_void_p),
        ("reset", c_void_p),
        ("compute", c_void_p),
        ("advance", c_void_p),
        ("visualize", c_void_p),
        ("actuator_act_dot", c_void_p),
        ("sdf", c_void_p * 5),
    )


def request(spec: mujoco.MjSpec, *, contact_forces: bool) -> None:
    """Ask that derived data of this model's worlds lag as in Gymnasium.

    Args:
        spec: the model, not yet compiled.
        contact_forces: whether `cfrc_ext` is needed, which costs 2 to 10 % of a step.
    """
    spec.add_text(name=NAME, data="yes")
    if contact_forces:
        _register()
        spec.activate_plugin(NAME)
        spec.add_plugin(name=NAME, plugin_name=NAME)


def requested(model: mujoco.MjModel) -> bool:
    """Whether the model was compiled with the request."""
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXT, NAME) >= 0


@functools.cache
def _register() -> _Plugin:
    """Register the plugin; MuJoCo keeps a copy, the cache keeps its three Python functions alive.

    These are called where models and data are made, never while stepping or resetting: there
    MuJoCo calls only its own functions, `mj_version` being the one that does nothing.
    """
    files = Path(mujoco.__path__[0]).iterdir()
    library = ctypes.CDLL(str(next(path for path in files if _LIBRARY.fullmatch(path.name))))
    nothing = ctypes.cast(library.mj_version, c_void_p)
    plugin = _Plugin(
        name=NAME.encode(),
        capabilityflags=_SENSOR,
        needstage=mujoco.mjtStage.mjSTAGE_ACC.value,
        nstate=_CountState(lambda model, instance: 0),
        nsensordata=_CountSensorData(lambda model, instance, sensor: 0),
        init=_Init(lambda model, data, instance: 0),
        reset=nothing,
        compute=nothing,
        advance=ctypes.cast(library.mj_rnePostConstraint, c_void_p),
    )
    library.mjp_registerPlugin(ctypes.byref(plugin))
    return plugin
