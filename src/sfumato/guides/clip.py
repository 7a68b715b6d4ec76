"""CLIP guidance as part of a recipe: which pair pulls, towards which captions, and how strongly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato.conditions.clip import FrozenClip, SmallClip, open_clip
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.files.manifest import hash_file
from sfumato.guidance.clip import clip_guided
from sfumato.guidance.scales import between
from sfumato.guides.opened import kept, unchanged


@dataclass(frozen=True)
class Pull:
    """A pair of towers by its folder and the hash of its weights, and a caption for each picture of the
    recipe; an empty one pulls nowhere. `scale` 1 is Bayes' rule, as far as the pair is right. `cutouts` is
    the number of crops of the guess that are looked at beside the whole."""

    folder: Path
    sha256: str
    texts: tuple[str, ...]
    scale: float
    cutouts: int = 0
    through: bool = True
    """Whether the guess is looked at, with a gradient through the model, or the noisy picture."""

    def take(self, rows: Sequence[int]) -> Pull:
        """That of some of the pictures."""
        return replace(self, texts=tuple(self.texts[row] for row in rows))

    def on(
        self, denoise: Denoiser, device: torch.device, interval: tuple[float, float] | None = None
    ) -> Denoiser:
        """The denoiser, pulled, on this interval of sigma/alpha. Raises ModelFileError where the pair is
        gone, RunError where it is another."""
        pair, found = opened(self.folder, device)
        unchanged(self.folder, "CLIP", found, self.sha256)
        scale = self.scale if interval is None else between(self.scale, *interval, outside=0.0)
        return clip_guided(denoise, pair, self.texts, scale, through=self.through, cutouts=self.cutouts)


def pull(
    folder: Path | str,
    texts: Sequence[str | None],
    scale: float | int,
    shape: tuple[int, int, int],
    cutouts: int = 0,
) -> Pull:
    """CLIP guidance of pictures (C, H, W) by the pair in a folder, judged before anything is drawn.

    A pair that knows noise looks at the noisy pictures if they have its size and no cutouts are asked for.
    Raises SettingsError for a scale that is not finite, for no caption at all, and for a pair that sees
    pictures of other channels; ModelFileError for a folder that is no CLIP.
    """
    if not math.isfinite(scale):
        raise SettingsError(f"--clip-guidance {scale}: give a finite number (0 is none)")
    if not any(text and text.strip() for text in texts):
        raise SettingsError("guidance by a CLIP needs a caption to pull towards: give a --prompt")
    if not 0 <= cutouts <= 64:
        raise SettingsError(f"--cutouts {cutouts}: give a whole number from 0 to 64")
    pair, sha256 = opened(Path(folder), torch.device("cpu"))
    through = True
    if isinstance(pair, SmallClip):
        config = pair.network.config.image
        if config.in_channels != shape[0]:
            raise SettingsError(
                f"{folder}: this CLIP sees {config.in_channels} channels and the model draws {shape[0]}"
            )
        through = cutouts > 0 or not pair.noisy or config.image_size != shape[1:]
    said = tuple(text or "" for text in texts)
    return Pull(Path(folder), sha256, said, float(scale), cutouts, through)


@kept("*.safetensors")
def opened(folder: Path, device: torch.device) -> tuple[SmallClip | FrozenClip, str]:
    """The pair in a folder and the hash of its weights. Raises ModelFileError."""
    pair = open_clip(folder, device)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {hash_file(path)[0]}\n".encode())
    return pair, digest.hexdigest()
