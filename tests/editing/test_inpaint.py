"""Inpainting on exact denoisers: RePaint's law in closed form, soft masks, and pixels that stay."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from pairs import MEAN, PAIRS, conditional, drawn, repainted
from torch import Tensor

from sfumato import plans
from sfumato.editing.ensemble import ensemble
from sfumato.editing.img2img import img2img
from sfumato.editing.inpaint import inpaint, released
from sfumato.editing.job import finished, perform
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.samplers import Sampler
from sfumato.sampling import sample
from sfumato.schedules import Cosine
from sfumato.solvers.fresh import Ancestral, Ode
from sfumato.solvers.multistep import Multistep

H = 20_000
KNOWN = 0.8
SECOND = torch.tensor([0.0, 1.0]).expand(H, 2)


def levels(n: int) -> Levels:
    return plans.bounded(Cosine(), n)


def plain(eta: float) -> Sampler:
    return Sampler(Multistep(order=1), Ancestral(eta) if eta else Ode())


def completed(n: int, times: int, jump: int, eta: float, height: int = H) -> Tensor:
    """The second numbers of pairs whose first is KNOWN."""
    picture = torch.full((1, 1, height, 2), KNOWN, dtype=torch.float64)
    noise = Noise((1,))
    job = inpaint(PAIRS, picture, SECOND[:height], levels(n), noise, times=times, jump=jump)
    x = finished(job, plain(eta), noise)
    assert torch.equal(x[..., 0], picture[..., 0])
    return x[0, 0, :, 1]


@pytest.mark.parametrize(
    ("n", "times", "jump", "eta"), [(12, 1, 1, 0.0), (12, 4, 1, 0.0), (12, 3, 3, 1.0), (20, 5, 1, 1.0)]
)
def test_completions_have_repaints_law(n: int, times: int, jump: int, eta: float) -> None:
    truth = repainted(plans.repaint(levels(n), jump, times), KNOWN, eta)
    found = completed(n, times, jump, eta)
    mean, variance = float(truth.mean[1]), float(truth.cov[1, 1])
    assert abs(float(found.mean()) - mean) < 4 * math.sqrt(variance / H)
    assert abs(float(found.var()) / variance - 1) < 4 * math.sqrt(2 / H)


def test_repaints_law_nears_the_exact_conditional() -> None:
    """The closed form itself, and one walk held against the exact conditional."""
    mean, variance = conditional(KNOWN)
    off: list[float] = []
    for times in (1, 5, 25):
        law = repainted(plans.repaint(levels(200), 1, times), KNOWN, 1.0)
        off.append(abs(float(law.mean[1]) - mean) / math.sqrt(variance))
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.5
    assert off[-1] < 0.04
    assert float(law.cov[1, 1]) == pytest.approx(variance, rel=0.08)
    found = completed(60, 25, 1, 1.0, height=4000)
    assert float(found.mean()) == pytest.approx(mean, abs=0.08 * math.sqrt(variance))
    assert float(found.var()) == pytest.approx(variance, rel=0.2)


def test_the_manuals_table_is_the_closed_form() -> None:
    page = (Path(__file__).parents[2] / "docs" / "editing.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+)(, with `--eta 1`)? \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    known = float(MEAN[0]) + 0.8  # 1.6 deviations of 0.5
    mean, variance = conditional(known)
    for n, eta, said in rows:
        for times, off in zip((1, 5, 10, 20), said.split(" | "), strict=True):
            law = repainted(plans.repaint(levels(int(n)), 1, times), known, 1.0 if eta else 0.0)
            assert abs(float(law.mean[1]) - mean) / math.sqrt(variance) == pytest.approx(
                float(off), abs=0.006
            )


def test_a_short_stretch_makes_the_best_of_as_many_looks() -> None:
    """docs/editing.md says so: jump 1 against 2, 5 and 10 at 20 and 100 levels, 5 times over."""
    mean, _ = conditional(KNOWN)
    for n in (20, 100):
        off = [
            abs(float(repainted(plans.repaint(levels(n), jump, 5), KNOWN, 0.0).mean[1]) - mean)
            for jump in (1, 2, 5, 10)
        ]
        assert off == sorted(off)


def test_a_mask_of_ones_is_sampling_and_of_one_grey_is_img2img() -> None:
    """The first bit for bit; the second in what it is asked to do, its noise being its own."""
    noise, how = Noise((1, 2)), plain(1.0)
    picture = drawn(50).float().expand(2, 1, 50, 2)
    whole = inpaint(PAIRS, picture, torch.ones(50, 2), levels(10), noise, times=1)
    new = sample(PAIRS, (1, 50, 2), plans.descend(levels(10)), how.solver, (1, 2), how.fresh)
    assert torch.equal(finished(whole, how, noise), new)
    grey = inpaint(PAIRS, picture, torch.full((50, 2), 0.4), levels(10), noise, times=1)
    same = img2img(PAIRS, picture, levels(10), noise, 0.4)
    assert [move.there.angle for move in grey.plan] == [move.there.angle for move in same.plan[1:]]
    alpha, sigma = (float(v) for v in (levels(10)[6].alpha, levels(10)[6].sigma))
    z = (grey.x - alpha * picture) / sigma
    assert float(z.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * z.numel()))
    after = grey.after
    assert after is not None
    below = torch.zeros_like(picture)
    assert torch.equal(after(below, levels(10)[7], 0), below)  # nothing is held any more


@pytest.mark.parametrize("times", [1, 3])
def test_a_grey_mask_keeps_the_datas_law(times: int) -> None:
    """As img2img does: a picture of the data becomes another one, resampled or not: nothing is held."""
    noise = Noise((3,))
    job = inpaint(PAIRS, drawn(H, 7), torch.full((H, 2), 0.5), levels(60), noise, times=times)
    assert len(job.plan) == 30
    x = finished(job, Sampler(Multistep("x0", "log_snr", 2)), noise)[0, 0]
    cov = torch.cov(x.T)
    assert torch.allclose(x.mean(0), MEAN, atol=4 * 0.5 / math.sqrt(H))
    assert torch.allclose(cov, torch.tensor([[0.25, 0.225], [0.225, 0.25]]).double(), atol=0.01)


def test_the_lighter_the_mask_the_more_is_drawn_anew() -> None:
    picture = drawn(H, 5)
    noise = Noise((2,))
    changes: list[float] = []
    for value in (0.0, 0.15, 0.35, 0.6, 0.85, 1.0):
        mask = SECOND * value
        mask[0, 1] = 1.0  # so that something is drawn at 0
        x = finished(inpaint(PAIRS, picture, mask, levels(20), noise, times=1), plain(0.0), noise)
        changes.append(float((x - picture)[0, 0, 1:, 1].square().mean()))
        assert torch.equal(x[..., 0], picture[..., 0])
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[2] < 0.5 * changes[-1]


def test_each_pixel_is_held_down_to_its_own_node() -> None:
    """Above its node a pixel is the picture at that level, below it goes its own way."""
    grid, noise = levels(10), Noise((4,))
    mask = torch.tensor([[0.0, 0.3], [0.7, 1.0]])
    assert released(mask, grid).tolist() == [[10, 7], [3, -1]]
    picture = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    job = inpaint(PAIRS, picture, mask, grid, noise, times=1)
    for step in perform(job, plain(0.0), noise):
        z = noise.normal((1, 2, 2), "known", step.i).double()
        put = float(step.level.alpha) * picture + float(step.level.sigma) * z
        held = (torch.tensor([[10, 7], [3, -1]]) >= step.i + 1).expand_as(put)
        assert torch.equal((step.x == put), held)


def test_known_pixels_stay_to_the_bit_and_rows_do_not_know_each_other() -> None:
    picture = drawn(30, 9).float().expand(3, 1, 30, 2)
    mask = (Noise((5, 6, 7)).uniform((1, 30, 2), "mask") < 0.4).float()  # each picture its own
    together = finished(
        inpaint(PAIRS, picture, mask, levels(8), Noise((5, 6, 7)), times=2), plain(1.0), Noise((5, 6, 7))
    )
    assert torch.equal(together[mask == 0], picture[mask == 0])
    assert not torch.equal(together[mask > 0], picture[mask > 0])
    for row, seed in enumerate((5, 6, 7)):
        noise = Noise((seed,))
        job = inpaint(PAIRS, picture[:1], mask[row : row + 1].bool(), levels(8), noise, times=2)
        assert torch.equal(finished(job, plain(1.0), noise)[0], together[row])


def test_an_ensemble_tells_mean_and_deviation() -> None:
    """Over seeds and over independent pairs alike; kept pixels deviate by nothing."""
    picture = torch.full((1, 1, 500, 2), KNOWN, dtype=torch.float64)
    make = lambda noise: inpaint(
        PAIRS, picture.expand(len(noise), -1, -1, -1), SECOND[:500], levels(12), noise, times=4
    )
    found = ensemble(make, plain(0.0), range(40), batch=16)
    truth = repainted(plans.repaint(levels(12), 1, 4), KNOWN, 0.0)
    assert found.count == 40
    assert float(found.std[..., 0].max()) < 1e-12
    assert torch.allclose(found.mean[..., 0], picture[0, ..., 0], atol=1e-12)
    n = 40 * 500
    assert float(found.mean[..., 1].mean()) == pytest.approx(
        float(truth.mean[1]), abs=4 * math.sqrt(float(truth.cov[1, 1]) / n)
    )
    assert float(found.std[..., 1].square().mean()) == pytest.approx(
        float(truth.cov[1, 1]), rel=4 * math.sqrt(2 / n)
    )
    with pytest.raises(SettingsError, match="at least 2"):
        ensemble(make, plain(0.0), (1,))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.ones(3, 2), "for pictures of 2 x 4"),
        (torch.ones(2, 1, 4, 2), "for pictures of 2 x 4"),
        (torch.ones(1, 3, 4, 2), "one number a pixel"),
        (torch.full((4, 2), 1.5), "from 0, kept, to 1"),
        (torch.full((4, 2), math.nan), "from 0, kept, to 1"),
        (torch.zeros(4, 2), "0 everywhere"),
        (torch.zeros(4, 2, dtype=torch.bool), "0 everywhere"),
    ],
)
def test_a_mask_that_makes_no_sense_is_refused(mask: Tensor, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        inpaint(PAIRS, drawn(4), mask, levels(4), Noise((0,)))


@pytest.mark.parametrize(("times", "jump"), [(0, 1), (1, 0)])
def test_resampling_less_than_once_is_refused(times: int, jump: int) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        inpaint(PAIRS, drawn(4), torch.ones(4, 2), levels(4), Noise((0,)), times=times, jump=jump)
