"""Great circles, paths and sheets of noise; mixtures of conditions; noise nearby."""

from __future__ import annotations

import math

import pytest
import torch

from mathematics.oracles import exact
from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.editing.interpolate import Blend, interpolate, path, sheet, slerp
from sfumato.editing.job import finished
from sfumato.editing.variations import near, vary
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.samplers import sampler
from sfumato.tables import Table

DRAWS = Noise((3, 8)).normal((2, 30, 30), "start").double()
A, B = DRAWS[:1], DRAWS[1:]


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = a.flatten(1), b.flatten(1)
    return ((a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)).clamp(-1, 1).acos()


def test_a_great_circle_is_walked_evenly_at_one_radius() -> None:
    a, b = (v / v.norm() for v in (A, B))
    shares = torch.linspace(0, 1, 9).double()
    way = slerp(a.expand(9, -1, -1, -1), b.expand(9, -1, -1, -1), shares)
    assert torch.equal(way[0], a[0])
    assert torch.allclose(way[-1], b[0])
    assert torch.allclose(way.flatten(1).norm(dim=1), torch.ones(9).double())
    assert torch.allclose(angle(way[:-1], way[1:]), (angle(a, b) / 8).expand(8))


def test_a_straight_line_is_taken_where_the_circle_has_no_turn() -> None:
    half = torch.tensor([0.5])
    assert torch.allclose(slerp(A, 3 * A, half), 2 * A)
    with pytest.raises(SettingsError, match="opposite"):
        slerp(A, -A, half)


def test_a_path_meets_its_stops_and_a_closed_one_runs_round() -> None:
    stops = Noise((1, 2, 3)).normal((2, 4, 4), "start").double()
    way = path(3, 9).along(stops)
    assert torch.allclose(way[[0, 4, 8]], stops)
    round_trip = path(3, 9, closed=True)
    assert torch.allclose(round_trip.along(stops)[[0, 3, 6]], stops)
    assert round_trip.end[-1] == 0
    assert round_trip.share[-1] == pytest.approx(2 / 3)
    for stops_, pictures in ((1, 4), (4, 3)):
        with pytest.raises(SettingsError, match="path"):
            path(stops_, pictures)


def test_a_sheet_has_its_corners_and_circles_for_sides() -> None:
    corners = Noise((1, 2, 3, 4)).normal((1, 6, 6), "start").double()
    made = sheet(corners, 3, 5).reshape(3, 5, 1, 6, 6)
    assert torch.allclose(made[[0, 0, 2, 2], [0, 4, 0, 4]], corners)
    half = torch.tensor([0.5])
    assert torch.allclose(made[1, 0], slerp(corners[[0]], corners[[2]], half)[0])
    assert torch.allclose(made[0, 2], slerp(corners[[0]], corners[[1]], half)[0])
    with pytest.raises(SettingsError, match="four corners"):
        sheet(corners[:3], 3, 3)


def test_between_two_conditions_of_one_spread_lies_the_gaussian_between() -> None:
    one, other = (exact(Mixture.gaussian([m, 2 * m], [0.3, 0.5])) for m in (-0.5, 0.9))
    level, x = Level.of(0.6, 0.8), Noise((0, 1, 2)).normal((2,), "x").double()
    share = torch.tensor([0.0, 0.25, 1.0])
    blend = Blend(one, other, share)
    for row, u in enumerate(share.tolist()):
        mean = (1 - u) * -0.5 + u * 0.9
        want = exact(Mixture.gaussian([mean, 2 * mean], [0.3, 0.5]))(x[[row]], level).x0
        assert torch.allclose(blend(x, level).x0[[row]], want)
        assert torch.allclose(blend.take([row])(x[[row]], level).x0, want)


def test_the_ends_of_a_way_are_the_pictures_of_its_stops() -> None:
    denoise, how = exact(Mixture.gaussian([0.1] * 4, [0.5, 0.4, 0.3, 0.2])), sampler("ddim")
    levels, stops = plans.trailing(Table.cosine(), 10), Noise((3, 8)).normal((1, 2, 2), "start")
    noise = Noise((0,) * 5)
    made = finished(interpolate(denoise, stops, path(2, 5), levels), how, noise)
    ends = finished(interpolate(denoise, stops, path(2, 2), levels), how, Noise((0, 0)))
    assert torch.allclose(made[[0, 4]], ends)


def test_noise_turned_by_an_angle_stays_normal_and_is_that_far() -> None:
    noise, n = Noise((5, 6)), 100_000
    x = Noise((1,)).normal((n,), "start")
    assert torch.equal(near(x, noise, 0.0), x.expand(2, n))
    for turn in (0.3, 1.0, math.pi / 2):
        turned = near(x, noise, turn)
        assert float(turned.var()) == pytest.approx(1, abs=4 * (2 / (2 * n)) ** 0.5)
        assert float((turned * x).mean()) == pytest.approx(math.cos(turn), abs=4 * (2 / n) ** 0.5)
    for turn in (-0.1, 1.6):
        with pytest.raises(SettingsError, match="angle"):
            near(x, noise, turn)


def test_variations_start_from_noise_of_their_levels_scale() -> None:
    """The same pictures whatever the curve's scale: x at a level of norm 5 is turned as at norm 1."""
    levels = plans.trailing(Table.cosine(), 10)
    x, noise, denoise = (
        Noise((1,)).normal((1, 2, 2), "start"),
        Noise((5, 6)),
        exact(Mixture.gaussian([0.0] * 4, [0.5] * 4)),
    )
    small = vary(denoise, x, levels, noise, 0.4)
    scaled = type(levels)(5 * levels.alpha, 5 * levels.sigma)
    assert torch.allclose(vary(denoise, 5 * x, scaled, noise, 0.4).x, 5 * small.x)
