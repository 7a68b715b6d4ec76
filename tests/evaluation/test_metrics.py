"""Metrics by name: records that say everything, baselines at the same n, and refusals in one sentence."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.feature_set import FeatureSet
from sfumato.evaluation.features.seen import Features, Looking
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.frechet import fid, fid_infinity
from sfumato.evaluation.inception_score import inception_score
from sfumato.evaluation.kernel import kid
from sfumato.evaluation.manifold import density_coverage, precision_recall
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.metric_table import METRICS
from sfumato.evaluation.metrics import check, measure, measure_classes, usual
from sfumato.evaluation.record import Record, difference
from sfumato.evaluation.sets import of_tensor

WIDTH = 6
EYE = Looking(
    "six", "e" * 64, "none", WIDTH, lambda x: Features(x.flatten(1)[:, :WIDTH]), torch.device("cpu")
)


def feature_set(name: str, n: int, seed: int, shift: float = 0.0) -> FeatureSet:
    """Pictures of three classes, with features that have everything."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(n, 1, 3, 3, generator=generator) * 2 - 1
    features = Features(
        torch.randn(n, WIDTH, generator=generator) + shift,
        torch.randn(n, 4, generator=generator) + shift,
        3 * torch.randn(n, 5, generator=generator),
    )
    made = of_tensor(pictures, name, [i % 3 for i in range(n)], ("red", "green", "blue"))
    return FeatureSet(made, features, EYE, 20 + torch.randn(n, generator=generator))


REAL, MADE, HELD = feature_set("real", 200, 1), feature_set("made", 160, 2, 0.3), feature_set("held", 300, 3)


def figures(real: FeatureSet, made: FeatureSet, seed: int) -> dict[str, Figure]:
    """Every metric by its own function."""
    x, y = real.features, made.features
    assert x.spatial is not None
    assert y.spatial is not None
    assert y.logits is not None
    assert made.scores is not None
    return {
        "kid": kid(x.pooled, y.pooled),
        "fid": fid(x.pooled, y.pooled),
        "fid-infinity": fid_infinity(x.pooled, y.pooled, seed),
        "sfid": fid(x.spatial, y.spatial),
        "is": inception_score(y.logits),
        "clip-score": Figure.of(*Mean.of(made.scores)),
        **precision_recall(x.pooled, y.pooled, 3, seed)._asdict(),
        **density_coverage(x.pooled, y.pooled, 5, seed)._asdict(),
    }


def test_each_record_is_its_metric_with_everything_it_follows_from() -> None:
    found = measure(tuple(METRICS), REAL, MADE, HELD, seed=4)
    assert [record.terms.metric for record in found] == list(METRICS)
    own, base = figures(REAL, MADE, 4), figures(REAL, HELD.drawn(160, 4), 4)
    for record in found:
        name, terms = record.terms.metric, record.terms
        assert (record.value, record.low, record.high) == own[name]
        assert record.baseline is not None
        assert (record.baseline.value, record.baseline.low, record.baseline.high) == base[name]
        compares = METRICS[name].compares
        assert record.baseline.generated == terms.generated == 160  # at the same n
        assert (record.baseline.real, terms.real) == ((200, 200) if compares else (0, 0))
        assert terms.reference_sha256 == (REAL.pictures.sha256 if compares else "")
        assert record.sha256 == MADE.pictures.sha256
        assert (terms.extractor, terms.weights_sha256, terms.resize, terms.seed) == (
            "six",
            "e" * 64,
            "none",
            4,
        )
        assert Record.of_json(record.to_json()) == record
    kinds = {record.terms.metric: dict(record.terms.settings) for record in found}
    assert kinds["kid"] == {"degree": 3}
    assert kinds["recall"] == {"k": 3}
    assert kinds["coverage"] == {"k": 5}


def test_names_and_order_of_the_pictures_change_nothing() -> None:
    turned = [one.take(list(range(len(one)))[::-1]) for one in (REAL, MADE, HELD)]
    names = ("coverage", "is", "fid", "kid", "precision")
    for name, record in zip(names, measure(names, REAL, MADE, HELD), strict=True):
        (alone,) = measure([name], *turned)
        assert alone.value == pytest.approx(record.value, rel=1e-9)
        assert alone.terms == record.terms
        assert alone.sha256 == record.sha256
        assert record.baseline is not None
        assert alone.baseline is not None
        assert alone.baseline.value == pytest.approx(record.baseline.value, rel=1e-9)  # the same pictures
        assert difference(record, alone).difference == pytest.approx(0, abs=1e-9)


def test_runs_are_compared_and_other_protocols_are_not() -> None:
    other = feature_set("other", 160, 9)
    (mine,), (theirs,) = measure(["kid"], REAL, MADE), measure(["kid"], REAL, other)
    assert difference(mine, theirs).better == "b"
    (fewer,) = measure(["kid"], REAL, MADE.take(range(100)))
    with pytest.raises(SettingsError, match="generated 160 and 100"):
        difference(mine, fewer)
    (elsewhere,) = measure(["kid"], HELD, other)
    with pytest.raises(SettingsError, match=r"real 200 and 300; reference hash .* and "):
        difference(mine, elsewhere)


