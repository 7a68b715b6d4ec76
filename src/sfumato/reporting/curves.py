"""The curves of a run's report: training, the loss at each noise level, rate and distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sfumato.reporting.chart import Line, chart
from sfumato.reporting.stored import Stored
from sfumato.reporting.trend import held_out
from sfumato.training.figures import METRICS

_SMOOTH = 50
"""The training loss is shown as a running mean over this part of the run."""
_FLOOR = 1e-3
"""The least possible loss is drawn down to this share of the network's least: it falls to 0."""


def training(run: Stored) -> Markup:
    """The training loss and the held-out one over the steps."""
    found = [(float(one["step"]), float(one["loss"])) for one in run.log if "loss" in one and "step" in one]
    wide = max(1, len(found) // _SMOOTH)
    total, sums = 0.0, [0.0]
    for _, loss in found:
        total += loss
        sums.append(total)
    means = [
        (found[i - 1][0], (sums[i] - sums[i - wide]) / wide) for i in range(wide, len(found) + 1) if found
    ]
    lines = [Line("training, running mean", means, 0)]
    looks = [(float(step), loss) for step, loss in held_out(run)]
    lines += [Line("held-out", looks, 1, marked=True)] if looks else []
    above = all(y > 0 for line in lines for _, y in line.points)
    return chart(lines, "step", "loss", log=above)


def judged(run: Stored) -> list[Markup]:
    """The metrics that were measured while it was trained, each over the steps."""
    names = dict.fromkeys(key for one in run.log for key in one if key.startswith(METRICS))
    found: list[Markup] = []
    for name in names:
        points = [(float(one["step"]), float(one[name])) for one in run.log if name in one and "step" in one]
        title = name.removeprefix(METRICS)
        found.append(chart([Line(title, points, 3, marked=True)], "step", title, height=200))
    return [one for one in found if one]


def loss_levels(run: Stored) -> Markup:
    """The loss at each noise level on training and on held-out pictures, beside the least possible."""
    found = run.parts.get("losses")
    if found is None:
        return Markup("")
    across: Sequence[float] = found["log_snr"]
    lines: list[Line] = []
    for key, name, colour in (("train", "training pictures", 0), ("held_out", "held-out pictures", 1)):
        side: Mapping[str, Any] | None = found.get(key)
        if side is None:
            continue
        losses, errors = side["v_loss"], side["standard_error"] or []
        bands = [(y - 2 * e, y + 2 * e) for y, e in zip(losses, errors)]
        lines.append(Line(name, list(zip(across, losses)), colour, bands=bands))
    train: Mapping[str, Any] = found["train"]
    least = _FLOOR * min(train["v_loss"])
    ideal = [(x, y) for x, y in zip(across, train["ideal_v_loss"]) if y > least]
    lines.append(Line("the least possible on the training pictures", ideal, 0, dashed=True, faint=True))
    return chart(lines, "log-SNR (left: noise, right: clean)", "loss of v", log=True)


def rate_distortion(run: Stored) -> Markup:
    """What each bit buys."""
    found = run.parts.get("rate-distortion")
    if found is None:
        return Markup("")
    points = sorted((p["rate"]["value"], p["distortion"]["value"]) for p in found["curve"])
    line = Line("root mean square error", points, 2)
    return chart([line], "bits per dimension", "error, 0 to 255", height=220)
