"""Runs as their folders would tell of them: constructed, so that each rule can be asked alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpora import small
from sfumato.card import Card, DataSettings, SamplerSettings, TrainingSettings
from sfumato.evaluation.record import Baseline, Record, Terms
from sfumato.reporting.stored import Stored

HASH = "ab" * 32


def card(held_out: int = 500, images: int = 9500, guidance: float = 1.0, **more: Any) -> Card:
    return small.card(
        data=DataSettings(fingerprint=HASH, images=images, held_out=held_out),
        training=TrainingSettings(images_seen=50_000, steps=1000, seconds=360.0),
        sampler=SamplerSettings(guidance=guidance),
        **more,
    )


def record(
    metric: str = "kid",
    value: float = 0.02,
    low: float | None = 0.015,
    high: float | None = 0.025,
    base: tuple[float, float, float] | None = (0.0, -0.001, 0.001),
    group: str | None = None,
    sha256: str = HASH,
    warnings: tuple[str, ...] = (),
    **terms: Any,
) -> Record:
    real = (
        None if base is None else Baseline(value=base[0], low=base[1], high=base[2], real=9500, generated=500)
    )
    said = {"extractor": "lite0", "weights_sha256": HASH, "resize": "bicubic, to 64 x 64", "seed": 0}
    said |= {"real": 9500, "generated": 500, "reference": "digits", "reference_sha256": HASH, "settings": {}}
    return Record(
        terms=Terms(metric=metric, group=group, **(said | terms)),
        name="a run",
        sha256=sha256,
        value=value,
        low=low,
        high=high,
        interval="95 %",
        better="lower" if metric in ("kid", "fid", "sfid", "fid-infinity") else "higher",
        baseline=real,
        warnings=warnings,
    )  # fmt: skip


def log(*losses: float, every: int = 100) -> list[Mapping[str, Any]]:
    """A log with a look at the held-out pictures every `every` steps."""
    return [
        {
            "step": every * (i + 1),
            "images": 6400 * (i + 1),
            "seconds": 1.0,
            "loss": 0.2,
            "held_out/loss": loss,
        }
        for i, loss in enumerate(losses)
    ]


def novelty(flagged: bool) -> dict[str, Any]:
    share = {
        "count": 40 if flagged else 5,
        "of": 500,
        "share": 0.08 if flagged else 0.01,
        "low": 0.0,
        "high": 0.1,
    }
    space = {"space": "pixels", "near_copies": share, "expected": 0.01, "most": 13, "flagged": flagged}
    verdict = (
        "It gives training pictures back." if flagged else "Its samples are as new as held-out pictures are."
    )
    return {
        "format": 1, "flagged": flagged, "verdict": verdict, "copies": share, "spaces": [space],
        "held_out_copies": 2,
    }  # fmt: skip


def coverage(
    under: tuple[str, ...] = (), due: str = "the training data", modes: int | None = 0
) -> dict[str, Any]:
    names = ("cat", "dog", "ox")
    groups = [
        {"name": name, "due": 1 / 3, "share": 0.1 if name in under else 0.3, "low": 0.05, "high": 0.35}
        | {"under_served": name in under}
        for name in names
    ]
    one = {
        "name": "class", "due": due, "samples": 500, "groups": groups, "under_served": list(under),
        "usual": 0.05, "total_variation": {"value": 0.02, "low": 0.0, "high": 0.04},
        "judge_accuracy": {"share": 0.98},
    }  # fmt: skip
    kinds = None if modes is None else {
        "clusters": 100, "reached": 99, "expected": 99.1, "error": 0.4, "different": 5, "different_usual": 9,
        "under_served": [{"cluster": i, "example": i, "due": 0.02, "share": 0.0} for i in range(modes)],
    }  # fmt: skip
    return {"format": 1, "under_served": list(under), "groups": [one], "modes": kinds, "notes": []}


def losses(ratio: float = 1.0, error: float = 0.01, by_heart: float = 0.1) -> dict[str, Any]:
    side = {"pictures": 64, "v_loss": [0.3, 0.2, 0.4], "standard_error": [0.01, 0.01, 0.02]}
    return {
        "format": 1, "log_snr": [5.0, 0.0, -5.0], "train": side | {"ideal_v_loss": [0.0, 0.05, 0.39]},
        "held_out": side | {"ideal_v_loss": [0.5, 0.4, 0.41]}, "reading": ["A sentence of the losses."],
        "overfit": {"value": ratio, "error": error}, "memorised": {"value": by_heart, "error": 0.01},
    }  # fmt: skip


def run(home: Path | None = None, said: Card | None = None, **more: Any) -> Stored:
    """A run in which everything is well, but for what is said."""
    whole: dict[str, Any] = {
        "records": (record(value=0.0005, low=-0.0005, high=0.0015),),
        "log": log(0.3, 0.2, 0.15, 0.149),
        "parts": {"novelty": novelty(False), "coverage": coverage(), "losses": losses()},
    }
    path = Path("runs/some") if home is None else home
    return Stored(path, path / "evaluation", said or card(), **(whole | more))
