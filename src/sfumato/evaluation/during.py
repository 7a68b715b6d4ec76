"""Metrics while a model is trained: what `training` asks for as a `Judge`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.feature_set import FeatureSet
from sfumato.evaluation.features.extractor import Features, open_extractor
from sfumato.evaluation.features.store import Told, default_cache, features_of
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.metric_table import METRICS, Compute
from sfumato.evaluation.metrics import check
from sfumato.evaluation.sets import of_dataset, of_tensor
from sfumato.noise import permutation
from sfumato.recipe import Recipe
from sfumato.training.drawing import Drawing
from sfumato.training.judge import Judge
from sfumato.training.recipes import RunSettings
from sfumato.training.run import Judging


@dataclass(frozen=True)
class DrawnJudge:
    """Judges a run by the pictures that it draws, told what is known of real ones: always the same seeds and
    the same real pictures, so that looks differ by the model alone. Each process of a crew draws its
    share."""

    drawing: Drawing
    names: tuple[str, ...]
    real: FeatureSet
    recipe: Recipe
    shown: Tensor | None
    seed: int

    @property
    def terms(self) -> str:
        """See `Judge`."""
        eyes, pictures = self.real.extractor, self.real.pictures
        return (
            f"{', '.join(self.names)} by {eyes.name} ({eyes.sha256[:12]}, {eyes.resize}) of "
            f"{len(self.recipe.seeds):,} samples against {pictures.count:,} pictures ({pictures.sha256[:12]})"
        )

    @property
    def rising(self) -> Mapping[str, bool]:
        """See `Judge`."""
        return {name: METRICS[name].better == "higher" for name in self.names}

    def look(self) -> Mapping[str, float] | None:
        """See `Judge`. Figures of pictures that are not all finite are not a number."""
        seen = self._seen()
        if seen is None:
            return None
        if not bool(seen.pooled.isfinite().all()):
            return dict.fromkeys(self.names, math.nan)
        found: dict[Compute, Mapping[str, Figure]] = {}
        values: dict[str, float] = {}
        for name in self.names:
            metric = METRICS[name]
            if metric.compute not in found:
                real, own = (getattr(each, metric.looks_at) for each in (self.real.features, seen))
                found[metric.compute] = metric.compute(real, own, self.seed)
            values[name] = found[metric.compute][name].value
        return values

    def _seen(self) -> Features | None:
        """What the extractor sees in all samples; None where the run was asked to stop."""
        mine = list(self.drawing.crew.share(range(len(self.recipe.seeds))))
        parts = list(self._looked(mine))
        if sum(len(part.pooled) for part in parts) < len(mine):
            return None
        spatial = [part.spatial for part in parts if part.spatial is not None]
        logits = [part.logits for part in parts if part.logits is not None]
        return Features(
            self._gathered([part.pooled for part in parts], mine),
            self._gathered(spatial, mine) if spatial else None,
            self._gathered(logits, mine) if logits else None,
        )

    def _looked(self, rows: list[int]) -> Iterator[Features]:
        """The features of these samples batch by batch, of the bytes that a file of them would hold; not a
        number where a picture is not finite."""
        image = self.drawing.run.card.image
        shown = None if self.shown is None else self.shown[rows]
        for x in self.drawing.pictures(self.recipe.take(rows), shown):
            unit = (x.float().cpu() - image.low) / (image.high - image.low) * 2 - 1
            finite = unit.flatten(1).isfinite().all(1)
            made = of_tensor(unit.nan_to_num(0.0).clamp(-1, 1), "samples")
            seen = self.real.extractor(made.images(range(made.count)))
            yield Features(seen.pooled.masked_fill(~finite[:, None], math.nan), seen.spatial, seen.logits)

    def _gathered(self, parts: list[Tensor], rows: list[int]) -> Tensor:
        """What all processes see, (n, D), on the CPU; `parts` are these rows of it."""
        mine, crew = torch.cat(parts), self.drawing.crew
        if crew.size == 1:
            return mine
        whole = torch.zeros(len(self.recipe.seeds), mine.shape[1], device=self.drawing.run.device)
        whole[rows] = mine.to(whole.device)
        crew.sum([whole])
        return whole.cpu()


def judging(weights: Path | None = None, cache: Path | None = None, progress: Told | None = None) -> Judging:
    """Makes the judge of a run's metrics: `train_run(..., judging=judging())`.

    weights: a file or folder of the extractor's. cache: where features of real pictures are kept, so that
    they are found once; progress is told of that. What it makes raises SettingsError for metrics that do not
    exist, need more pictures than there are or something that the extractor does not see, and
    ModelFileError.
    """

    def made(drawing: Drawing, settings: RunSettings) -> Judge:
        names, n, seed = settings.metrics, settings.metric_samples, settings.train.seed
        train = drawing.data.train
        rows = train[permutation(len(train), seed, "metrics")[:n].numpy()]
        extractor = open_extractor(settings.extractor, weights, drawing.run.device)
        check(names, len(rows), n, extractor.width)
        if n < drawing.crew.size:
            raise SettingsError(f"--metric-samples {n} are too few for {drawing.crew.size} processes")
        pictures = of_dataset(drawing.data, rows)
        features = features_of(pictures, extractor, cache=cache or default_cache(), progress=progress)
        real = FeatureSet(pictures, features, extractor)
        for name in names:
            if METRICS[name].looks_at == "scores" or real.part(METRICS[name].looks_at) is None:
                raise SettingsError(
                    f"--metrics {name} is not to be had on the way by {extractor.name}: leave it out, or "
                    "choose other --features"
                )
        wishes, shown = drawing.known([int(rows[i % len(rows)]) for i in range(n)])
        return DrawnJudge(drawing, names, real, drawing.recipe(wishes, seed=seed), shown, seed)

    return made
