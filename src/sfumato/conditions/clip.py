"""Pairs of an image tower and a text tower, opened from a folder: our small CLIP or a pretrained one.

FOLDER/clip.json            settings of both towers, and how well they found each other
FOLDER/model.safetensors    their weights
FOLDER/tokenizer/           how captions become tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.conditions.foreign import LOCAL, WEIGHTS, check_whole, transformers_for
from sfumato.conditions.tokens import Tokenizer, load_tokenizer, sound
from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import inside, read_json, read_tensors, write_folder, write_json, write_tensors
from sfumato.files.fitting import unfit
from sfumato.networks import settings
from sfumato.networks.classifier import ClassifierConfig
from sfumato.networks.clip import Clip, ClipConfig
from sfumato.networks.text import TextConfig

CARD, TENSORS, WORDS = "clip.json", "model.safetensors", "tokenizer"
FORMAT = 1
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, from 0 to 1 (Radford et al. 2021, the published code)."""
Three = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class SmallClip:
    """Our own pair: pictures in [-1, 1] and captions -> points of length 1."""

    network: Clip
    tokenizer: Tokenizer
    about: Mapping[str, Any]
    """What training said of it: steps, recall on held-out pictures, the data's fingerprint."""

    @property
    def noisy(self) -> bool:
        """Whether it also judges noisy pictures, told how noisy they are."""
        return self.network.config.image.told

    @property
    def factor(self) -> float:
        """What cosines are multiplied by to be log-probabilities."""
        return float(self.network.factor.detach())

    @property
    def recalled(self) -> str:
        """How well held-out pictures found their captions, in words."""
        match self.about.get("recall"):
            case {"first": float(first), "fifth": float(fifth), "pictures": int(n), "captions": int(k)}:
                chance = 1 / max(1, k)
                return (
                    f"of {n} held-out pictures {first:.1%} are nearest to their own caption among {k} "
                    f"(chance {chance:.1%}), {fifth:.1%} have it among the five nearest"
                )
            case _:
                return "no picture was held out to measure it"

    def see(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, D) of pictures (B, C, H, W); of another size they are resized, unless they are noisy."""
        return F.normalize(self.features(pictures, label), dim=1)

    def features(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """The same before it is brought to length 1."""
        config = self.network.config.image
        if pictures.shape[1] != config.in_channels:
            raise SettingsError(
                f"this CLIP sees pictures of {config.in_channels} channels, not {pictures.shape[1]}: train "
                "one on the same pictures as the model"
            )
        size = config.image_size or (0, 0)
        if tuple(pictures.shape[2:]) != size:
            if label is not None and bool((label != 0).any()):
                raise SettingsError(
                    f"this CLIP sees noisy pictures of {size[1]} x {size[0]} alone, not of "
                    f"{pictures.shape[3]} x {pictures.shape[2]}: train one on the model's size"
                )
            pictures = resized(pictures, (size[0], size[1]))
        return self.network.image(pictures, label if self.noisy else None)

    def read(self, texts: Sequence[str]) -> Tensor:
        """(B, D) of captions."""
        device = self.network.logit_scale.device
        return self.network.read(self.tokenizer.rows(texts).to(device))


class FrozenClip:
    """A pretrained CLIPModel of transformers, from a local folder: the same two questions.

    Pictures in [-1, 1], grey, colour or with transparency (taken on white), of any size: they are resized and
    brought to CLIP's mean and deviation by operations that have a gradient. Raises SettingsError where
    transformers is not installed, ModelFileError for a folder that is no CLIP.
    """

    noisy = False

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        folder = Path(folder)
        with transformers_for(folder) as transformers:
            model, told = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32, **WEIGHTS)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
        check_whole(folder, told)
        self._model: Any = model.to(device).eval().requires_grad_(False)
        self.side = int(model.config.vision_config.image_size)
        self._mean, self._std = moments(folder)

    @property
    def factor(self) -> float:
        """What cosines are multiplied by to be log-probabilities."""
        return float(self._model.logit_scale.exp())

    @property
    def network(self) -> nn.Module:
        """Both towers."""
        return self._model

    @property
    def width(self) -> int:
        """D, the numbers of one point."""
        return int(self._model.config.projection_dim)

    def see(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, D) of pictures (B, C, H, W); noisy ones (a label other than 0) are refused."""
        if label is not None and bool((label != 0).any()):
            raise SettingsError("a pretrained CLIP sees clean pictures alone: let it look at x0")
        return F.normalize(self.features(pictures), dim=1)

    def features(self, pictures: Tensor) -> Tensor:
        """The same before it is brought to length 1."""
        seen, shape = resized(on_white(pictures), (self.side, self.side)) / 2 + 0.5, (1, 3, 1, 1)
        seen = (seen - seen.new_tensor(self._mean).view(shape)) / seen.new_tensor(self._std).view(shape)
        return self._model.get_image_features(pixel_values=seen).pooler_output

    def read(self, texts: Sequence[str]) -> Tensor:
        """(B, D) of captions."""
        length = int(self._model.config.text_config.max_position_embeddings)
        told = self._tokenizer(
            [sound(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        device = self._model.logit_scale.device
        ids, mask = told["input_ids"].to(device), told["attention_mask"].to(device)
        features = self._model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(features, dim=1)


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) at another size, by a bicubic that averages where it shrinks."""
    if tuple(pictures.shape[2:]) == size:
        return pictures
    return F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)


def on_white(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] of 1, 3 or 4 channels as red, green and blue."""
    channels = pictures.shape[1]
    if channels == 4:
        alpha = pictures[:, 3:] / 2 + 0.5
        return pictures[:, :3] * alpha + (1 - alpha)
    if channels not in (1, 3):
        raise SettingsError(f"pictures of {channels} channels are neither grey nor colour")
    return pictures.expand(-1, 3, -1, -1)


def moments(folder: Path, mean: Three = MEAN, std: Three = STD) -> tuple[Three, Three]:
    """The mean and deviation that a folder's pictures are brought to; these where it does not say."""
    if not (folder / "preprocessor_config.json").exists():
        return mean, std
    said = read_json(inside(folder, "preprocessor_config.json"))
    found = said if isinstance(said, dict) else {}
    means, stds = found.get("image_mean", list(mean)), found.get("image_std", list(std))
    for three in (means, stds):
        if (
            not isinstance(three, list)
            or len(three) != 3
            or not all(isinstance(v, int | float) for v in three)
        ):
            raise ModelFileError(f"{folder}/preprocessor_config.json: no three means and deviations")
    if min(stds) <= 0:
        raise ModelFileError(f"{folder}/preprocessor_config.json: a deviation must be above 0")
    (a, b, c), (d, e, f) = means, stds
    return (float(a), float(b), float(c)), (float(d), float(e), float(f))


def save_clip(folder: Path, pair: SmallClip) -> None:
    """Writes the folder, whole or not at all. Raises RunError if the name is taken or the disk refuses."""
    config = pair.network.config
    card = {"text": config.text.to_json(), "image": settings.to_json(config.image), "about": dict(pair.about)}

    def write(place: Path) -> None:
        write_json(place / CARD, {"format": FORMAT, **card})
        write_tensors(place / TENSORS, pair.network.state_dict())
        pair.tokenizer.save(place / WORDS)

    write_folder(folder, write)


def open_clip(folder: Path | str, device: torch.device | str = "cpu") -> SmallClip | FrozenClip:
    """The pair in a folder that `sfumato train-clip` or transformers wrote, frozen. Raises ModelFileError."""
    folder = Path(folder)
    if not (folder / CARD).exists():
        if (folder / "config.json").exists():
            return FrozenClip(folder, device)
        raise ModelFileError(
            f"{folder}: no CLIP here (there is no {CARD}): give what sfumato train-clip wrote, or a "
            "CLIPModel of transformers"
        )
    path = inside(folder, CARD)
    card = read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelFileError(f"{path}: not of format version {FORMAT}: open it with what wrote it")
    text, image, about = (card.get(part) for part in ("text", "image", "about"))
    if not isinstance(text, dict) or not isinstance(image, dict):
        raise ModelFileError(f"{path}: lacks the settings of a tower: use another copy")
    try:
        config = ClipConfig(TextConfig.from_json(text), settings.from_json(ClassifierConfig, image))
    except SettingsError as error:
        raise ModelFileError(f"{path}: {str(error).rstrip('.')}: use another copy") from None
    tokenizer = load_tokenizer(inside(folder, WORDS))
    if len(tokenizer) != config.text.vocabulary or tokenizer.end_number != config.text.end:
        raise ModelFileError(f"{folder}: its tokenizer is not that of its text tower: use another copy")
    network = _filled(config, inside(folder, TENSORS)).to(device)
    return SmallClip(network, tokenizer, about if isinstance(about, dict) else {})


def _filled(config: ClipConfig, path: Path) -> Clip:
    """The pair with the weights of a file; nothing is allocated before names and shapes agree."""
    tensors, _ = read_tensors(path)
    with torch.device("meta"):
        network = Clip(config)
    reason = unfit(network.state_dict(), tensors)
    if reason is not None:
        raise ModelFileError(f"{path}: {reason}: use another copy")
    network = network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
