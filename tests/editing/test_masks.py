"""Masks: how far they reach, how softly, and the box around them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.editing.masks import feathered, grown, window
from sfumato.editing.outpaint import Margins
from sfumato.errors import SettingsError


def dot(height: int = 9, width: int = 11) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[4, 5] = 1
    return mask


def distance(height: int = 9, width: int = 11) -> torch.Tensor:
    """From the dot, as a chess king walks."""
    rows, columns = torch.arange(height) - 4, torch.arange(width) - 5
    return torch.maximum(rows.abs()[:, None], columns.abs()[None].expand(height, width))


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_a_mask_grows_on_all_sides(pixels: int) -> None:
    assert torch.equal(grown(dot(), pixels), (distance() <= pixels).float())
    many = torch.stack([dot(), torch.zeros(9, 11)])[:, None]
    assert torch.equal(grown(many, pixels)[0, 0], grown(dot(), pixels))
    assert float(grown(many, pixels)[1].max()) == 0


@pytest.mark.parametrize("pixels", [0, 1, 4])
def test_a_feather_falls_evenly_outside_and_leaves_the_inside(pixels: int) -> None:
    truth = (1 - distance() / (pixels + 1)).clamp(min=0)
    assert torch.allclose(feathered(dot(), pixels), truth, atol=1e-6)
    soft = feathered(0.5 * dot(), pixels)
    assert float(soft[4, 5]) == 0.5


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="0 or more"):
        grown(dot(), -1)
    with pytest.raises(SettingsError, match="0 or more"):
        feathered(dot(), -1)


@given(st.integers(8, 60), st.integers(8, 60), st.tuples(st.integers(4, 8), st.integers(4, 8)), st.data())
def test_a_window_holds_the_mask_in_the_models_shape(
    height: int, width: int, size: tuple[int, int], data: st.DataObject
) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    mask = torch.zeros(height, width)
    mask[top:bottom, left:right] = 0.3
    largest = min(height / size[0], width / size[1])
    if int(size[0] * largest) < bottom - top or int(size[1] * largest) < right - left:
        with pytest.raises(SettingsError, match="reaches over"):
            window(mask, size)
        return
    y, x, h, w = window(mask, size)
    assert 0 <= y <= top
    assert bottom <= y + h <= height
    assert 0 <= x <= left
    assert right <= x + w <= width
    assert h >= size[0]
    assert w >= size[1]
    assert abs(h * size[1] - w * size[0]) <= max(size)  # the model's shape, to a pixel


def test_a_picture_smaller_than_the_model_has_no_window() -> None:
    with pytest.raises(SettingsError, match="no room"):
        window(dot(), (12, 8))
    with pytest.raises(SettingsError, match="0 everywhere"):
        window(torch.zeros(9, 11), (4, 4))


def test_margins_carry_the_edges_on() -> None:
    picture = torch.arange(12.0).reshape(1, 3, 4)
    canvas, mask = Margins(left=2, bottom=1).around(picture)
    assert canvas.shape == (1, 4, 6)
    assert torch.equal(canvas[:, :3, 2:], picture)
    assert canvas[0, :, 0].tolist() == [0.0, 4.0, 8.0, 8.0]
    assert torch.equal(mask == 0, torch.nn.functional.pad(torch.ones(3, 4), (2, 0, 0, 1)) > 0)
    for wrong in (Margins(), Margins(left=-1, top=3)):
        with pytest.raises(SettingsError, match="at least one above 0"):
            wrong.around(picture)
