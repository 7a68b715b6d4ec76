"""Outpainting on an exact denoiser: the margins' law, on a canvas larger than the model's pictures too."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.job import finished
from sfumato.editing.outpaint import Margins, outpaint
from sfumato.editing.tiles import Tiled, Tiling
from sfumato.noise import Noise
from sfumato.samplers import Sampler
from sfumato.schedules import Cosine
from sfumato.solvers.multistep import Multistep

HOW = Sampler(Multistep("x0", "log_snr", 2))
LEVELS = plans.log_snr(Cosine(), 60)
DATA = Mixture.gaussian([0.2], [0.4])
PIXELS = Exact(
    lambda x, level: DATA.posterior_mean(x.reshape(-1, 1), level.alpha, level.sigma).reshape(x.shape)
)


def test_the_picture_stays_and_the_margins_have_the_datas_law() -> None:
    noise = Noise((1, 2))
    picture = Noise((3, 4)).normal((1, 20, 30), "picture")
    margins = Margins(40, 30, 20, 10)
    x = finished(outpaint(PIXELS, picture, margins, LEVELS, noise, times=2), HOW, noise)
    assert x.shape == (2, 1, 60, 90)
    assert torch.equal(x[:, :, 30:50, 40:70], picture)
    new = torch.cat([x[:, :, :30].flatten(), x[:, :, 50:].flatten()])
    assert float(new.mean()) == pytest.approx(0.2, abs=5 * 0.4 / math.sqrt(len(new)))
    assert float(new.std()) == pytest.approx(0.4, rel=5 / math.sqrt(2 * len(new)))


def test_tiles_draw_the_same_canvas_where_pixels_are_independent() -> None:
    noise = Noise((5, 6))
    picture = Noise((3, 4)).normal((1, 8, 8), "picture")
    margins = Margins(4, 0, 9, 3)
    tiled = Tiled(PIXELS, Tiling((11, 21), (8, 8), 4), 2)
    whole = finished(outpaint(PIXELS, picture, margins, LEVELS, noise), HOW, noise)
    parts = finished(outpaint(tiled, picture, margins, LEVELS, noise), HOW, noise)
    assert torch.allclose(whole, parts, atol=1e-4)
    assert torch.equal(parts[:, :, :8, 4:12], picture)


def test_a_feather_reaches_into_the_picture() -> None:
    noise, picture = Noise((5,)), Noise((3,)).normal((1, 8, 8), "picture")
    x = finished(outpaint(PIXELS, picture, Margins(right=8), LEVELS, noise, feather=3, times=1), HOW, noise)
    assert torch.equal(x[..., :5], picture[..., :5])
    assert not bool((x[..., 5:8] == picture[..., 5:8]).any())
