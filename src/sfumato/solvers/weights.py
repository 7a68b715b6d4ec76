"""From moments to weights: where every multistep and single-step coefficient comes from.

A solver replaces what the model would say along a step by the polynomial through what it did say. On the
log-SNR clock the move from s = 0 to s = 1 averages that polynomial with a density proportional to exp(a s): a
> 0 for estimates of x0, a < 0 for estimates of eps, a = 0 on a clock in which the frame is flat. Weights that
give the polynomial its exact mean are therefore the solution of a Vandermonde system whose right-hand side
holds the moments E[s^k]. Nothing is transcribed, so nothing is mistyped: the Adams-Bashforth weights (55,
-59, 37, -9)/24 and DPM-Solver's phi-functions come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def moments(n: int, a: float) -> list[float]:
    """E[s^k], k = 0 .. n-1, for s in [0, 1] with density a exp(a s) / (exp(a) - 1).

    E[s^k] = k! phi_{k+1}(a) / phi_1(a) up to the reflection s -> 1 - s, in the words of exponential
    integrators.
    """
    if abs(a) < 1:  # the recurrence below cancels here; the series needs 24 terms for 1e-16
        integrals = [math.fsum(a**j / math.factorial(j) / (j + k + 1) for j in range(24)) for k in range(n)]
        return [value / integrals[0] for value in integrals]
    top = -1 / math.expm1(-a) if a > -700 else 0.0  # a exp(a) / (exp(a) - 1) / a
    out = [1.0]
    for k in range(1, n):  # by parts
        out.append(top - k * out[-1] / a)
    return out


def weights(nodes: Sequence[float], a: float) -> list[float]:
    """Weights of what was seen at `nodes` (the step is [0, 1]) so that its polynomial has the right mean over
    the step."""
    return solve_vandermonde(nodes, moments(len(nodes), a))


def solve_vandermonde(nodes: Sequence[float], right: Sequence[float]) -> list[float]:
    """w with sum_j w_j nodes_j^k = right_k (Bjorck & Pereyra 1970): exact to rounding for the few nodes of a
    solver."""
    w, n = list(right), len(nodes)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            w[i] -= nodes[k] * w[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            w[i] /= nodes[i] - nodes[i - k - 1]
        for i in range(k, n - 1):
            w[i] -= w[i + 1]
    return w
