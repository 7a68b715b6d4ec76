"""Inversion: the way down lands where the way up came from, on mixtures and, in closed form, on Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mathematics.oracles import MIXTURE, exact, f64
from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.invert import Refine, back, change, check_plain, invert, mixed, regenerate
from sfumato.editing.job import finished
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, Levels
from sfumato.noise import Noise
from sfumato.plans import Grid
from sfumato.predictions import Estimate
from sfumato.samplers import sampler
from sfumato.schedules import VE, Cosine, RectifiedFlow, Schedule
from sfumato.solvers.moves import Move
from sfumato.tables import Table


@dataclass(frozen=True)
class Told:
    """A denoiser by its function."""

    ask: Callable[..., Estimate]

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        return self.ask(x, level, seen)

    def take(self, rows: Sequence[int]) -> Told:
        return self

    def check(self, level: Level) -> None:
        return None


SEEDS = Noise(tuple(range(16)))


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


WAYS: dict[str, tuple[Schedule, Grid]] = {
    "linear": (Table.linear(), plans.trailing),
    "linear, karras": (Table.linear(), plans.karras),
    "zero snr": (Table.linear().zero_terminal_snr(), plans.trailing),
    "cosine, bounded": (Cosine(), plans.bounded),
    "flow": (RectifiedFlow(), plans.trailing),
    "ve": (VE(), plans.karras),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_round_trip_is_exact_in_fifty_steps(way: str) -> None:
    """The bar is 1e-4; plain inversion, one look a move, is off by hundredths."""
    schedule, grid = WAYS[way]
    denoise, picture, levels = exact(MIXTURE), MIXTURE.sample(SEEDS), grid(schedule, 50)
    found = invert(denoise, picture, levels)
    assert apart(regenerate(denoise, found.x, levels), picture) < 1e-4
    assert found.misses.shape == (len(levels) - 1, len(picture))
    assert float(found.misses.max()) <= 1e-6
    assert found.looks < 8 * len(levels)
    plain = invert(denoise, picture, levels, Refine(looks=1))
    assert plain.looks == len(levels) - 1
    assert apart(regenerate(denoise, plain.x, levels), picture) > 1e-2


def test_pictures_in_float32_come_back_too() -> None:
    denoise, levels = exact(MIXTURE), plans.trailing(Table.linear(), 50)
    picture = MIXTURE.sample(SEEDS).float()
    found = invert(denoise, picture, levels)
    assert found.x.dtype == torch.float32
    assert apart(regenerate(denoise, found.x, levels), picture) < 1e-4


def down(mean: float, std: float, levels: Levels) -> tuple[float, float]:
    """Gain and offset of DDIM's whole way down on N(mean, std^2): x' = gain x + offset, move by move."""
    gain, offset = 1.0, 0.0
    for i in range(len(levels) - 1):
        (a, s), (b, t) = ((float(v.alpha), float(v.sigma)) for v in (levels[i], levels[i + 1]))
        k = a * std**2 / (a**2 * std**2 + s**2)
        x0_gain, x0_offset = k, mean * (1 - k * a)
        eps_gain, eps_offset = (1 - a * x0_gain) / s, -a * x0_offset / s
        step, shift = b * x0_gain + t * eps_gain, b * x0_offset + t * eps_offset
        gain, offset = step * gain, step * offset + shift
    return gain, offset


def gaussian(mean: float, std: float) -> Exact:
    return exact(Mixture.gaussian([mean], [std]))


def test_the_noise_of_a_gaussian_is_the_closed_form() -> None:
    levels = plans.trailing(Table.cosine(), 20)
    picture = 0.3 + 0.5 * SEEDS.normal((1,), "picture").double()
    gain, offset = down(0.3, 0.5, levels)
    found = invert(gaussian(0.3, 0.5), picture, levels, Refine(tolerance=1e-10))
    assert torch.allclose(found.x, (picture - offset) / gain, atol=1e-7)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_another_condition_carries_a_picture_to_its_counterpart(strength: float) -> None:
    """From one Gaussian to another: up by the inverse of the first's map, down by the second's."""
    levels = plans.trailing(Table.cosine(), 20)
    part = levels.cut(10, 21) if strength == 0.5 else levels
    picture = 0.3 + 0.5 * SEEDS.normal((1,), "picture").double()
    job = change(gaussian(0.3, 0.5), gaussian(-0.4, 0.2), picture, levels, strength, Refine(1e-10))
    (up, up_offset), (gain, offset) = down(0.3, 0.5, part), down(-0.4, 0.2, part)
    want = gain * (picture - up_offset) / up + offset
    assert torch.allclose(finished(job, sampler("ddim"), SEEDS), want, atol=1e-7)


def test_a_model_that_is_shown_its_last_guess_is_inverted_without_it() -> None:
    """Going down it would be told what nobody knows going up."""

    def guessing(x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        e = inner(x, level)
        return e if seen is None else e.but(x0=0.8 * e.x0 + 0.2 * seen.x0)

    inner, levels, picture = exact(MIXTURE), plans.trailing(Table.cosine(), 20), MIXTURE.sample(SEEDS)
    told = Told(guessing)
    assert apart(finished(change(told, told, picture, levels), sampler("ddim"), SEEDS), picture) < 1e-4


def test_a_row_comes_out_the_same_alone_and_in_a_batch() -> None:
    denoise, picture = exact(MIXTURE), MIXTURE.sample(SEEDS)
    levels = plans.trailing(Table.linear(), 20)
    together = invert(denoise, picture, levels).x
    alone = torch.cat([invert(denoise, row[None], levels).x for row in picture[:3]])
    assert apart(together[:3], alone) < 1e-3  # the miss of 1e-6, times what the way up makes of it


def test_a_picture_that_the_model_cannot_make_is_said_to_be_missed() -> None:
    """Data without any spread in its second number: no noise makes another value of it."""
    line = exact(Mixture(f64(1.0), f64(0.0, 0.5)[None], f64(0.6, 0.0)[None]))
    picture = torch.stack([f64(0.2, 0.5), f64(0.2, 0.9)])
    found = invert(line, picture, plans.trailing(Table.cosine(), 10))
    assert bool(found.x.isfinite().all())
    possible, not_possible = found.misses.max(0).values.tolist()
    assert possible < 1e-6
    assert not_possible == pytest.approx(0.4 / 2**0.5, rel=1e-3)


def test_anderson_solves_linear_equations_in_as_many_looks_as_unknowns() -> None:
    """x + gap(x) with gap(x) = b - A x: two unknowns, so the fourth place is the solution."""
    matrix, right = torch.tensor([[0.9, 0.4], [0.1, 1.7]]).double(), f64(1.0, -2.0)
    xs, gaps = [torch.zeros(1, 2).double()], [right[None]]
    for _ in range(3):
        xs.append(mixed(xs, gaps))
        gaps.append(right - xs[-1] @ matrix.T)
    assert torch.allclose(xs[-1][0], torch.linalg.solve(matrix, right), atol=1e-6)


def test_what_cannot_be_undone_is_refused() -> None:
    denoise, picture = exact(MIXTURE), MIXTURE.sample(SEEDS)
    with pytest.raises(SettingsError, match="two steps"):
        invert(denoise, picture, Levels.of(Level.of(0.0, 1.0), CLEAN))
    with pytest.raises(SettingsError, match="forgets"):
        list(back(denoise, picture, [Move(CLEAN, Level.of(0.6, 0.8), renoise=True)]))
    for settings in ({"tolerance": 0.0}, {"tolerance": 1.5}, {"looks": 0}, {"memory": -1}):
        with pytest.raises(SettingsError, match="looks"):
            Refine(**settings)


def test_only_plain_moves_are_inverted() -> None:
    for name in ("ddim", "ddim-karras", "euler"):
        check_plain(sampler(name))
    for how in (sampler("vab"), sampler("heun"), sampler("ddpm"), sampler("ddim", eta=0.5)):
        with pytest.raises(SettingsError, match="ddim"):
            check_plain(how)
