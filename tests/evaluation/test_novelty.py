"""Novelty: memorised samples are caught, and new ones pass as often as they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.fields import SIDE, a_set, copies, extractor, pictures
from sfumato.data.decode import decode
from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.errors import SettingsError
from sfumato.evaluation import copies as module
from sfumato.evaluation import novelty
from sfumato.evaluation.contact import write_contact
from sfumato.evaluation.novelty import SURE, Closeness, Novelty
from sfumato.evaluation.sets import PictureSet
from sfumato.evaluation.shares import below
from sfumato.inside.ideal import Ideal
from sfumato.noise import Noise, uniform
from sfumato.plans import descend, trailing
from sfumato.sampling import sample
from sfumato.schedules import Cosine
from sfumato.solvers.multistep import Multistep

TRAIN = pictures(600, "train")
HELD = pictures(150, "held")


def look(samples: torch.Tensor, train: torch.Tensor = TRAIN, held: torch.Tensor = HELD) -> Novelty:
    sets = [a_set(one, name) for one, name in ((samples, "samples"), (train, "train"), (held, "held"))]
    return novelty.look(sets[0], sets[1], sets[2], extractor())


def test_new_pictures_pass_and_copies_do_not() -> None:
    new, old = pictures(200, "new"), copies(TRAIN[:200], 0.02, "old")
    healthy, memorised = look(new), look(old)
    assert not healthy.flagged
    assert not bool(healthy.copies.any())
    assert memorised.flagged
    assert memorised.pixels.flagged
    assert memorised.features.flagged
    assert memorised.copies.float().mean() > 0.95
    assert torch.equal(memorised.pixels.nearest, torch.arange(200))
    assert (memorised.features.nearest == torch.arange(200)).float().mean() > 0.95
    assert memorised.pixels.near.count == 200
    assert "training pictures back" in memorised.verdict
    assert "training pictures back" not in healthy.verdict
    assert any("flagged" in line for line in memorised.lines())
    said = json.loads(json.dumps(memorised.to_json()))
    assert said["flagged"]
    assert said["spaces"][0]["near_copies"]["count"] == 200


def test_a_tenth_of_copies_is_counted_as_a_tenth_and_shown_first() -> None:
    mixed = torch.cat([pictures(270, "new"), copies(TRAIN[300:330], 0.02, "old")])
    found = look(mixed)
    low, high = found.pixels.near.interval
    assert found.flagged
    assert low < 0.1 + found.pixels.expected < high + 0.01
    assert {*found.order[:30].tolist()} == {*range(270, 300)}


def test_mirrored_and_moved_copies_are_copies() -> None:
    train, held = (F.interpolate(one, scale_factor=3.0, mode="bicubic").clamp(-1, 1) for one in (TRAIN, HELD))
    moved = torch.roll(train[:60], (1, 0), (2, 3))
    for changed in (train[:60].flip(3), moved, torch.roll(train[:60].flip(3), (1, 1), (2, 3))):
        near = look(changed, train, held).pixels
        assert torch.equal(near.nearest, torch.arange(60))
        assert near.flagged


def test_as_many_new_pictures_as_said_are_below_the_limit() -> None:
    """Whatever the law of the scores, the count has the law of `below`: its mean, its spread, its tail."""
    counts: list[int] = []
    flagged = 0
    for i in range(1500):
        scores = uniform(300 + 199, "scores", i).square()
        none = torch.zeros(300)
        one = Closeness("test", "", 5, none, none.long(), scores[:300], scores[300:].sort().values)
        counts.append(one.near.count)
        flagged += one.flagged
    law, places = below(300, 199, 2), torch.arange(301)
    mean = float((law * places).sum())
    spread = float((law * (places - mean) ** 2).sum()) ** 0.5
    assert one.expected == 0.01
    assert mean == pytest.approx(3)
    assert sum(counts) / 1500 == pytest.approx(mean, abs=4 * spread / 1500**0.5)
    assert flagged <= 1500 * SURE + 4 * (1500 * SURE) ** 0.5
    assert float(one.p.min()) >= 1 / 200


def test_doubles_among_the_training_pictures_hide_nothing() -> None:
    """Each of 60 pictures 10 times, and 5 more with a little noise: the nearest and the next are copies."""
    near = [copies(TRAIN[:60], 0.02, f"double {i}") for i in range(5)]
    train = torch.cat([TRAIN[:60]] * 10 + near)
    found = look(copies(TRAIN[:60], 0.02, "old"), train)
    assert found.sets[1][2] == 900
    assert found.pixels.neighbour == 10
    assert {*(found.pixels.nearest % 60 - torch.arange(60)).tolist()} == {0}
    assert found.pixels.flagged
    assert found.pixels.near.count > 55


def test_held_out_copies_are_left_out_and_counted() -> None:
    """A tenth of what is held out is in the training data too, some of it not to the last bit."""
    held = torch.cat([HELD[:135], TRAIN[:8], copies(TRAIN[8:15], 0.01, "held")])
    found = look(copies(TRAIN[100:200], 0.02, "old"), held=held)
    assert found.held_copies == 15
    assert found.flagged
    assert not look(pictures(200, "new"), held=held).flagged
    assert any("15 held-out" in line for line in found.lines())
    with pytest.raises(SettingsError, match="hold out more"):
        look(pictures(20, "new"), held=torch.cat([TRAIN[:15], HELD[:15]]))


def test_aligned_distances_are_the_least_by_hand() -> None:
    some, others = ((pictures(6, use, 3) + 1) * 127.5 for use in ("a", "b"))
    some, others = some.round().to(torch.uint8), others.round().to(torch.uint8)
    found = module.near(some, others, 2)
    for i, one in enumerate(some.double()):
        each: list[float] = []
        for other in others.double():
            inner = other[:, 1:-1, 1:-1]
            parts = [
                v[:, y : y + 6, x : x + 6] for v in (one, one.flip(2)) for y in range(3) for x in range(3)
            ]
            each.append(min(float((part - inner).square().mean().sqrt()) for part in parts))
        order = sorted(each)
        assert float(found.distance[i]) == pytest.approx(order[0], rel=1e-12)
        assert float(found.further[i]) == pytest.approx(order[1], rel=1e-12)
        assert each[int(found.index[i])] == order[0]


def test_large_pictures_are_compared_small() -> None:
    large = F.interpolate(TRAIN[:60], scale_factor=8.0, mode="bicubic").clamp(-1, 1)
    assert module.shrunk(a_set(large, "large")).shape == (60, 1, 32, 32)
    found = module.near(
        module.shrunk(a_set(large.flip(3), "mirrored")), module.shrunk(a_set(large, "large")), 5
    )
    assert bool(found.copy.all())
    assert float(found.distance.max()) < 0.5  # the means of areas may round to the next grey level


def drawn(denoise: Denoiser, n: int) -> torch.Tensor:
    """Samples of a denoiser, as pictures."""
    plan = descend(trailing(Cosine(), 100))
    return sample(denoise, (1, SIDE, SIDE), plan, Multistep(order=2), range(n))


@pytest.fixture(scope="module")
def law() -> Mixture:
    """Forty kinds of pictures, each a cloud."""
    means = 0.7 * pictures(40, "kinds").flatten(1).double()
    return Mixture(torch.ones(40), means, torch.full_like(means, 0.12))


def test_the_denoiser_that_knows_its_pictures_by_heart_is_caught(law: Mixture) -> None:
    """The ideal denoiser of the training pictures makes nothing but these, that of their law new ones."""
    rows = law.sample(Noise(tuple(range(10**6, 10**6 + 700)))).float().reshape(-1, 1, SIDE, SIDE)
    train, held = rows[:500], rows[500:]
    learnt = Exact(lambda x, level: law.posterior_mean(x, level.alpha, level.sigma))
    healthy, memorised = (
        look(drawn(learnt, 100), train, held),
        look(drawn(Exact(Ideal.of(train)), 100), train, held),
    )
    assert memorised.flagged
    assert bool(memorised.copies.all())
    assert memorised.pixels.near.count == memorised.features.near.count == 100
    assert not healthy.flagged
    assert not bool(healthy.copies.any())


def test_the_contact_sheet_shows_what_its_list_says(tmp_path: Path) -> None:
    mixed = torch.cat([pictures(40, "new"), copies(TRAIN[300:305], 0.02, "old")])
    samples, train = a_set(mixed, "samples"), a_set(TRAIN, "train")
    found = look(mixed)
    names = [f"{i:04d}.png" for i in range(600)]
    write_contact(tmp_path / "x.png", found, samples, train, names, most=15)
    said = json.loads((tmp_path / "x.json").read_text())
    assert [pair["sample"] for pair in said["pairs"][:5]] == found.order[:5].tolist()
    assert all(pair["name"] == names[pair["training_picture"]] for pair in said["pairs"])
    assert {pair["training_picture"] for pair in said["pairs"][:5]} == {*range(300, 305)}
    sheet = decode(tmp_path / "x.png").array[..., 0]
    pair, big = said["pairs"][13], 64
    assert sheet.shape == (4 * big + 6, 12 * big + 22)
    for row, pictures_, which in ((2, samples, "sample"), (3, train, "training_picture")):
        shown = sheet[row * (big + 2) :][:big:8, big + 2 : 2 * big + 2 : 8]
        wanted = _bytes(pictures_, pair[which])
        assert (shown == wanted).all()
    with pytest.raises(SettingsError, match="names"):
        write_contact(tmp_path / "y.png", found, samples, train, names[:-1])
    with pytest.raises(SettingsError, match=r"x\.png"):
        write_contact(tmp_path / "y.jpg", found, samples, train)


def _bytes(pictures_: PictureSet, row: int) -> np.ndarray:
    return ((pictures_.images([row])[0, 0] + 1) * 127.5).round().to(torch.uint8).numpy()


def test_what_cannot_be_measured_is_said() -> None:
    for samples, train, held, said in (
        (pictures(5, "new"), TRAIN, HELD, "5 samples"),
        (pictures(50, "new"), TRAIN[:9], HELD, "9 training pictures"),
        (pictures(50, "new"), TRAIN, HELD[:19], "19 held-out"),
        (pictures(50, "new", 3), TRAIN, HELD, "8 x 8 with 3 channels"),
    ):
        with pytest.raises(SettingsError, match=said):
            look(samples, train, held)
