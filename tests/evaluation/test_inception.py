"""Inception as FID has it, on random weights, against torch-fidelity's, torchmetrics' and pytorch-fid's own.

These packages ask for torchvision, which is never installed here: the modules that are compared need none of
it, but for the blocks that pytorch-fid takes over unchanged, and these are torch-fidelity's.
"""

from __future__ import annotations

import importlib
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sfumato.errors import ModelFileError, SettingsError
from sfumato.evaluation.features import inception as ours
from sfumato.evaluation.features.extractor import Extractor, open_extractor
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.frechet import fid, frechet_distance
from sfumato.evaluation.moments import moments
from sfumato.evaluation.sets import of_folder
from sfumato.files.tensors import write_tensors
from sfumato.networks.inception import Inception

PEERS = ("torch_fidelity", "pytorch_fid", "torchmetrics")
HERE = all(find_spec(name) for name in PEERS)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="the peers are not installed: see the Makefile"),
]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random, of a size that keeps numbers alive through 48 layers, with batch norms that do something."""
    torch.manual_seed(0)
    network = Inception()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.8, 1.2)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.8, 1.2)
    return network.state_dict()


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def peers() -> types.SimpleNamespace:
    """The peers' modules without what their packages import beside them."""
    found = find_spec("torch_fidelity")
    assert found is not None
    bare = types.ModuleType("torch_fidelity")
    bare.__path__, bare.__spec__ = list(found.submodule_search_locations or []), found
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", bare)
        theirs: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        metric: Any = importlib.import_module("torchmetrics.image.fid")
        blocks: Any = types.ModuleType("torchvision.models.inception")
        blocks.InceptionA, blocks.InceptionC = theirs.InceptionA, theirs.InceptionC
        blocks.InceptionE = theirs.InceptionE_1
        vision: Any = types.ModuleType("torchvision")
        vision.__version__ = "0.20"
        vision.models = types.SimpleNamespace(inception=blocks, inception_v3=_plain(theirs))
        patch.setitem(sys.modules, "torchvision", vision)
        fid: Any = importlib.import_module("pytorch_fid.inception")
        transforms: Any = types.ModuleType("torchvision.transforms")
        transforms.ToTensor = lambda: lambda image: torch.from_numpy(np.array(image)).movedim(2, 0) / 255
        scipy: Any = types.ModuleType("scipy")
        scipy.linalg = None  # the distance is taken here
        vision.transforms = transforms
        patch.setitem(sys.modules, "torchvision.transforms", transforms)
        patch.setitem(sys.modules, "scipy", scipy)
        patch.delitem(sys.modules, "pytorch_fid.fid_score", raising=False)
        score: Any = importlib.import_module("pytorch_fid.fid_score")
    return types.SimpleNamespace(fidelity=theirs, fid=fid, metric=metric, score=score)


def _plain(theirs: Any) -> Any:
    """torchvision.models.inception_v3: the parts that pytorch-fid does not replace."""

    def make(**said: object) -> nn.Module:
        net: Any = nn.Module()
        net.Conv2d_1a_3x3 = theirs.BasicConv2d(3, 32, kernel_size=3, stride=2)
        net.Conv2d_2a_3x3 = theirs.BasicConv2d(32, 32, kernel_size=3)
        net.Conv2d_2b_3x3 = theirs.BasicConv2d(32, 64, kernel_size=3, padding=1)
        net.Conv2d_3b_1x1 = theirs.BasicConv2d(64, 80, kernel_size=1)
        net.Conv2d_4a_3x3 = theirs.BasicConv2d(80, 192, kernel_size=3)
        net.Mixed_6a, net.Mixed_7a = theirs.InceptionB(288), theirs.InceptionD(768)
        net.fc = nn.Linear(2048, 1008)
        return net

    return make


