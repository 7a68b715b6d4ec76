"""CLIP and DINOv2 from folders of transformers, against its own preprocessing and models; the CLIP score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato import noise
from sfumato.conditions.clip import SmallClip, open_clip, save_clip
from sfumato.conditions.tokens import train_tokenizer
from sfumato.errors import ModelFileError, SettingsError
from sfumato.evaluation.clip_score import clip_score, clip_scores
from sfumato.evaluation.features.extractor import open_extractor
from sfumato.networks.clip import Clip, clip_config

transformers: Any = pytest.importorskip("transformers")
WORDS = train_tokenizer(["red heart", "a blue car"] * 3, 600, 16)


def clip_folder(folder: Path, processor: bool = True) -> Path:
    """A CLIPModel with random weights and its processor, as transformers writes them."""
    WORDS.save(folder)
    n = len(WORDS)
    text = {"vocab_size": n, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": n - 1}
    text |= {"bos_token_id": n - 2, "pad_token_id": n - 1}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    with noise.seeded("clip"):
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        )
    model.save_pretrained(str(folder))
    if processor:
        side = {"height": 32, "width": 32}
        transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(
            str(folder)
        )
    return folder


def dino_folder(folder: Path) -> Path:
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    with noise.seeded("dino"):
        transformers.Dinov2Model(config).save_pretrained(str(folder))
    side = {"height": 28, "width": 28}
    transformers.BitImageProcessorPil(
        size={"shortest_edge": 36}, crop_size=side, image_mean=[0.4, 0.5, 0.3], image_std=[0.2, 0.3, 0.25]
    ).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dino_folder(tmp_path_factory.mktemp("dino"))


def pictures(height: int, width: int) -> Tensor:
    """(3, 3, height, width) uint8: smooth, so that a place aside is nearly the same."""
    chance = torch.Generator().manual_seed(height)
    coarse = torch.rand(3, 3, 4, 5, generator=chance)
    return (F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def prepared(folder: Path, kind: Any, pixels: Tensor) -> Tensor:
    """By the processor of the folder, from Pillow's pictures."""
    images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
    return kind.from_pretrained(str(folder))(images=images, return_tensors="pt")["pixel_values"]


SIZES = [(32, 32), (20, 20), (90, 64), (48, 131)]
"""Of the network's own, to be enlarged, to be shrunk, and wide: the middle is taken."""


@pytest.mark.parametrize("size", SIZES)
def test_clip_features_are_those_of_transformers(clip: Path, size: tuple[int, int]) -> None:
    pixels = pictures(*size)
    model = transformers.CLIPModel.from_pretrained(str(clip)).eval()
    values = prepared(clip, transformers.CLIPImageProcessorPil, pixels)
    with torch.no_grad():
        wanted = model.get_image_features(pixel_values=values).pooler_output
    extractor = open_extractor("clip", clip)
    seen = extractor(unit(pixels)).pooled
    assert seen.shape == (3, extractor.width)
    assert float((seen - wanted).abs().max()) < 0.01 * float(wanted.std())  # Pillow's 8 bits round by halves
    assert extractor.resize == "bicubic, antialiased, the shorter side to 32, 8 bits"


@pytest.mark.parametrize("size", SIZES)
def test_dino_features_are_those_of_transformers(dino: Path, size: tuple[int, int]) -> None:
    pixels = pictures(*size)
    model = transformers.Dinov2Model.from_pretrained(str(dino)).eval()
    values = prepared(dino, transformers.BitImageProcessorPil, pixels)
    with torch.no_grad():
        wanted = model(pixel_values=values).last_hidden_state[:, 0]
    extractor = open_extractor("dinov2", dino)
    seen = extractor(unit(pixels)).pooled
    assert seen.shape == (3, extractor.width)
    assert float((seen - wanted).abs().max()) < 0.01 * float(wanted.std())
    assert extractor.resize == "bicubic, antialiased, the shorter side to 36, 8 bits, the middle 28 x 28"


