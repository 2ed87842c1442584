"""How near two numbers must be to count as equal: the bounds that have a name, from the strictest to the widest.

Each follows from how its numbers were computed, and each has a name of its own, so that no place borrows another's.

| bound | what lies within it | how it was computed |
|---|---|---|
| `CLEAR_DIFFERENCE` | two gradients, drifts or losses that no witness tells apart | fifty digits |
| `AGREE` | two gradients, or their directions, relative to the larger one | the same operations in float64 |
| `ROUNDING` | a drift, in probability, that is zero | a sum over labels in float64 |
| `EXACT` | relative gradient error of a fit that is the loss itself | a search over parameters, in float64 |
| `EXACT_FLOAT32` | the same for a loss that computes in float32 | its rounding is carried along |
| `SAME_POINT` | probabilities of one resting place of the flow | Newton's method at its end |
| `SAME_OPTIMUM` | probabilities of one optimum of two methods | two flows, each as above, to be compared |
| `SMALL` | norm of a gradient that may have lost digits | a difference of pulls of order one |
| `ARRIVED` | probabilities of an optimum that a flow has reached | a flow may creep along a jump of the drift |
| `LISTED_MASS` | the sum of listed probabilities, above 1 | logarithms, up to ten nats, kept in bfloat16 |
"""

from __future__ import annotations

CLEAR_DIFFERENCE = 1e-12
AGREE = 1e-9
ROUNDING = 1e-9
EXACT = 1e-7
EXACT_FLOAT32 = 3e-5
SAME_POINT = 1e-6
SAME_OPTIMUM = 1e-5
SMALL = 1e-4
ARRIVED = 1e-3
LISTED_MASS = 2e-2
