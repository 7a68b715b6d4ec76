"""Where the held-out loss of a run went: what its log says of overfit."""

from __future__ import annotations

from sfumato.reporting.stored import Stored

RISEN = 1.01
"""The held-out loss has risen where it ended so much above its least."""


def held_out(run: Stored) -> list[tuple[int, float]]:
    """(step, held-out loss) of the log."""
    name = "held_out/loss"
    return [(int(one["step"]), float(one[name])) for one in run.log if name in one and "step" in one]


def overfit_since(run: Stored) -> tuple[int, float, float] | None:
    """The step of the least held-out loss, that loss and the last one, where it has clearly risen since."""
    looks = held_out(run)
    if len(looks) < 3:
        return None
    best, least = min(looks, key=lambda look: look[1])
    last = sum(loss for _, loss in looks[-2:]) / 2
    return (best, least, looks[-1][1]) if best < looks[-2][0] and last > RISEN * least else None
