"""The trajectory sheet, panels of pictures, and schedules as they are seen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora.known import holds, knowing
from sfumato.card import ImageSettings
from sfumato.data.decode import decode
from sfumato.errors import SettingsError
from sfumato.inside.curves import curve, named_schedule, reading, schedule_figure
from sfumato.inside.panel import Row, Scale, heat, panel, shown
from sfumato.inside.sheet import trajectory, write_sheet
from sfumato.level import spread_on
from sfumato.runs import Run
from sfumato.schedules import VE, RectifiedFlow
from sfumato.tables import Table


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm-adaptive"])
def test_moments_add_up_and_end_at_the_picture(pets: Run, sampler: str) -> None:
    """alpha x0 + sigma eps = x at each moment, on the unit circle; the ends of the walk are among them."""
    steps = None if "adaptive" in sampler else 7
    tolerance = 0.5 if steps is None else None
    recipe = pets.recipe(
        2, classes=["cat", "ox"], sampler=sampler, steps=steps, tolerance=tolerance, clip=True
    )
    found = trajectory(pets, recipe, 4)
    assert len(found.moments) == 4
    for m in found.moments[:-1]:  # an adaptive walk ends where no noise is left, and eps is not told
        alpha, sigma = (spread_on(v / m.level.norm, m.x) for v in (m.level.alpha, m.level.sigma))
        torch.testing.assert_close(alpha * m.x0 + sigma * m.eps, m.x, rtol=1e-4, atol=1e-4)
        assert float(m.x0.abs().max()) <= 1 + 1e-3
    angles = [float(m.level.angle.max()) for m in found.moments]
    assert angles == sorted(angles, reverse=True)
    torch.testing.assert_close(found.pictures, pets.make(recipe), rtol=0, atol=1e-4)
    if steps is not None:
        every = trajectory(pets, recipe, 100).moments
        assert [m.step for m in every] == list(range(1, 8))
        assert [m.step for m in found.moments] == [1, 3, 5, 7]


def test_a_long_walk_is_thinned(run: Run) -> None:
    known = knowing(run, lambda x, level: 0 * x)
    found = trajectory(known, known.recipe(1, steps=150), 3)
    assert [m.step for m in found.moments] in ([1, 75, 150], [1, 77, 150], [1, 73, 150])


def test_the_sheet_holds_the_very_pictures(pets: Run, tmp_path: Path) -> None:
    recipe = pets.recipe(3, classes=["cat", "dog", "ox"], steps=4)
    path = write_sheet(pets, recipe, tmp_path / "new" / "sheet.png", 3)
    drawn = decode(path).array[..., :3].astype(int)
    times = 112 // 8
    for picture in trajectory(pets, recipe).pictures:
        cell = np.kron(shown(picture, pets.card.image)[..., 0], np.ones((times, times), int))
        assert holds(drawn[..., 0], cell)
    assert b"trainedAlgorithmicMedia" in path.read_bytes()


def test_an_adaptive_walk_has_a_sheet(pets: Run, tmp_path: Path) -> None:
    known = knowing(pets, lambda x, level, classes: 0 * x)
    recipe = known.recipe(2, classes="dog", sampler="dpm-adaptive")
    assert decode(write_sheet(known, recipe, tmp_path / "sheet.png")).array.shape[0] > 6 * 112


def test_a_sheet_is_a_png_of_at_least_one_moment(pets: Run, tmp_path: Path) -> None:
    for name, moments, words in (("x.gif", 3, "ends in .png"), ("x.png", 0, "--sheet-steps 0")):
        with pytest.raises(SettingsError, match=words):
            write_sheet(pets, pets.recipe(1), tmp_path / name, moments)
    with pytest.raises(SettingsError, match="at least 1"):
        trajectory(pets, pets.recipe(1), 0)


def test_cells_are_enlarged_by_whole_numbers() -> None:
    red, blue = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 201
    rows = [Row([red, None], "$x$", "title", True, ["note", ""], "noted"), Row([None, blue], apart=True)]
    drawn = panel(["a\nb", "c"], rows, "corner", Scale(1.0, "words"))
    times = round(112 / 6)
    for colour in ((200, 0, 0), (0, 0, 201)):
        ys, xs = np.nonzero((drawn == colour).all(2))
        assert (np.ptp(ys) + 1, np.ptp(xs) + 1, len(ys)) == (4 * times, 6 * times, 24 * times**2)
    large = panel([""], [Row([np.full((500, 300, 3), 77, np.uint8)])])
    assert int((large == 77).all(2).sum()) == 224 * 134
    with pytest.raises(SettingsError, match="too large"):
        panel([""], [Row([red])] * 300)


def test_transparency_lies_on_white_and_ranges_are_kept() -> None:
    image = ImageSettings(channels=4, height=1, width=2, low=0.0, high=2.0)
    picture = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]], [[2.0, 0.0]]])
    assert shown(picture, image).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    assert shown(torch.full((1, 1, 1), math.nan), ImageSettings(channels=1, height=1, width=1)).tolist() == [
        [[128, 128, 128]]
    ]
    with pytest.raises(SettingsError, match="5 channels"):
        shown(torch.zeros(5, 1, 1), image)


def test_heat_rises_to_its_end() -> None:
    light = heat(torch.linspace(0, 2, 50)[None], 2.0)[0].astype(int) @ [299, 587, 114]
    assert (np.diff(light) >= 0).all()
    assert heat(torch.tensor([[0.0, 5.0]]), 2.0)[0].tolist() == [[0, 0, 4], [252, 253, 191]]  # magma's ends


def test_quantiles_and_the_signal_left_are_the_schedules() -> None:
    found = curve(RectifiedFlow())
    for share in (0.05, 0.5, 0.9):  # uniform times: t = 1 - share
        assert found.quantile(share) == pytest.approx(2 * math.log(share / (1 - share)), abs=0.15)
    assert found.left == 0
    assert "infinity to -infinity" in reading(found)[0]
    linear = curve(Table.linear())
    betas = np.linspace(1e-4, 0.02, 1000)
    assert linear.left == pytest.approx(math.sqrt(np.prod(1 - betas)), rel=1e-9)
    assert linear.left == pytest.approx(6.35e-3, rel=1e-3)
    assert float(linear.t[0]) == pytest.approx(1 / 1000)
    assert "a share of 0.0683 of the signal is left" in reading(curve(Table.scaled_linear()))[1]
    assert linear.to_json()["log_snr"][0] == pytest.approx(math.log((1 - 1e-4) / 1e-4))
    assert curve(RectifiedFlow()).to_json()["log_snr"] == [None, None]


def test_schedule_figures() -> None:
    for schedule in (RectifiedFlow(), VE(), Table.cosine()):
        found = curve(schedule)
        left, middle, right = schedule_figure(found, "a $name$").axes
        drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in left.lines}
        np.testing.assert_array_equal(drawn["sigma"], found.level.sigma.numpy())
        assert left.get_yscale() == ("log" if isinstance(schedule, VE) else "linear")
        assert middle.get_ylim() == right.get_ylim()


def test_schedules_by_name() -> None:
    assert named_schedule("linear") == Table.linear()
    with pytest.raises(SettingsError, match="there are: cosine, linear"):
        named_schedule("linar")
