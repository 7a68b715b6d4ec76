"""Between pictures: great circles through noise, paths and grids of them, and mixtures of two conditions.

Noise of many dimensions lies near a sphere. On a straight line between two draws its length sinks to 0.7 of
what the model was trained on, and pictures there are grey and smooth; along the great circle every point is
as likely as the ends (Shoemake 1985; Song et al. 2021, DDIM, eq. 67).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.errors import SettingsError
from sfumato.guidance.mix import asked, blend
from sfumato.level import Level, Levels, spread_on
from sfumato.plans import descend
from sfumato.predictions import Estimate


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """sin((1 - u) w) / sin w a + sin(u w) / sin w b, with w the angle between a and b: a at u = 0, b at u =
    1.

    a, b: (B, ...), share u: (B,). Ends that point the same way are joined by a straight line. Raises
    SettingsError for opposite ends, between which no way is the shortest.
    """
    flat = lambda value: torch.nn.functional.normalize(value.flatten(1).double(), dim=1)
    cos = (flat(a) * flat(b)).sum(1).clamp(-1, 1)
    angle = cos.acos()
    if bool((cos < -1 + 1e-9).any()):
        raise SettingsError("there is no one way between two noises that are opposite: choose another seed")
    sin, u = angle.sin(), share.to(angle)
    near = sin < 1e-6
    safe = torch.where(near, torch.ones_like(sin), sin)
    to_a = torch.where(near, 1 - u, ((1 - u) * angle).sin() / safe)
    to_b = torch.where(near, u, (u * angle).sin() / safe)
    return spread_on(to_a, a) * a + spread_on(to_b, b) * b


@dataclass(frozen=True)
class Places:
    """Where the pictures of a path stand: picture i at `share[i]` of the way from stop `start[i]` to stop
    `end[i]`."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    share: tuple[float, ...]

    def along(self, stops: Tensor) -> Tensor:
        """The places between the stops (K, ...), by great circles: (len(share), ...)."""
        share = torch.tensor(self.share, dtype=torch.float64)
        return slerp(stops[list(self.start)], stops[list(self.end)], share)


def path(stops: int, pictures: int, closed: bool = False) -> Places:
    """`pictures` places, evenly from the first stop through all to the last; closed: and on towards the
    first, without meeting it twice, so that a film of them runs round.

    Raises SettingsError for fewer than two stops, or fewer pictures than stops.
    """
    if stops < 2 or pictures < stops:
        raise SettingsError(
            f"a path of {pictures} pictures through {stops}: give at least two to go between, and at least "
            "as many pictures as that"
        )
    legs = stops if closed else stops - 1
    at = [legs * i / (pictures if closed else pictures - 1) for i in range(pictures)]
    legs_of = [min(int(place), legs - 1) for place in at]
    return Places(
        tuple(legs_of),
        tuple((leg + 1) % stops for leg in legs_of),
        tuple(place - leg for place, leg in zip(at, legs_of, strict=True)),
    )


def sheet(corners: Tensor, rows: int, columns: int) -> Tensor:
    """A sheet between four corners (4, ...), top left, top right, bottom left, bottom right: (rows * columns,
    ...), row by row. Each row is a great circle between those down the two sides."""
    if len(corners) != 4 or rows < 2 or columns < 2:
        raise SettingsError(
            f"a sheet of {rows} x {columns} between {len(corners)}: give four corners, and at least 2 rows "
            "and 2 columns"
        )
    down = torch.linspace(0, 1, rows, dtype=torch.float64).repeat_interleave(columns)
    across = torch.linspace(0, 1, columns, dtype=torch.float64).repeat(rows)
    n = len(down)
    side = lambda top, bottom: slerp(
        corners[[top]].expand(n, *corners.shape[1:]), corners[[bottom]].expand(n, *corners.shape[1:]), down
    )
    return slerp(side(0, 2), side(1, 3), across)


@dataclass(frozen=True, eq=False)
class Blend:
    """(1 - u) of what one denoiser believes and u of another, u of each row's own: from one condition to
    another.

    The density that it descends is that of one to the power 1 - u times that of the other to the power u, up
    to a factor: what both hold likely.
    """

    one: Denoiser
    other: Denoiser
    share: Tensor
    """u, (B,)."""

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        share = self.share.double()
        parts = [(d, w) for d, w in ((self.one, 1 - share), (self.other, share)) if bool((w != 0).any())]
        told = asked(parts, x, level, seen)
        return replace(Estimate.of(x, level, x0=blend(told)), spread=told[0].spread)

    def take(self, rows: Sequence[int]) -> Blend:
        return Blend(self.one.take(rows), self.other.take(rows), self.share[list(rows)])

    def check(self, level: Level) -> None:
        self.one.check(level)
        self.other.check(level)


def interpolate(denoise: Denoiser, stops: Tensor, places: Places, levels: Levels) -> Job:
    """The pictures at places between stops: noises (K, C, H, W) at the first of the levels, drawn or
    inverted. The denoiser has a row for each place."""
    return Job(denoise, places.along(stops), descend(levels))
