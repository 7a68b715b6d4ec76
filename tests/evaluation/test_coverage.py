"""Groups and modes: shares with their errors, against laws whose shares are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evaluation.fields import a_set, extractor, pictures
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.evaluation import coverage, groups
from sfumato.evaluation.clusters import clusters, owners
from sfumato.evaluation.groups import Grouping, compare, groupings
from sfumato.evaluation.linear_probe import confusion, corrected, train_probe
from sfumato.evaluation.modes import modes
from sfumato.noise import Noise, uniform

MEANS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
DUE = torch.tensor([0.5, 0.3, 0.2])


def cloud(shares: Tensor, n: int, use: str) -> tuple[Tensor, Tensor]:
    """n points of three Gaussians that overlap, and which each is of."""
    which = torch.searchsorted(shares.cumsum(0), uniform(n, "cloud", use).float()).clamp(max=len(shares) - 1)
    return MEANS[which] + Noise.of("cloud", use, places=range(n)).normal((2,)), which


TRAIN, OF_TRAIN = cloud(DUE, 3000, "train")
HELD, OF_HELD = cloud(DUE, 500, "held")
GROUPING = Grouping("kind", ("a", "b", "c"), OF_TRAIN, OF_HELD)


def test_the_judge_is_where_the_loss_has_no_slope() -> None:
    judge = train_probe(TRAIN, OF_TRAIN, 3)
    weights = judge.weights.clone().requires_grad_()
    x = (TRAIN - judge.mean) / judge.scale
    loss = torch.nn.functional.cross_entropy(x @ weights + judge.offset, OF_TRAIN)
    (loss + 0.005 * weights.square().sum()).backward()
    assert weights.grad is not None
    assert float(weights.grad.abs().max()) < 1e-4
    assert torch.equal(judge(TRAIN), train_probe(TRAIN, OF_TRAIN, 3)(TRAIN))


def test_the_judge_is_as_good_as_the_law_allows() -> None:
    """Bayes' rule for Gaussians of one width is linear, so logistic regression reaches it."""
    judge = train_probe(TRAIN, OF_TRAIN, 3)
    points, which = cloud(DUE, 20_000, "new")
    best = (DUE.log() - (points[:, None] - MEANS).square().sum(2) / 2).argmax(1)
    lost = float((best == which).float().mean()) - float((judge(points) == which).float().mean())
    assert -0.003 < lost < 0.01


def test_errors_are_taken_out_exactly_where_they_are_known() -> None:
    errors = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.02, 0.08, 0.9]], dtype=torch.float64)
    for shares in ([0.5, 0.3, 0.2], [0.05, 0.9, 0.05], [1 / 3, 1 / 3, 1 / 3]):
        true = torch.tensor(shares, dtype=torch.float64)
        torch.testing.assert_close(corrected(true @ errors, errors), true, rtol=0, atol=1e-6)
    batch = torch.stack([torch.eye(3, dtype=torch.float64), errors])
    seen = torch.tensor([[0.2, 0.3, 0.5]] * 2, dtype=torch.float64)
    torch.testing.assert_close(corrected(seen, batch)[0], seen[0], rtol=0, atol=1e-9)


def test_impossible_judgements_have_the_likeliest_shares() -> None:
    """No shares give so many of the first: the boundary is where the likelihood is largest."""
    errors = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64)
    found = corrected(torch.tensor([95, 5]), errors)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-3)


