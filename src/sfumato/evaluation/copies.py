"""How near pictures are to others as pictures: pixel by pixel, mirrored or moved a little all the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.ingest import Progress
from sfumato.errors import SettingsError
from sfumato.evaluation.neighbours import nearest
from sfumato.evaluation.sets import PictureSet

SIDE = 32
"""Larger pictures are compared after averaging areas down to this."""
COPY = 0.01
"""A copy leaves at most this share of the other's variance unexplained."""
_SPARE = 14
_SMALLEST = 8
"""Pictures with a shorter side are not moved."""
_BATCH = 256
_NUMBERS = 1 << 22


@dataclass(frozen=True, eq=False)
class Near:
    """Of n pictures the nearest of others. Distances are root mean squares in grey levels, 0 .. 255.

    distance: to the nearest, (n,); index: which that is, (n,); further: to the k-th nearest, (n,); copy: it
    explains 99 % of the picture, (n,) bool.
    """

    distance: Tensor
    index: Tensor
    further: Tensor
    copy: Tensor


def shrunk(pictures: PictureSet) -> Tensor:
    """The pictures as bytes, (n, C, h, w) uint8, areas averaged so that no side is longer than 32."""
    out: list[Tensor] = []
    for images in pictures.batches(_BATCH):
        height, width = images.shape[2:]
        times = min(1.0, SIDE / max(height, width))
        size = (max(1, round(height * times)), max(1, round(width * times)))
        small = images if times == 1 else F.interpolate(images, size, mode="area")
        out.append(((small.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(out)


def near(pictures: Tensor, others: Tensor, k: int, progress: Progress | None = None) -> Near:
    """The nearest of `others`, (m, C, h, w) uint8, to each of `pictures`, (n, C, h, w) uint8.

    The distance of two pictures is the least over both mirror images and over moves by one pixel, of what
    then lies over the other's inner part. It is exact for the candidates: those nearest at half the size, 14
    more than k of each mirror image, unmoved. Raises SettingsError for pictures of other sizes.
    """
    if pictures.shape[1:] != others.shape[1:]:
        sizes = [f"{s[3]} x {s[2]} with {s[1]} channels" for s in (pictures.shape, others.shape)]
        raise SettingsError(
            f"pictures of {sizes[0]} are not compared pixel by pixel with pictures of {sizes[1]}: bring them "
            "to one size first"
        )
    many = min(k + _SPARE, len(others))
    coarse = _halved(others)
    found = [nearest(_halved(view), coarse, many).indices for view in (pictures, pictures.flip(3))]
    candidates = torch.cat(found, dim=1).sort(1).values
    again = torch.zeros_like(candidates, dtype=torch.bool)
    again[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
    rows = max(1, _NUMBERS // (candidates.shape[1] * others[0].numel()))
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(pictures), rows):
        part = slice(start, start + rows)
        parts.append(_aligned(pictures[part], others[candidates[part]]))
        if progress is not None:
            progress(min(start + rows, len(pictures)), len(pictures))
    distances = torch.cat([distance for distance, _ in parts]).masked_fill(again, torch.inf)
    spread = torch.cat([variance for _, variance in parts])
    distances, order = distances.sort(stable=True, dim=1)
    first = order[:, :1]
    return Near(
        distances[:, 0],
        candidates.gather(1, first)[:, 0],
        distances[:, k - 1],
        distances[:, 0].square() <= COPY * spread.gather(1, first)[:, 0],
    )


def _halved(pictures: Tensor) -> Tensor:
    """(n, C, h, w) as rows at half the size, float32."""
    return torch.cat(
        [F.avg_pool2d(part.float(), 2, ceil_mode=True).flatten(1) for part in pictures.split(_BATCH)]
    )


def _aligned(pictures: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """The distances of pictures (b, C, h, w) to their candidates (b, c, C, h, w), and these's variances, both
    (b, c) float64. All sums are of whole numbers below 2^53, hence exact: a copy is at distance 0."""
    height, width = pictures.shape[2:]
    edge = 1 if min(height, width) >= _SMALLEST else 0
    size = (height - 2 * edge, width - 2 * edge)
    inner = candidates[..., edge : height - edge, edge : width - edge].flatten(2).double()
    views = [F.unfold(view.double(), size) for view in (pictures, pictures.flip(3))]
    windows = torch.cat(views, dim=2)
    squares = inner.square().sum(2)
    both = squares[:, :, None] + windows.square().sum(1)[:, None]
    least = (both - 2 * torch.bmm(inner, windows)).amin(2)
    numbers = inner.shape[2]
    return (least / numbers).sqrt(), squares / numbers - inner.mean(2).square()
