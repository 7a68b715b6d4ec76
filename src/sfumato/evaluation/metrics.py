"""Metrics of generated pictures against real ones, each a record with its interval and its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sfumato.errors import SettingsError
from sfumato.evaluation.feature_set import FeatureSet, check_alike
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.metric_table import MANY, METRICS, Compute, Metric
from sfumato.evaluation.record import Baseline, Record, Terms

__all__ = ["METRICS", "ByClass", "FeatureSet", "check", "measure", "measure_classes", "usual"]


def check(names: Sequence[str], real: int, generated: int, width: int = 0) -> None:
    """Raises SettingsError, one sentence, for an unknown name or fewer pictures than a metric needs (with an
    extractor of this width, where it matters): also before there are any, so that none are drawn in vain."""
    for name in names:
        metric = _metric(name)
        least = metric.fewest(width)
        if generated < least:
            raise SettingsError(
                f"{name} needs at least {least:,} generated pictures and there are {generated:,}: draw "
                f"{least:,} or more"
            )
        if metric.compares and real < least:
            raise SettingsError(
                f"{name} needs at least {least:,} real pictures and there are {real:,}: give more, or leave "
                "this metric out"
            )


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise SettingsError(f"there is no metric {name!r}: choose from {', '.join(METRICS)}")
    return METRICS[name]


def usual(real: FeatureSet, generated: FeatureSet) -> tuple[str, ...]:
    """The metrics that these sets have all for, the first choice first: KID, and FID from 10,000 pictures
    on."""
    n = min(len(real), len(generated))
    names = [name for name, metric in METRICS.items() if _can(metric, real, generated)]
    first = "fid" if n >= MANY else "kid"
    return tuple(sorted(names, key=lambda name: name != first))


def _can(metric: Metric, real: FeatureSet, generated: FeatureSet) -> bool:
    sets = (real, generated) if metric.compares else (generated,)
    least = metric.fewest(generated.width)
    return all(one.part(metric.looks_at) is not None and len(one) >= least for one in sets)


def measure(
    names: Sequence[str],
    real: FeatureSet,
    generated: FeatureSet,
    held_out: FeatureSet | None = None,
    seed: int = 0,
    group: str | None = None,
) -> tuple[Record, ...]:
    """A record for each name, in their order.

    held_out: real pictures that are not among `real`. The baseline is the same metric of as many of them, as
    if they had been generated: what the best possible model would be given. The seed draws these, and the
    groups and parts of the metrics that have any; the same values come whatever the order of other names.

    Raises SettingsError, one sentence, for unknown names, too few pictures, features that the extractor does
    not have, and sets that were looked at by other extractors or protocols.
    """
    check(names, len(real), len(generated), generated.width)
    for other in (generated, *([] if held_out is None else [held_out])):
        check_alike(real, other)
    others = None if held_out is None else held_out.drawn(len(generated), seed)
    found: dict[Compute, Mapping[str, Figure]] = {}
    base: dict[Compute, Mapping[str, Figure]] = {}
    records: list[Record] = []
    for name in names:
        metric = METRICS[name]
        if metric.compute not in found:
            found[metric.compute] = _figures(metric, real, generated, seed)
            if others is not None and _can(metric, real, others):
                base[metric.compute] = _figures(metric, real, others, seed)
        baseline = None
        if others is not None and metric.compute in base:
            baseline = _baseline(metric, base[metric.compute][name], real, others)
        records.append(_record(name, real, generated, found[metric.compute][name], baseline, seed, group))
    return tuple(records)


def _figures(metric: Metric, real: FeatureSet, generated: FeatureSet, seed: int) -> Mapping[str, Figure]:
    """Of both sets; a metric of the generated pictures alone is not shown the real ones."""
    sets = (real if metric.compares else generated, generated)
    first, second = (one.points if metric.nearest else one.needed(metric.looks_at) for one in sets)
    return metric.compute(first, second, seed)


def _baseline(metric: Metric, figure: Figure, real: FeatureSet, others: FeatureSet) -> Baseline:
    return Baseline(
        value=figure.value,
        low=figure.low,
        high=figure.high,
        real=len(real) if metric.compares else 0,
        generated=len(others),
        pictures=others.pictures.name,
    )


def _record(
    name: str,
    real: FeatureSet,
    generated: FeatureSet,
    figure: Figure,
    baseline: Baseline | None,
    seed: int,
    group: str | None,
) -> Record:
    metric = METRICS[name]
    n = min(len(real), len(generated)) if metric.compares else len(generated)
    warnings = [metric.doubt.format(n=n)] if n < metric.trusted else []
    if baseline is not None and baseline.generated < len(generated) and metric.trusted:
        warnings.append(
            f"its baseline is of {baseline.generated:,} pictures, not {len(generated):,}: there are no more"
        )
    terms = Terms(
        metric=name,
        extractor=generated.extractor.name,
        weights_sha256=generated.extractor.sha256,
        resize=generated.extractor.resize,
        real=len(real) if metric.compares else 0,
        generated=len(generated),
        reference=real.pictures.name if metric.compares else "",
        reference_sha256=real.pictures.sha256 if metric.compares else "",
        group=group,
        settings=dict(metric.settings),
        seed=seed,
    )
    return Record(
        terms=terms,
        name=generated.pictures.name,
        sha256=generated.pictures.sha256,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        interval=metric.interval,
        better=metric.better,
        baseline=baseline,
        warnings=tuple(warnings),
    )


class ByClass(NamedTuple):
    """Records class by class, and a sentence for each class that has too few pictures for some metric."""

    records: tuple[Record, ...]
    left_out: tuple[str, ...]


def measure_classes(
    names: Sequence[str],
    real: FeatureSet,
    generated: FeatureSet,
    held_out: FeatureSet | None = None,
    seed: int = 0,
) -> ByClass:
    """The same for the pictures of each class alone, those asked for against real ones of that class.

    A metric is left out for a class with too few pictures, and it is said. Raises SettingsError where either
    set has no classes or they share none, and as `measure` does.
    """
    one, other = real.pictures, generated.pictures
    shared = [name for name in one.class_names if name in other.class_names]
    if one.classes is None or other.classes is None or not shared:
        raise SettingsError(
            f"{one.name} and {other.name} share no classes: metrics by class need pictures of both that have "
            "them"
        )
    records: list[Record] = []
    left_out: list[str] = []
    for group in shared:
        mine, theirs = real.of_class(group), generated.of_class(group)
        others = None if held_out is None else held_out.of_class(group)
        kept: list[str] = []
        for name in names:
            try:
                check([name], len(mine), len(theirs), theirs.width)
            except SettingsError as error:
                if name not in METRICS:
                    raise
                left_out.append(f"class {group}: {error}")
            else:
                kept.append(name)
        records += measure(kept, mine, theirs, others, seed, group)
    return ByClass(tuple(records), tuple(left_out))
