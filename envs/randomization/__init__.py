"""Domain randomization as data: a list of terms, each one line of YAML.

    - {field: mass, range: [0.85, 1.15]}                       # each body its own factor
    - {field: mass, match: hand, operation: add, range: [0, 0.06]}               # a payload [kg]
    - {field: body_ipos, body: hand, columns: [x, z], operation: add, range: [-0.005, 0.005]}
    - {field: body_quat, match: hand, operation: rotate, range: [0, 0.03]}       # an angle [rad]
    - {field: geom_friction, body: [hand, jaw], columns: slide, range: [0.5, 1.5], shared: true}
    - {field: actuator_forcerange, range: [0.8, 1.0]}          # one factor for both ends
    - {field: actuator_delay, operation: set, range: [0.005, 0.03], shared: true}
    - {field: opt.gravity, operation: rotate, range: [0, 0.03]}                  # a tilted desk
    - {signal: joint_position, operation: add, range: [-0.005, 0.005]}           # a bias
    - {signal: joint_velocity, operation: add, range: [-0.05, 0.05], when: step} # noise

A field term names a field of MuJoCo's `MjModel`, or one of `mass`, `kp`, `kd`, which keep coupled
fields consistent. Elements are chosen by name (`match`) or by the body they are on (`body`);
numbers of an element by `columns`, which must be named where they are different things. Every
number has a draw of its own unless `shared`. Ranges, such as forcerange, move as a whole;
orientations are rotated about an axis of any direction, vectors tilted to any side.

A value is always the nominal one with the draws of this episode applied, in the order of the
terms, so nothing accumulates over resets. A delay is exact when the MJCF says `interp="linear"`;
MuJoCo makes every delay at least one physics step. Servo gains do not follow a randomized mass,
not even those that the MJCF gave by `dampratio`: MuJoCo resolves it once, as a servo would.

Before training, values that no robot has are refused, at the joint extremes of all terms, and so
is every term without which the model would move the same to the bit.
"""

from envs.randomization.kinds import Term as Term
from envs.randomization.kinds import at_full_range as at_full_range
from envs.randomization.kinds import read_terms as read_terms
from envs.randomization.randomization import Randomization as Randomization
from envs.randomization.term import RandomTerm as RandomTerm
