"""The classifier: the U-Net's own way down, asked at a level or not, and settings that are judged first."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.networks import Classifier, ClassifierConfig, UNet, UNetConfig, from_json, preset, to_json
from sfumato.networks.normalization import norm_silu
from sfumato.noise import Noise, seeded


def small(**changes: Any) -> ClassifierConfig:
    settings: dict[str, Any] = {
        "in_channels": 1,
        "outputs": 5,
        "channels": (8, 16),
        "attention": ("none", "self"),
        "groups": 4,
        "head_channels": 8,
    }
    return ClassifierConfig(**settings | changes)


def filled(config: ClassifierConfig) -> Classifier:
    """A network in which nothing starts at zero."""
    with seeded("classifier"):
        network = Classifier(config).eval()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return network.double()


def pictures(n: int = 4, size: tuple[int, ...] = (8, 8)) -> Tensor:
    return Noise(tuple(range(n))).normal((1, *size), "pictures").double()


def test_it_is_the_way_down_of_the_u_net() -> None:
    """With the U-Net's weights, what reaches the end is what leaves the U-Net's middle."""
    settings: dict[str, Any] = {"channels": (8, 16, 16), "layers": (1, 2, 1), "groups": 4, "head_channels": 8}
    settings |= {"in_channels": 1, "attention": ("none", "self", "none")}
    with seeded("u-net"):
        unet = UNet(UNetConfig(**settings, out_channels=1, conditioning="scale_shift", zero_init=False))
    unet = unet.eval().double()
    network = filled(ClassifierConfig.half(unet.config, in_channels=1, outputs=3))
    own, theirs = network.state_dict(), unet.state_dict()
    shared = {name: tensor for name, tensor in theirs.items() if name in own}
    assert {name for name in own if name not in shared} == {
        "norm_out.weight",
        "norm_out.bias",
        "head.weight",
        "head.bias",
    }
    network.load_state_dict({**own, **shared})
    middle: list[Tensor] = []
    unet.mid_block.resnets[1].register_forward_hook(lambda module, given, out: middle.append(out))
    label = torch.tensor([0.0, 3.0, 500.0, 999.0])
    unet(pictures(), label)
    wanted = norm_silu(middle[0], network.norm_out).mean((2, 3))
    assert torch.allclose(network.features(pictures(), label), wanted, atol=1e-12)
    assert torch.allclose(network(pictures(), label), network.head(wanted), atol=1e-12)


def test_no_label_is_clean() -> None:
    network = filled(small())
    clean = network(pictures())
    assert torch.equal(clean, network(pictures(), torch.zeros(4)))
    assert not torch.allclose(clean, network(pictures(), torch.full((4,), 700.0)), atol=1e-3)


def test_a_picture_is_judged_alone() -> None:
    network, label = filled(small()), torch.tensor([0.0, 10.0, 500.0, 1000.0])
    whole = network(pictures(), label)
    for row in range(4):
        alone = network(pictures()[row : row + 1], label[row : row + 1])
        assert torch.allclose(alone, whole[row : row + 1], atol=1e-12)


@pytest.mark.parametrize(("dims", "size"), [(1, (9,)), (2, (7, 10)), (3, (4, 5, 6))])
def test_any_dimension_and_any_size(dims: int, size: tuple[int, ...]) -> None:
    network = filled(small(dims=dims))
    x = pictures(2, size).requires_grad_()
    out = network(x, torch.tensor([3.0, 900.0]))
    assert out.shape == (2, 5)
    (slope,) = torch.autograd.grad(out[0].sum(), x)
    assert float(slope[1].abs().max()) == 0
    assert bool((slope[0] != 0).all())  # every place has a say


def test_without_levels_it_is_smaller_and_refuses_one() -> None:
    network = filled(small(told=False))
    assert network.time_embedding is None
    count = lambda config: sum(p.numel() for p in Classifier(config).parameters())
    assert count(small(told=False)) < count(small())
    assert network(pictures()).shape == (4, 5)
    with pytest.raises(SettingsError, match="told no noise level"):
        network(pictures(), torch.zeros(4))


def test_a_half_of_each_preset() -> None:
    for size in ("tiny", "small", "base", "large"):
        unet = preset(size, channels=3, image_size=(32, 32))
        half = ClassifierConfig.half(unet, in_channels=3, outputs=7)
        assert (half.channels, half.outputs, half.in_channels) == (unet.channels, 7, 3)
        assert from_json(ClassifierConfig, json.loads(json.dumps(to_json(half)))) == half


def test_it_takes_any_precision() -> None:
    network = filled(small()).float()
    said = network(pictures(), torch.full((4,), 5.0))
    assert said.dtype == torch.float32
    assert torch.allclose(said.double(), filled(small())(pictures(), torch.full((4,), 5.0)), atol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"channels": (9, 16)}, "multiple of the 4 groups"),
    "none": ({"channels": ()}, "number of resolutions"),
    "layers": ({"layers": (1,)}, "2 entries"),
    "no layers": ({"layers": 0}, "layers"),
    "attention": ({"attention": ("self",)}, "2 entries"),
    "cross": ({"attention": ("none", "cross")}, '"none" or "self"'),
    "middle": ({"middle": "cross"}, '"none" or "self"'),
    "heads": ({"head_channels": 6}, "multiple of head_channels"),
    "outputs": ({"outputs": 0}, "outputs"),
    "true": ({"in_channels": True}, "in_channels"),
    "dims": ({"dims": 4}, "dims"),
    "dropout": ({"dropout": 1.0}, "dropout"),
    "time": ({"time_channels": 0}, "time_channels"),
}


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        small(**changes)


def test_settings_of_others_are_refused() -> None:
    with pytest.raises(SettingsError, match="no setting 'colour'"):
        from_json(ClassifierConfig, {"colour": 1})
    with pytest.raises(SettingsError, match="the input must be"):
        filled(small())(torch.zeros(2, 3, 8, 8))
