"""Domain randomization as data: a list of terms, each one line of YAML.

    - {field: mass, match: "*", operation: scale, range: [0.85, 1.15]}
    - {field: actuator_delay, operation: set, range: [0.005, 0.03]}
    - {signal: joint_velocity, operation: add, range: [-0.05, 0.05], when: step}

A field term names any MuJoCo model field that can differ between worlds, or one of `GROUPS`
(`mass`, `kp`, `kd`), which keep coupled entries consistent. A value is always the nominal one with
the draws of this episode applied, so nothing accumulates over resets. A signal term drawn at
`reset` is a bias, one drawn at every `step` is noise.

A term that names nothing, or cannot change anything, is refused when the environment is made.
"""

from envs.randomization.fields import FieldRandomization as FieldRandomization
from envs.randomization.signals import SignalNoise as SignalNoise
from envs.randomization.term import Term as Term
