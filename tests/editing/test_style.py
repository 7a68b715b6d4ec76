"""Style: structure kept to the last block, statistics met in every band, and neither outside its steps."""

from __future__ import annotations

import pytest
import torch

from mathematics.oracles import exact
from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.editing.first_steps import FirstSteps
from sfumato.editing.job import Job, finished
from sfumato.editing.style import Statistics, Structured, bands, coarse, restyled
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.samplers import sampler
from sfumato.tables import Table

SHAPE = (2, 8, 8)
LEVELS = plans.trailing(Table.cosine(), 10)
ALL, HALF, NONE = (FirstSteps.of(LEVELS, share) for share in (1, 0.5, 0))
DENOISE = exact(Mixture.gaussian([0.2] * 128, [0.4] * 128))


def drawn(*key: int) -> torch.Tensor:
    return Noise(key).normal(SHAPE, "picture").double()


def made(denoise: Structured | Statistics) -> torch.Tensor:
    x = Noise((5, 6)).normal(SHAPE, "start").double()
    return finished(Job(denoise, x, descend(LEVELS)), sampler("ddim"), Noise((0, 0)))


def test_low_frequencies_are_a_projection() -> None:
    x = drawn(1, 2)
    rough = coarse(x, 4)
    assert torch.allclose(coarse(rough, 4), rough)
    assert torch.allclose(coarse(coarse(x, 2), 4), rough)
    assert torch.allclose(
        rough[:, :, :4, :4], x[:, :, :4, :4].mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)
    )
    with pytest.raises(SettingsError, match="divisor"):
        coarse(x, 3)


def test_structure_is_the_picture_s_and_the_rest_the_model_s() -> None:
    picture = drawn(1)
    kept = made(Structured(DENOISE, picture, 4, ALL))
    free = made(Structured(DENOISE, picture, 4, NONE))
    assert torch.allclose(coarse(kept, 4), coarse(picture, 4).expand(2, -1, -1, -1))
    # the exact denoiser treats every pixel for itself, so the fine parts are what they are without a picture
    assert torch.allclose(kept - coarse(kept, 4), free - coarse(free, 4))
    between = made(Structured(DENOISE, picture, 4, HALF))
    far = lambda x: float((coarse(x, 4) - coarse(picture, 4)).norm())
    assert far(kept) < far(between) < far(free)


def test_bands_add_up_and_do_not_overlap() -> None:
    x = drawn(1, 2)
    parts = bands(x)
    assert len(parts) == 3  # blocks of 1 less 2, 2 less 4, and 4, of which the sides have two
    assert torch.allclose(sum(parts, start=torch.zeros_like(x)), x)
    flat = torch.stack([part.flatten() for part in parts])
    gram = flat @ flat.T
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-9)


def test_statistics_are_the_reference_s_in_every_band() -> None:
    x, reference = drawn(1, 2), 0.3 + 2 * drawn(3)
    styled = restyled(x, reference)
    for own, of in zip(bands(styled), bands(reference), strict=True):
        assert torch.allclose(own.std((2, 3)), of.std((2, 3)).expand(2, -1))
    assert torch.allclose(styled.mean((2, 3)), reference.mean((2, 3)).expand(2, -1))
    assert torch.allclose(restyled(x, x), x)
    assert torch.allclose(
        made(Statistics(DENOISE, reference, 1.0, ALL)).mean((2, 3)), reference.mean((2, 3)).expand(2, -1)
    )
    free = made(Statistics(DENOISE, reference, 1.0, NONE))
    assert torch.allclose(made(Statistics(DENOISE, reference, 0.0, ALL)), free)


def test_rows_are_taken_with_their_pictures() -> None:
    x, level = drawn(7, 8, 9), LEVELS[3]
    for guided in (
        Structured(DENOISE, drawn(1, 2, 3), 2, ALL),
        Structured(DENOISE, drawn(1), 2, ALL),
        Statistics(DENOISE, drawn(1, 2, 3), 0.5, ALL),
    ):
        assert torch.allclose(guided.take([2, 0])(x[[2, 0]], level).x0, guided(x, level).x0[[2, 0]])
