"""Tables: processes trained in T discrete steps, as schedules that are exact at their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.schedules import Cosine, Schedule, preserving


@dataclass(frozen=True)
class Table:
    """A process trained in T discrete steps. Node j sits at t = (j + 1) / T and t = 0 is clean; between nodes
    the angle atan2(sigma, alpha) is interpolated, so levels stay on the unit circle. Nodes are met exactly.

    alpha, sigma: T numbers each. Build one with `from_betas`, `from_alpha_bars` or a named one.
    """

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.alpha or len(self.alpha) != len(self.sigma):
            raise SettingsError("a schedule table needs as many sigmas as alphas, and at least one")
        flat = ~(self._angles.diff() > 0)
        if bool(flat.any()):
            raise SettingsError(
                f"a schedule table must grow noisier at each step; step {int(flat.nonzero()[0])} does not"
            )

    @staticmethod
    def from_betas(betas: Sequence[float] | Tensor) -> Table:
        """beta_j in (0, 1]: alpha-bar is the running product of 1 - beta (Ho et al. 2020)."""
        values = torch.as_tensor(betas, dtype=torch.float64)
        if values.ndim != 1 or not bool(((values > 0) & (values <= 1)).all()):
            raise SettingsError("betas must be a list of numbers in (0, 1]")
        return Table._of(preserving(torch.log1p(-values).cumsum(0) / 2))

    @staticmethod
    def from_alpha_bars(alpha_bars: Sequence[float] | Tensor) -> Table:
        """alpha-bar_j in [0, 1), falling: 0 is allowed at the end (zero terminal SNR)."""
        values = torch.as_tensor(alpha_bars, dtype=torch.float64)
        if values.ndim != 1 or not bool(((values >= 0) & (values < 1)).all()):
            raise SettingsError("alpha-bars must be a list of numbers in [0, 1)")
        return Table._of(preserving(values.log() / 2))

    @staticmethod
    def _of(level: Level) -> Table:
        return Table(tuple(level.alpha.tolist()), tuple(level.sigma.tolist()))

    @staticmethod
    def linear(steps: int = 1000, lo: float = 1e-4, hi: float = 0.02) -> Table:
        """Betas linear from lo to hi (Ho et al. 2020), meant for T = 1000: else scale them by 1000/T."""
        return Table.from_betas(torch.linspace(lo, hi, steps, dtype=torch.float64))

    @staticmethod
    def scaled_linear(steps: int = 1000, lo: float = 0.00085, hi: float = 0.012) -> Table:
        """sqrt(beta) linear (Rombach et al. 2022): Stable Diffusion's."""
        return Table.from_betas(torch.linspace(lo**0.5, hi**0.5, steps, dtype=torch.float64) ** 2)

    @staticmethod
    def cosine(steps: int = 1000, s: float = 0.008, largest: float = 0.999) -> Table:
        """Nichol & Dhariwal's cosine table, betas capped at `largest`; 1 keeps the exact zero at its end."""
        curve = Cosine(s).level(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        ratio = (curve.alpha[1:] / curve.alpha[:-1]) ** 2
        return Table.from_betas((1 - ratio).clamp(max=largest))

    @staticmethod
    def constant(beta: float = 0.01, steps: int = 1000) -> Table:
        """The same beta at each step."""
        return Table.from_betas(torch.full((steps,), beta, dtype=torch.float64))

    @staticmethod
    def sampled(schedule: Schedule, steps: int) -> Table:
        """The nodes t = 1/T .. 1 of any variance-preserving curve."""
        level = schedule.level(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
        return Table._of(level.scaled(1 / level.norm))

    def zero_terminal_snr(self) -> Table:
        """Moves and stretches sqrt(alpha-bar) so that it ends at exactly 0 (Lin et al. 2024, algorithm 1)."""
        a = torch.tensor(self.alpha, dtype=torch.float64)
        a = (a - a[-1]) * (a[0] / (a[0] - a[-1])) if len(a) > 1 else torch.zeros_like(a)
        return Table._of(Level(a, ((1 - a) * (1 + a)).sqrt()))

    def shifted(self, b: float) -> Table:
        """Every node's log-SNR moved by 2 log b, as `schedules.Shifted` moves a curve's; b > 0."""
        a, s = (torch.tensor(values, dtype=torch.float64) for values in (self.alpha, self.sigma))
        moved = Level(b * a, s)
        return Table._of(moved.scaled(1 / moved.norm))

    @property
    def steps(self) -> int:
        return len(self.alpha)

    @property
    def alpha_bar(self) -> Tensor:
        """alpha-bar at the nodes, (T,), float64."""
        return torch.tensor(self.alpha, dtype=torch.float64) ** 2

    @property
    def betas(self) -> Tensor:
        """beta_j = 1 - alpha-bar_j / alpha-bar_{j-1}, (T,), float64."""
        alpha_bar = self.alpha_bar
        return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])

    def nodes(self) -> Level:
        """The T levels, as one vector."""
        return Level(self._with_clean.alpha[1:], self._with_clean.sigma[1:])

    @cached_property
    def _with_clean(self) -> Level:
        alpha, sigma = (1.0, *self.alpha), (0.0, *self.sigma)
        return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))

    @cached_property
    def _angles(self) -> Tensor:
        return self._with_clean.angle

    def level(self, t: Tensor) -> Level:
        nodes, angles = self._with_clean, self._angles
        place = _at_whole_numbers(t * self.steps)
        low = place.floor().clamp(0, self.steps - 1).long()
        part = place - low
        gap = angles[low + 1] - angles[low]
        a, b = torch.sin((1 - part) * gap) / torch.sin(gap), torch.sin(part * gap) / torch.sin(gap)
        between = lambda values: a * values[low] + b * values[low + 1]
        return Level(between(nodes.alpha), between(nodes.sigma))

    def time(self, level: Level) -> Tensor:
        angles, angle = self._angles, level.angle
        low = (torch.searchsorted(angles, angle.contiguous(), right=True) - 1).clamp(0, self.steps - 1)
        return _at_whole_numbers(low + (angle - angles[low]) / (angles[low + 1] - angles[low])) / self.steps


def _at_whole_numbers(place: Tensor) -> Tensor:
    """Within rounding of a node is at the node: (j + 1) / T * T must give j + 1."""
    whole = place.round()
    return torch.where((place - whole).abs() < 1e-9 * whole.abs().clamp(min=1), whole, place)