@pytest.fixture(scope="module")
def bytes_of_pictures() -> Tensor:
    """(6, 3, 40, 56) uint8: smooth ones, larger and smaller contrasts."""
    chance = torch.Generator().manual_seed(1)
    coarse = torch.rand(6, 3, 5, 7, generator=chance)
    fine = nn.functional.interpolate(coarse, (40, 56), mode="bicubic")
    return ((fine + 0.1 * torch.rand(6, 3, 40, 56, generator=chance)).clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def tensorflow(file: Path) -> Extractor:
    return open_extractor("inception-tensorflow", file)


def unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def distance(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of features, as numpy.cov has it, the trace of sqrt(C1 C2) as a sum of singular
    values: the packages find it by a matrix root, in a minute."""
    mean = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    return float(mean + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def close(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference beside the largest value."""
    assert mine.shape == theirs.shape
    assert float(theirs.abs().max()) > 0.1
    return float((mine - theirs).abs().max() / theirs.abs().max())


def test_features_and_logits_are_torch_fidelitys(
    peers: types.SimpleNamespace, file: Path, tensorflow: Extractor, bytes_of_pictures: Tensor
) -> None:
    asked = ["2048", "logits_unbiased"]
    theirs = peers.fidelity.FeatureExtractorInceptionV3("x", asked, feature_extractor_weights_path=str(file))
    spatial: list[Tensor] = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda part, x, y: spatial.append(y))
    with torch.inference_mode():
        pooled, logits = theirs(bytes_of_pictures[:2])
    mine = tensorflow(unit(bytes_of_pictures[:2]))
    assert mine.spatial is not None
    assert mine.logits is not None
    assert close(mine.pooled, pooled) < 1e-4
    assert close(mine.logits, logits) < 1e-4
    assert close(mine.spatial, spatial[0][:, :7].flatten(1)) < 1e-4
    assert mine.spatial.shape[1] == 2023


@pytest.fixture
def pytorch_fid(
    peers: types.SimpleNamespace, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> nn.Module:
    """Its network, with the weights that it would fetch."""
    monkeypatch.setattr(peers.fid, "load_state_dict_from_url", lambda url, progress: weights)
    return peers.fid.InceptionV3([3]).eval()


def test_features_are_pytorch_fids_from_its_published_names_and_its_modules_own(
    pytorch_fid: nn.Module, file: Path, bytes_of_pictures: Tensor, tmp_path: Path
) -> None:
    with torch.inference_mode():
        wanted = pytorch_fid(bytes_of_pictures[:2].float() / 255)[0][:, :, 0, 0]
    mine = open_extractor("inception", file)
    assert close(mine(unit(bytes_of_pictures[:2])).pooled, wanted) < 1e-4
    torch.save({f"inception.{name}": t for name, t in pytorch_fid.state_dict().items()}, tmp_path / "own.pth")
    again = open_extractor("inception", tmp_path / "own.pth")(unit(bytes_of_pictures[:1]))
    assert close(again.pooled, wanted[:1]) < 1e-4
    assert again.logits is None  # its module has no classes


def test_fid_is_that_of_torchmetrics_features(
    peers: types.SimpleNamespace, file: Path, bytes_of_pictures: Tensor
) -> None:
    theirs = peers.metric.FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(file))
    mine = open_extractor("inception-torchmetrics", file)
    halves = bytes_of_pictures[:3], bytes_of_pictures[3:]
    value = frechet_distance(*(moments([mine(unit(half)).pooled]) for half in halves))
    with torch.inference_mode():
        wanted = distance(*(theirs.inception(half).double() for half in halves))
    assert wanted > 1
    assert value == pytest.approx(wanted, rel=1e-3)


def test_fid_of_two_folders_is_that_of_pytorch_fid_on_the_same(
    peers: types.SimpleNamespace,
    pytorch_fid: nn.Module,
    file: Path,
    bytes_of_pictures: Tensor,
    tmp_path: Path,
) -> None:
    """Each package opens the files, PNG and JPEG, and looks at them by itself."""
    mine = open_extractor("inception", file)
    seen: list[Tensor] = []
    own: list[Tensor] = []
    for name, part in (("real", bytes_of_pictures[:3]), ("made", bytes_of_pictures[3:])):
        folder = tmp_path / name
        folder.mkdir()
        for i, one in enumerate(part):
            image = Image.fromarray(one.movedim(0, 2).numpy())
            image.save(folder / (f"{i}.jpg" if i == 1 else f"{i}.png"))
        files = sorted(folder.iterdir())
        seen.append(torch.from_numpy(peers.score.get_activations(files, pytorch_fid, 3, num_workers=0)))
        own.append(features_of(of_folder(folder, cache=tmp_path / "cache"), mine).pooled)
    wanted = distance(*seen)
    assert wanted > 1
    assert fid(*own).value == pytest.approx(wanted, rel=1e-3)


def test_the_clean_protocol_resizes_as_pillow_does_on_unrounded_numbers(bytes_of_pictures: Tensor) -> None:
    for pixels in (bytes_of_pictures, bytes_of_pictures.repeat(1, 1, 12, 9)[:2]):  # enlarged, and shrunk
        mine = ours.clean(unit(pixels)) * 128 + 128
        for picture, seen in zip(pixels, mine, strict=True):
            for plane, found in zip(picture, seen, strict=True):
                image = Image.fromarray(plane.numpy().astype(np.float32))
                wanted = np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
                assert np.abs(found.numpy() - wanted).max() < 1e-2


def test_the_protocols_are_four(bytes_of_pictures: Tensor) -> None:
    """Enlarged, two of them differ by little; shrunk, none is like another."""
    words = {text for text, _ in ours.RESIZES.values()}
    assert len(words) == len(ours.RESIZES) == 4
    for pixels, least in ((bytes_of_pictures, 1e-3), (bytes_of_pictures.repeat(1, 1, 12, 9)[:2], 5e-3)):
        shown = [resize(unit(pixels)) for _, resize in ours.RESIZES.values()]
        for i, one in enumerate(shown):
            assert one.shape[2:] == (299, 299)
            for other in shown[:i]:
                assert float((one - other).abs().mean()) > least


def test_the_hash_is_of_the_weights_and_not_of_the_file(
    weights: dict[str, Tensor], tensorflow: Extractor, tmp_path: Path
) -> None:
    counted = {name: t for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    write_tensors(tmp_path / "converted.safetensors", counted)
    assert open_extractor("inception", tmp_path / "converted.safetensors").sha256 == tensorflow.sha256


def test_weights_are_found_in_the_caches_and_missing_ones_say_where_to_get_them(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "ours"))
    with pytest.raises(SettingsError, match=r"fetch https://.*pth and put it into .*lite0 works without"):
        open_extractor("inception")
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "pt_inception-2015-12-05-6726825d.pth").write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="does not begin with 6726825d"):
        open_extractor("inception")
    (place / "pt_inception-2015-12-05-6726825d.pth").unlink()
    (tmp_path / "ours" / "weights").mkdir(parents=True)
    (tmp_path / "ours" / "weights" / "inception-2015-12-05.safetensors").symlink_to(file)
    assert open_extractor("inception").width == 2048


def test_weights_of_another_network_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    other = dict(weights) | {"fc.weight": torch.zeros(1000, 2048)}  # torchvision's, of ImageNet
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"fc.weight is of shape \(1000, 2048\) and not \(1008, 2048\)"):
        open_extractor("inception", tmp_path / "other.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"Conv2d_1a_3x3\.conv\.weight is missing"):
        open_extractor("inception", tmp_path / "other.pth")