def test_confusion_counts_and_knows_nothing_of_absent_classes() -> None:
    true = torch.tensor([0] * 900 + [1] * 100)
    said = torch.tensor([0] * 810 + [1] * 90 + [1] * 80 + [0] * 20)
    found = confusion(true, said, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(
        found[0, :2], torch.tensor([0.9, 0.1], dtype=torch.float64), rtol=0, atol=0.002
    )
    torch.testing.assert_close(found[2], torch.tensor([0.055, 0.055, 0.89]).double(), rtol=0, atol=0.002)


@pytest.mark.slow
def test_intervals_cover_the_shares_and_no_bias_is_seen_as_none() -> None:
    """40 models with a bias and 40 without, judged by a judge that is often wrong."""
    biased = torch.tensor([0.65, 0.3, 0.05])
    inside, distances, refused, seen = torch.zeros(3), 0, 0, 0
    for i in range(40):
        found = compare(GROUPING, TRAIN, HELD, cloud(biased, 400, f"biased {i}")[0], seed=i)
        inside += torch.tensor([g.low <= s <= g.high for g, s in zip(found.groups, biased.tolist())]).float()
        distances += found.low <= 0.15 <= found.high
        seen += found.chance <= 0.05
        fair = compare(GROUPING, TRAIN, HELD, cloud(DUE, 400, f"fair {i}")[0], seed=i)
        refused += fair.chance <= 0.05
    assert float(inside.min()) >= 34  # 95 % of 40 is 38 +- 1.4
    assert distances >= 34
    assert seen >= 37
    assert refused <= 6  # 2 +- 1.4


def test_a_group_that_is_left_out_is_named() -> None:
    samples, _ = cloud(torch.tensor([0.65, 0.3, 0.05]), 1000, "left out")
    found = compare(GROUPING, TRAIN, HELD, samples)
    assert found.under == ("c",)
    assert any("under-served: c" in line for line in found.lines())
    none = compare(GROUPING, TRAIN, HELD, samples[samples[:, 1] < -1][:200])
    assert "c" in none.under
    assert none.groups[2].high > 0
    said = json.loads(json.dumps(found.to_json()))
    assert said["under_served"] == ["c"]
    assert said["groups"][2]["under_served"]


def test_what_was_asked_for_is_what_is_due() -> None:
    """Asked in turns, and drawn as asked but for the third, of which half come out as the first."""
    asked = torch.arange(900) % 3
    drawn = torch.where((asked == 2) & (torch.arange(900) % 2 == 0), 0, asked)
    samples = MEANS[drawn] * 3 + 0.3 * Noise((1,)).normal((900, 2), "asked")[0]
    known = Grouping("kind", GROUPING.options, OF_TRAIN, OF_HELD)
    train, held = (MEANS[of] * 3 + 0.3 * (x - MEANS[of]) for x, of in ((TRAIN, OF_TRAIN), (HELD, OF_HELD)))
    found = compare(known, train, held, samples, asked)
    assert found.due == "what was asked for"
    assert [group.due for group in found.groups] == pytest.approx([1 / 3] * 3)
    assert [group.share for group in found.groups] == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.005)
    rights = [group.right for group in found.groups]
    assert [right.value for right in rights if right is not None] == pytest.approx([1, 1, 0.5], abs=0.01)


def test_groups_that_training_pictures_do_not_have_are_none() -> None:
    options = ("none", "a", "b", "c", "neither")
    known = Grouping("kind", options, torch.where(OF_TRAIN < 0, -1, OF_TRAIN + 1), OF_HELD + 1)
    found = compare(known, TRAIN, HELD, TRAIN[:500])
    assert [group.name for group in found.groups] == ["a", "b", "c"]
    part = torch.where(torch.arange(3000) % 2 == 0, OF_TRAIN, -1)
    half = compare(Grouping("kind", ("a", "b", "c"), part, OF_HELD), TRAIN, HELD, TRAIN[:500])
    assert half.accuracy.of == 300 + 500
    for grouping, n, said in (
        (GROUPING, 29, "29 samples for 3 groups"),
        (Grouping("kind", ("a", "b"), torch.zeros(3000).long(), OF_HELD * 0), 500, "nothing to compare"),
        (
            Grouping("kind", ("a", "b", "c"), torch.where(torch.arange(3000) < 25, OF_TRAIN, -1), OF_HELD),
            500,
            "known",
        ),
    ):
        with pytest.raises(SettingsError, match=said):
            compare(grouping, TRAIN, HELD, TRAIN[:n])