def test_without_a_processor_the_networks_own_size_is_taken(clip: Path, tmp_path: Path) -> None:
    bare = open_extractor("clip", clip_folder(tmp_path / "bare", processor=False))
    whole = open_extractor("clip", clip)
    images = unit(pictures(48, 131))
    assert bare.sha256 == whole.sha256
    assert bare.resize == whole.resize
    assert torch.equal(bare(images).pooled, whole(images).pooled)


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 0},
        {"do_center_crop": False},
        {"size": {"height": 32, "width": 64}},
        {"crop_size": 64},
        {"crop_size": 10**6},
    ],
)
def test_a_preparation_that_is_not_followed_is_refused(
    dino: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    for path in dino.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = json.loads((dino / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said | change))
    with pytest.raises(ModelFileError, match="asks for another preparation"):
        open_extractor("dinov2", tmp_path)


@pytest.mark.slow
def test_folders_of_something_else_are_refused(clip: Path, dino: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="of the kind 'clip': give a folder of DINOv2"):
        open_extractor("dinov2", clip)
    with pytest.raises(ModelFileError):
        open_extractor("clip", dino)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ModelFileError, match=r"a pickle .*, which is never opened"):
        open_extractor("dinov2", tmp_path)


# ---- the CLIP score


def cosines(pair: Any, images: Tensor, captions: list[str]) -> np.ndarray:
    """By dot products written out, picture by picture."""
    seen = pair.see(images).double().detach().numpy()
    read = [pair.read([caption])[0].double().detach().numpy() for caption in captions]
    return np.array([float(np.dot(a, b)) for a, b in zip(seen, read, strict=True)])


def small_clip() -> SmallClip:
    with noise.seeded("small"):
        network = Clip(clip_config((1, 16, 16), len(WORDS), 16, WORDS.end_number))
    for part in network.image.modules():  # what begins at zero says nothing
        for parameter in part.parameters(recurse=False):
            if not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.2)
    return SmallClip(network.eval().requires_grad_(False), WORDS, {})


def test_a_small_clip_is_an_extractor_too(tmp_path: Path) -> None:
    pair = small_clip()
    save_clip(tmp_path / "pair", pair)
    extractor = open_extractor("clip", tmp_path / "pair")
    grey = unit(pictures(16, 16)[:, :1])
    seen = extractor(grey).pooled
    assert seen.shape == (3, extractor.width)
    assert torch.allclose(F.normalize(seen, dim=1), pair.see(grey), atol=1e-6)
    with pytest.raises(SettingsError, match="sees pictures of 1 channels"):
        extractor(unit(pictures(16, 16)))


def test_the_clip_score_is_the_cosine_where_it_is_positive(clip: Path, tmp_path: Path) -> None:
    """Hessel et al. (2021), equation 1, with 100 for their 2.5."""
    captions = ["red heart", "a blue car", "red heart"]
    small = small_clip()
    save_clip(tmp_path / "pair", small)
    signs: set[bool] = set()
    for folder, images in (
        (clip, unit(pictures(32, 32))),
        (tmp_path / "pair", unit(pictures(16, 16)[:, :1])),
    ):
        pair = open_clip(folder)
        features = open_extractor("clip", folder)(images).pooled
        for turn in (1, -1):
            found = clip_scores(turn * features, captions, pair)
            wanted = 100 * np.maximum(turn * cosines(pair, images, captions), 0)
            assert np.allclose(found.numpy(), wanted, atol=1e-2)
            signs |= set((wanted > 0).tolist())
            mean = clip_score(turn * features, captions, pair)
            assert mean.value == pytest.approx(wanted.mean(), abs=1e-2)
            assert mean.error == pytest.approx(wanted.std(ddof=1) / 3**0.5, abs=1e-2)
    assert signs == {True, False}


def test_the_clip_score_needs_captions_of_the_same_clip(clip: Path) -> None:
    pair = open_clip(clip)
    features = open_extractor("clip", clip)(unit(pictures(32, 32))).pooled
    with pytest.raises(SettingsError, match="2 captions for 3 pictures"):
        clip_scores(features, ["a", "b"], pair)
    with pytest.raises(SettingsError, match="1 of 3 pictures have no caption"):
        clip_scores(features, ["a", " ", "b"], pair)
    with pytest.raises(SettingsError, match="give both of one CLIP"):
        clip_scores(features[:, :5], ["a", "b", "c"], pair)
