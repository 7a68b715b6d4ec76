"""What trained tasks show: hints that are functions of (seed, position), each what it says it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.operators import LUMA
from sfumato.operators import blur as gaussian
from sfumato.training.hints import MOST_NOISE, Deblur, Upscale, blurred, hint, luma, outlines
from sfumato.training.holes import blocks, holes, strokes
from sfumato.training.tasks import TASKS, Hinted, Task, task_named

SHAPE = (3, 16, 24)
EVERY = ",".join(TASKS)


def pictures(rows: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return 2 * Noise(tuple(range(rows))).uniform(shape, "pictures") - 1


@pytest.mark.parametrize("name", [*TASKS, EVERY])
def test_hints_follow_from_seed_and_position(name: str) -> None:
    task = task_named(name, SHAPE)
    assert isinstance(task, Task)
    images, places = pictures(12), range(100, 112)
    whole = task.picture(images, places, 5)
    assert whole.shape == (12, task.channels, *SHAPE[1:])
    assert torch.equal(whole, task.picture(images, places, 5))
    for row in (0, 7, 11):
        alone = task.picture(images[row : row + 1], places[row : row + 1], 5)
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-6)
    if name not in ("colourise", "edges"):  # which draw nothing
        assert not torch.equal(whole, task.picture(images, places, 6))
        assert not torch.equal(whole, task.picture(images, range(200, 212), 5))


def test_names_go_round() -> None:
    task = task_named("upscale, inpaint", SHAPE, factor=2)
    assert task.name == "upscale:2,inpaint"
    assert task_named(task.name, SHAPE) == task
    assert task.labels == ("upscale", "inpaint")
    assert task_named("upscale", SHAPE).name == "upscale:4"
    assert task_named("deblur", SHAPE).labels == ()
    assert task_named("deblur", SHAPE).label(range(3), 1) == ()


def test_several_tasks_take_turns_by_chance_and_are_told() -> None:
    n = 3000
    task = task_named("colourise,edges,deblur", (3, 4, 4))
    labels = task.label(range(n), 9)
    for name in task.labels:
        assert abs(labels.count(name) / n - 1 / 3) < 5 * math.sqrt(2 / 9 / n)
    images, places = pictures(30, (3, 4, 4)), range(30)
    whole = task.picture(images, places, 9)
    for row, name in enumerate(task.label(places, 9)):
        alone = Hinted(((name, dict(task.parts)[name]),), 3)
        if name != "deblur":
            torch.testing.assert_close(
                alone.picture(images[row : row + 1], [row], 9)[0], whole[row], rtol=0, atol=1e-6
            )


def test_an_upscalers_hint_is_the_small_picture_and_its_noise_is_told() -> None:
    images = pictures(4)
    small = avg_pool2d(images, 4)
    told = Upscale(4).of(small, SHAPE[1:])
    right = interpolate(small, SHAPE[1:], mode="bicubic", align_corners=False)
    torch.testing.assert_close(told, hint(right, 1.0))
    flat = torch.full((1, 1, 32, 32), 0.4).expand(2000, -1, -1, -1)
    task = task_named("upscale:2", (1, 32, 32))
    shown = task.picture(flat, range(2000), 3)
    sigma = 1 - shown[:, 1, 0, 0]
    assert float(sigma.min()) >= 0
    assert float(sigma.max()) <= MOST_NOISE
    assert abs(float(sigma.mean()) - MOST_NOISE / 2) < 5 * MOST_NOISE / math.sqrt(12 * 2000)
    middle = shown[:, 0, 16, 16] - (1 - sigma**2).sqrt() * 0.4
    # a bicubic halfway between four by four pixels: the sum of its squared weights
    line = interpolate(torch.eye(16)[None, None], (32, 16), mode="bicubic", align_corners=False)[0, 0, 16]
    weight = float(line.square().sum())
    z = middle / (sigma * weight)
    assert abs(float(z.mean())) < 5 / math.sqrt(2000)
    assert abs(float(z.std()) - 1) < 5 / math.sqrt(4000)


def test_an_inpainters_hint_hides_what_it_does_not_trust() -> None:
    images = pictures(60)
    told = task_named("inpaint", SHAPE).picture(images, range(60), 2)
    known = told[:, 3:]
    assert set(known.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(told[:, :3], images * known)
    hidden = 1 - known.mean((1, 2, 3))
    assert float(hidden.min()) > 0.02
    assert float(hidden.max()) < 0.97


def test_holes_are_blocks_strokes_and_all_but_a_block() -> None:
    n, size = 900, (16, 24)
    noise = Noise(tuple(range(n)))
    block, drawn = blocks(size, noise), holes(size, noise)
    rows, columns = block.any(2).sum(1), block.any(1).sum(1)
    assert torch.equal(block.sum((1, 2)), rows * columns)  # rectangles
    assert (int(rows.min()), int(rows.max())) == (4, 12)
    assert (int(columns.min()), int(columns.max())) == (6, 18)
    of_block, of_rest = (drawn == block).all(-1).all(-1), (drawn == ~block).all(-1).all(-1)
    stroke = (drawn == strokes(size, noise)).all(-1).all(-1)
    for kind in (of_block, of_rest, stroke):
        assert abs(float(kind.float().mean()) - 1 / 3) < 5 * math.sqrt(2 / 9 / n)
    assert bool((of_block | of_rest | stroke).all())


def test_colours_are_hidden_and_outlines_are_edges() -> None:
    images = pictures(2)
    told = task_named("colourise", SHAPE).picture(images, range(2), 0)
    grey = (images * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(told[:, :3], grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(luma(grey), grey)
    step = torch.where(torch.arange(24) < 12, -0.25, 0.75).expand(1, 3, 16, 24)
    lines = outlines(step)
    near = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    near[..., 11:13] = True
    torch.testing.assert_close(lines, torch.where(near, 1.0, -1.0), rtol=0, atol=1e-5)
    ramp = torch.linspace(-1, 1, 24).expand(1, 1, 16, 24)
    torch.testing.assert_close(
        outlines(ramp)[..., 1:-1], torch.full((1, 1, 16, 22), 2 * 4 / 23 - 1), rtol=0, atol=1e-4
    )


def test_a_blur_is_the_operators_but_for_the_edges() -> None:
    images = pictures(2, (3, 32, 32))
    stds = torch.tensor([0.7, 1.6])
    found = blurred(images, stds)
    for i, std in enumerate(stds.tolist()):
        right = gaussian((3, 32, 32), std)(images[i : i + 1])[0]
        torch.testing.assert_close(found[i, :, 10:22, 10:22], right[:, 10:22, 10:22], rtol=0, atol=2e-3)
    torch.testing.assert_close(blurred(images, torch.zeros(2)), images, rtol=0, atol=1e-6)
    told = Deblur()(images, Noise((1, 2)))
    assert torch.equal(told[:, 3:], torch.ones(2, 1, 32, 32))


@pytest.mark.parametrize(
    ("said", "shape", "words"),
    [
        ("paint", SHAPE, "one of upscale"),
        ("inpaint,inpaint", SHAPE, "one of upscale"),
        ("inpaint:3", SHAPE, "one of upscale"),
        ("upscale:5", SHAPE, "divides both sides"),
        ("upscale:1", SHAPE, "divides both sides"),
        ("colourise", (1, 16, 16), "only colour pictures"),
        ("", SHAPE, "one of upscale"),
    ],
)
def test_what_cannot_be_is_refused(said: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        task_named(said, shape)
