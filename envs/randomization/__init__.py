"""Domain randomization as data: a list of terms, each one line of YAML.

    - {field: mass, range: [0.85, 1.15]}                       # each body its own factor
    - {field: body_ipos, body: hand, columns: [x, z], operation: add, range: [-0.005, 0.005]}
    - {field: body_quat, match: hand, operation: rotate, range: [0, 0.03]}       # an angle [rad]
    - {field: geom_friction, body: [hand, jaw], columns: slide, range: [0.5, 1.5], shared: true}
    - {field: actuator_forcerange, range: [0.8, 1.0]}          # one factor for both ends
    - {field: actuator_delay, operation: set, range: [0.005, 0.03], shared: true}
    - {field: opt.gravity, operation: rotate, range: [0, 0.03]}                  # a tilted desk
    - {field: joint_zero, operation: add, range: [-0.02, 0.02]}                  # `physics.fields`
    - {fields: [kp, actuator_forcerange], range: [0.8, 1.1]}   # one draw for both, per servo
    - {supply: "*", range: [0.85, 1.05]}                       # one for all: `physics.supply`
    - {inertia: pseudo, match: upper_arm, range: [-0.05, 0.05]}                  # `physics.inertia`
    - {payload: hand, at: [0, 0, 0.05], range: [0, 0.06]}      # a point mass [kg]
    - {initial: angle, range: [-0.1, 0.1]}                     # at the start: `physics.initial`
    - {push: elbow_flex, range: [-1, 1], interval_s: [2, 4]}   # of its speed: `physics.pushes`
    - {wrench: hand, columns: z, range: [-1, 1], interval_s: [2, 4], duration_s: [0.1, 0.3]}
    - {grip: base, share: 0.3, range: [1.5, 5], duration_s: [0, 4]}            # `physics.grips`
    - {signal: joint_position, operation: add, range: [-0.005, 0.005]}           # `signals.kinds`
    - {command: hold, probability: 0.01, shared: true}         # lost packets: `signals.commands`

The key that is there tells the kind, and its file (named behind the line) says all of it. Elements
are chosen by name (`match`) or by the body they are on (`body`); numbers of an element by
`columns`, which must be named where they are different things. Every number has a draw of its own
unless `shared`. Ranges, such as forcerange, move as a whole; orientations are rotated about an axis
of any direction, vectors tilted to any side.

What is on the model is drawn `when: startup`, `reset` or `interval` (with `interval_s`). Any term
may grow to its range by `schedule: {over_steps: 2e6}`, or as the policy copes by `adapt: {metric:
reach_error_m, good: 0.01, bad: 0.03}` (see `term`).

A value is always the nominal one with the present draws applied, in the order of the terms, so
nothing accumulates over resets. A delay is exact when the MJCF says `interp="linear"`; MuJoCo makes
every delay at least one physics step. Servo gains do not follow a randomized mass, not even those
that the MJCF gave by `dampratio`: MuJoCo resolves it once, as a servo would.

Before training, values that no robot has are refused, at the joint extremes of all terms, and so
is every term that does nothing, accumulates, leaves constants stale or shares draws that should be
apart (`physics.proofs`, `signals.proofs`).
"""

from envs.randomization.kinds import Term as Term
from envs.randomization.kinds import at_full_range as at_full_range
from envs.randomization.kinds import read_terms as read_terms
from envs.randomization.randomization import Randomization as Randomization
from envs.randomization.term import RandomTerm as RandomTerm