def test_sets_that_were_looked_at_otherwise_are_refused() -> None:
    blind = replace(EYE, name="seven", sha256="f" * 64, resize="to 7 x 7")
    other = FeatureSet(MADE.pictures, MADE.features, blind)
    with pytest.raises(SettingsError) as caught:
        measure(["kid"], REAL, other)
    for words in ("extractors six and seven", "weights eeeeeeeeeeee and ffffffffffff", "none and to 7 x 7"):
        assert words in str(caught.value)
    with pytest.raises(SettingsError, match="not looked at alike"):
        measure(["kid"], REAL, MADE, other)
    with pytest.raises(SettingsError, match="features of 3 pictures and not of 160"):
        FeatureSet(MADE.pictures, Features(torch.zeros(3, WIDTH)), EYE)


@pytest.mark.parametrize("name", list(METRICS))
def test_too_few_pictures_are_told_before_and_after(name: str) -> None:
    least = METRICS[name].fewest(WIDTH)
    check([name], least, least, WIDTH)
    for n in (least - 1, 2):
        sentence = f"{name} needs at least {least} generated pictures and there are {n}: draw {least} or more"
        with pytest.raises(SettingsError) as caught:
            check([name], least, n)
        assert str(caught.value) == sentence
        with pytest.raises(SettingsError, match="draw"):
            measure([name], REAL, MADE.take(range(n)))
    if METRICS[name].compares:
        with pytest.raises(SettingsError, match=f"at least {least} real pictures and there are 2"):
            measure([name], REAL.take(range(2)), MADE)
    assert len(measure([name], REAL.take(range(least)), MADE.take(range(least)))) == 1  # enough is enough


def test_a_line_in_1_over_n_needs_pictures_for_each_feature() -> None:
    with pytest.raises(SettingsError, match="fid-infinity needs at least 2,560 generated pictures"):
        check(["fid-infinity"], 10_000, 1000, 1280)


def test_what_cannot_be_measured_is_told() -> None:
    with pytest.raises(SettingsError, match=r"there is no metric 'beauty': choose from kid, fid, "):
        check(["beauty"], 1000, 1000)
    bare = [FeatureSet(one.pictures, Features(one.features.pooled), EYE) for one in (REAL, MADE)]
    for name, words in (
        ("sfid", "six gives no features of places"),
        ("is", "six gives no logits"),
        ("clip-score", "made has no scores"),
    ):
        with pytest.raises(SettingsError, match=words):
            measure([name], *bare)
    assert not {"sfid", "is", "clip-score"} & set(usual(*bare))


def test_kid_comes_first_below_ten_thousand_pictures() -> None:
    assert usual(REAL, MADE)[0] == "kid"
    assert set(usual(REAL, MADE)) == set(METRICS)
    pictures = of_tensor(torch.zeros(1, 1, 1, 1), "many").take([0] * 10_000)
    many = FeatureSet(pictures, Features(torch.zeros(10_000, 1)), EYE)
    assert usual(many, many)[0] == "fid"
    assert usual(REAL, MADE.take(range(20))) == ("clip-score",)


def test_what_must_be_known_is_said() -> None:
    by_name = {record.terms.metric: record for record in measure(("kid", "fid", "is"), REAL, MADE, HELD)}
    assert by_name["kid"].warnings == ()
    assert "KID first" in by_name["fid"].warnings[0]
    assert "of 160 pictures it is too low" in by_name["is"].warnings[0]
    (few,) = measure(["fid"], REAL, MADE, HELD.take(range(60)))
    assert few.baseline is not None
    assert few.baseline.generated == 60
    assert "its baseline is of 60 pictures, not 160" in few.warnings[1]
    (none,) = measure(["fid"], REAL, MADE, HELD.take(range(10)))
    assert none.baseline is None


def only(one: FeatureSet, group: int) -> Tensor:
    rows = torch.arange(len(one)) % 3 == group
    return one.features.pooled[rows]


def test_by_class() -> None:
    found = measure_classes(("kid", "precision"), REAL, MADE, HELD, seed=2)
    assert [(r.terms.metric, r.group) for r in found.records] == [
        (name, group) for group in ("red", "green", "blue") for name in ("kid", "precision")
    ]
    for number, record in enumerate(found.records[::2]):
        assert record.value == kid(only(REAL, number), only(MADE, number)).value
        assert record.baseline is not None
        assert record.baseline.generated == record.terms.generated == len(only(MADE, number))
        own = sorted(REAL.pictures.digests[number::3])
        assert record.terms.reference_sha256 == hashlib.sha256("\n".join(own).encode()).hexdigest()
    assert found.left_out == ()
    with pytest.raises(SettingsError, match="group red and green"):
        difference(found.records[0], found.records[2])


def test_classes_with_too_few_pictures_are_left_out_and_said() -> None:
    rows = [i for i in range(160) if i % 3 != 1 or i < 40]
    found = measure_classes(("kid",), REAL, MADE.take(rows))
    assert [record.group for record in found.records] == ["red", "blue"]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith(
        "class green: kid needs at least 50 generated pictures and there are 13"
    )
    with pytest.raises(SettingsError, match="there is no metric"):
        measure_classes(("beauty",), REAL, MADE)
    bare = FeatureSet(replace(MADE.pictures, classes=None, class_names=()), MADE.features, EYE)
    with pytest.raises(SettingsError, match="share no classes"):
        measure_classes(("kid",), REAL, bare)