def test_tables_sort_pictures(tmp_path: Path) -> None:
    lines = ["file_name,sky,seen,size"]
    for i in range(40):
        Image.fromarray(np.full((8, 8), 4 * i, np.uint8)).save(tmp_path / f"{i:02d}.png")
        sky = "" if i % 10 == 0 else ("blue", "grey")[i % 2]
        lines.append(f"{i:02d}.png,{sky},{'sun|sea' if i % 3 == 0 else 'sea'},{i * 1.5}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    data = prepare(tmp_path, cache=tmp_path.parent / f"{tmp_path.name}-cache")
    found = {one.name: one for one in groupings(data)}
    assert {*found} == {"sky", "seen: sun", "seen: sea", "size"}
    sky = found["sky"]
    assert sky.options == ("blue", "grey")
    assert len(sky.train) == len(data.train)
    for row, place in zip(data.train.tolist(), sky.train.tolist(), strict=True):
        told = data.columns[row].get("sky", "")
        assert place == (sky.options.index(told) if told else -1)
    size = found["size"]
    assert size.options[0].startswith("to ")
    assert len(size.options) == 4
    counts = torch.bincount(size.train)
    assert counts.max() - counts.min() <= 1
    order = [float(data.columns[row]["size"]) for row in data.train.tolist()]
    assert size.train[np.argsort(order)].diff().min() == 0  # larger numbers are in later quarters
    sun = found["seen: sun"]
    assert sun.options == ("without", "with")
    for row, place in zip(data.held.tolist(), sun.held.tolist(), strict=True):
        assert place == ("sun" in data.columns[row]["seen"])


def blobs(n: int, kinds: int, use: str) -> Tensor:
    """Points of clouds far apart, in turns."""
    middle = 20 * Noise((3,)).normal((kinds, 6), "middles")[0]
    return middle[torch.arange(n) % kinds] + Noise.of("blobs", use, places=range(n)).normal((6,))


def test_clusters_of_clouds_are_the_clouds() -> None:
    points = blobs(600, 12, "points")
    centres = clusters(points, 12)
    which = owners(points, centres)
    assert all(len({*which[i::12].tolist()}) == 1 for i in range(12))
    assert len({*which.tolist()}) == 12
    for i in range(12):
        own = centres[which[i]]
        torch.testing.assert_close(own, points[i::12].double().mean(0), rtol=0, atol=1e-9)
    assert torch.equal(centres, clusters(points, 12))
    same = clusters(torch.zeros(5, 2), 3)
    assert bool((same == 0).all())
    with pytest.raises(SettingsError, match="from 1 to 600"):
        clusters(points, 601)


def test_modes_that_are_left_out_are_found() -> None:
    train, held = blobs(2400, 12, "train"), blobs(240, 12, "held")
    whole = modes(train, held, blobs(480, 12, "all"), count=12)
    assert (whole.reached, whole.different, whole.held, whole.missing) == (12, 0, 0, ())
    assert whole.expected == pytest.approx(12 - 12 * (11 / 12) ** 480)
    assert not whole.under
    some = blobs(960, 12, "some").reshape(80, 12, 6)[:, :8].reshape(-1, 6)
    partial = modes(train, held, some, count=12)
    assert partial.reached == 8
    assert partial.different == 12
    assert partial.under
    assert len(partial.missing) == 4
    assert all(one.share == 0 for one in partial.missing)
    assert {one.example % 12 for one in partial.missing} == {8, 9, 10, 11}
    assert all(one.due == pytest.approx(1 / 12, abs=0.01) for one in partial.missing)
    assert len([*partial.lines()]) == 6
    assert json.loads(json.dumps(partial.to_json()))["reached"] == 8


def test_new_points_of_one_law_differ_in_a_twentieth_of_the_clusters() -> None:
    """Clusters of one cloud are arbitrary, and fit the half that they were found in alone."""
    law = lambda n, use: Noise.of("one cloud", use, places=range(n)).normal((8,))
    found = [
        modes(law(4000, f"train {i}"), law(600, f"held {i}"), law(1000, f"new {i}"), i) for i in range(6)
    ]
    assert all(one.clusters == 100 for one in found)
    for counts in ([one.different for one in found], [one.held or 0 for one in found]):
        assert 30 - 4 * 5.4 < sum(counts) < 30 + 4 * 5.4  # 600 tests at 5 %
    assert not any(one.missing for one in found)
    for one in found:
        assert abs(one.reached - one.expected) < 4 * one.error + 1


def test_a_look_at_pictures_tells_classes_and_modes() -> None:
    """Bright and dark pictures; of the samples nine in ten are bright, and nobody asked."""

    def tone(n: int, bright: float, use: str) -> tuple[Tensor, list[int]]:
        which = [int(i % 10 >= 10 * (1 - bright)) for i in range(n)]
        return (pictures(n, use) * 0.5 + torch.tensor(which)[:, None, None, None] - 0.5), which

    names = ("dark", "bright")
    sets = []
    for n, bright, use in ((600, 0.5, "train"), (120, 0.5, "held")):
        images, which = tone(n, bright, use)
        sets.append(a_set(images, use, classes=which, class_names=names))
    images, which = tone(200, 0.9, "samples")
    found = coverage.look(a_set(images, "samples"), *sets, extractor())
    (kinds,) = found.groups
    assert kinds.name == "class"
    assert kinds.due == "the training data"
    assert kinds.under == ("dark",)
    assert found.under == ("class dark",)
    assert [g.share for g in kinds.groups] == pytest.approx([0.1, 0.9], abs=0.02)
    assert found.modes is not None
    assert found.modes.clusters == 15
    assert not found.notes
    asked = coverage.look(a_set(images, "samples", classes=which, class_names=names), *sets, extractor())
    assert asked.groups[0].due == "what was asked for"
    assert not asked.under
    alone = coverage.look(a_set(images, "samples"), sets[0], sets[0].take([]), extractor())
    assert alone.under == ("class dark",)
    assert alone.groups[0].accuracy.of == 120
    few = coverage.look(a_set(images[:15], "few"), *sets, extractor())
    assert not few.groups
    assert few.modes is None
    assert len(few.notes) == 2
    assert [*few.lines()] == [*few.notes]
    json.dumps(found.to_json())
    with pytest.raises(SettingsError, match="sorts other pictures"):
        coverage.look(a_set(images, "samples"), *sets, extractor(), groupings=[GROUPING])


def test_groups_are_compared_the_same_at_every_call() -> None:
    samples, _ = cloud(DUE, 200, "same")
    assert compare(GROUPING, TRAIN, HELD, samples) == compare(GROUPING, TRAIN, HELD, samples)
    assert groups.DRAWS >= 200
