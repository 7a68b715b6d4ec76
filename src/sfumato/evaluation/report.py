"""What was measured, as JSON and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato import noise
from sfumato.evaluation.flow_likelihood import FlowLikelihood
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.pictures import Pictures
from sfumato.evaluation.rate_distortion import Point, Stage
from sfumato.evaluation.variational import Bound, Process, Steps
from sfumato.runs import Run


@dataclass(frozen=True)
class Question:
    """What was asked: of which run, on which pictures, and how."""

    run: Run
    pictures: Pictures
    process: Process
    clip: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Everything that the figures follow from."""
        run, image = self.run, self.run.card.image
        return {
            "format": 1,
            "library": run.card.library,
            "noise_stream": noise.STREAM,
            "model": run.card.core(),
            "weights": run.weights,
            "weights_sha256": run.sha256,
            "pictures": len(self.pictures),
            "about": list(self.pictures.about),
            "bits": image.bits,
            "shape": list(image.shape),
            "clip": self.clip,
            "seed": self.seed,
        }

    def about(self) -> Iterator[str]:
        """The same for people."""
        image = self.run.card.image
        yield f"pictures   {', '.join(self.pictures.about)}"
        channels = "1 channel" if image.channels == 1 else f"{image.channels} channels"
        yield f"depth      {image.bits} bits, {image.width} x {image.height}, {channels}"
        yield (
            f"estimates  of x0 clipped to [{image.low:g}, {image.high:g}]"
            if self.clip
            else "estimates  of x0 as they are, not clipped"
        )


def pair(mean: Mean) -> dict[str, float]:
    """A figure and its standard error."""
    return {"value": mean.value, "error": mean.error}


def _finite(value: float) -> float | None:
    """JSON has no infinity: the log-SNR of pure noise and of clean data are null."""
    return value if math.isfinite(value) else None


def log_snrs(found: Bound) -> list[float | None]:
    """The log-SNR of the parts' edges, None for pure noise."""
    return [_finite(v) for v in found.edges_log_snr.tolist()]


def process_json(process: Process) -> dict[str, Any]:
    """The process whose bound was taken."""
    if isinstance(process, Steps):
        said = {"kind": "steps", "steps": len(process.levels), "variance": process.variance}
    else:
        said = {"kind": "continuous"}
    return said | {"terms": len(process.sizes)}


def bound_json(process: Process, found: Bound) -> dict[str, Any]:
    """The bound, term by term, in bits per dimension; `log_snr` are the edges of the parts."""
    return {
        "process": process_json(process),
        "bits_per_dimension": pair(found.total),
        "prior": pair(Mean.of(found.prior)),
        "steps": pair(Mean.of(found.parts.sum(1))),
        "decoder": pair(Mean.of(found.decoder)),
        "parts": [
            {"steps": size, **pair(part)} for size, part in zip(found.sizes, found.per_part, strict=True)
        ],
        "log_snr": log_snrs(found),
    }


def flow_json(found: FlowLikelihood, against: Tensor) -> dict[str, Any]:
    """The flow's value, and how much the bound of the same pictures, `against`, (n,), lies above it."""
    return {
        "dequantise": found.dequantise,
        "bits_per_dimension": pair(Mean.of(found.bits)),
        "gap": pair(Mean.of(against - found.bits)),
        "evaluations": pair(Mean.of(found.evaluations.double())),
    }


def curve_json(points: Sequence[Point], shown: Sequence[Stage], found: Bound) -> dict[str, Any]:
    """The rate-distortion curve, and where the reconstructions beside it stand."""
    edges = log_snrs(found)
    return {
        "unit": "bits per dimension; root mean square error on 0 .. 255",
        "curve": [
            {"rate": pair(p.rate), "distortion": pair(p.distortion), "log_snr": _finite(p.log_snr)}
            for p in points
        ],
        "shown": [{"rate": stage.rate, "log_snr": edges[stage.edge]} for stage in shown],
    }


def _row(name: str, mean: Mean) -> str:
    return f"{name:<48}{mean.value:>9.4f}  +- {mean.error:.4f}"


def bound_lines(process: Process, found: Bound) -> Iterator[str]:
    """The bound as rows of a table."""
    terms = len(process.sizes)
    if isinstance(process, Steps):
        steps = len(process.levels)
        yield _row(f"bound, {steps} steps, {process.variance} variance", found.total)
        many = f"all {terms} steps" if terms == steps - 1 else f"{terms} of {steps - 1} steps a picture"
    else:
        yield _row("bound, continuous time", found.total)
        many = f"{terms} levels a picture"
    yield _row("  prior, L_T", Mean.of(found.prior))
    yield _row(f"  steps ({many})", Mean.of(found.parts.sum(1)))
    yield _row("  decoder, L_0", Mean.of(found.decoder))


def flow_lines(found: FlowLikelihood, against: Tensor) -> Iterator[str]:
    """The flow's value, and the gap to the bound."""
    how = "noise of the process" if found.dequantise == "noise" else "uniform dequantisation"
    yield _row(f"flow, {how}", Mean.of(found.bits))
    yield _row("  the bound less this", Mean.of(against - found.bits))


def curve_lines(points: Sequence[Point], most: int = 9) -> Iterator[str]:
    """Points of the curve between which the error falls about equally, the last without loss."""
    yield f"{'bits/dim':>9}  {'RMSE, 0 .. 255':>20}"
    high = points[0].distortion.value
    wanted = [high * (1 - i / (most - 1)) for i in range(most)]
    kept = {min(range(len(points)), key=lambda i: abs(points[i].distortion.value - w)) for w in wanted}
    for point in (points[i] for i in sorted(kept)):
        yield f"{point.rate.value:>9.4f}  {point.distortion.value:>9.3f}  +- {point.distortion.error:.3f}"
