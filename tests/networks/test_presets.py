"""The sizes: parameters, shapes that they fit, and the heap."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.networks import (
    SIZES,
    DiTConfig,
    UNet,
    build,
    learning_rate,
    parameter_count,
    preset,
    transformer_preset,
)
from sfumato.networks.presets import TRANSFORMERS
from sfumato.noise import Noise

MILLIONS = {"tiny": (0.5, 1.5), "small": (2, 4), "base": (8.5, 9.4), "large": (35, 50)}


@pytest.mark.parametrize("size", SIZES)
def test_parameters(size: str) -> None:
    count = parameter_count(preset(size, channels=3, image_size=(32, 32))) / 1e6
    assert MILLIONS[size][0] <= count <= MILLIONS[size][1]


def test_base_is_as_large_as_its_peer() -> None:
    """diffusers' U-Net of the comparison, (64, 128, 128, 128) attention at 16, has 8 952 067 parameters."""
    count = parameter_count(preset("base", channels=3, image_size=(32, 32)))
    assert abs(count / 8_952_067 - 1) <= 0.05


@pytest.mark.parametrize(
    "image_size",
    [
        (28, 28),
        (32, 32),
        (64, 64),
        (8, 8),
        (30, 30),
        (31, 31),
        (20, 44),
        (4, 4),
        (48, 64),
        (1, 1),
        (256, 128),
    ],
)
def test_every_size_of_image_fits(image_size: tuple[int, int]) -> None:
    config = preset("tiny", channels=1, image_size=image_size, classes=3)
    network = UNet(config)
    assert all(side % network.factor == 0 for side in image_size)
    x = torch.zeros(1, 1, *image_size)
    with torch.no_grad():
        assert network(x, torch.zeros(1), classes=torch.tensor([3])).shape == x.shape


def test_digits_are_halved_twice() -> None:
    assert UNet(preset("tiny", channels=1, image_size=(28, 28))).factor == 4


def test_learned_variance_doubles_the_output() -> None:
    assert preset("tiny", channels=3, image_size=(8, 8), learned_variance=True).out_channels == 6


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(SettingsError, match="tiny, small, base, large"):
        preset("huge", channels=3, image_size=(32, 32))
    with pytest.raises(SettingsError, match="positive"):
        preset("tiny", channels=3, image_size=(0, 32))


def test_larger_sizes_learn_more_slowly() -> None:
    for family in (SIZES, TRANSFORMERS):
        rates = [learning_rate(size) for size in family]
        assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("size", TRANSFORMERS)
def test_transformers_are_as_large_as_the_manual_says(size: str) -> None:
    """By the sum of their parts: a block has 19 w^2 + 273 w numbers and a row for each class and for
    none; docs: about 1, 3, 11, 35 million."""
    config = transformer_preset(size, channels=3, image_size=(32, 32), classes=10)
    w, count = config.width, parameter_count(config)
    block = 19 * w**2 + (256 + 17) * w + 11 * w
    ends = (12 * w + w) + (2 * w * w + 2 * w) + (w * 12 + 12)
    assert count == config.layers * block + ends
    said = dict(zip(TRANSFORMERS, (1, 3, 11, 35), strict=True))
    assert 0.7 * said[size] < count / 1e6 < 1.2 * said[size]


@pytest.mark.parametrize(
    ("image_size", "patch"),
    [
        ((8, 8), 2),
        ((28, 28), 2),
        ((32, 32), 2),
        ((64, 64), 4),
        ((256, 256), 16),
        ((128, 32), 4),
        ((100, 100), 4),
        ((7, 8), 1),
    ],
)
def test_patches_grow_with_the_image(image_size: tuple[int, int], patch: int) -> None:
    """The least power of two of at most 256 tokens, as far as it divides the sides."""
    config = transformer_preset("dit-tiny", channels=1, image_size=image_size, learned_variance=True)
    assert (config.patch, config.out_channels) == (patch, 2)
    x = torch.zeros(1, 1, *image_size)
    with torch.no_grad():
        assert build(config)(x, torch.zeros(1)).shape == (1, 2, *image_size)


def test_an_unknown_transformer_is_refused() -> None:
    with pytest.raises(SettingsError, match="dit-tiny, dit-small, dit-base, dit-large"):
        transformer_preset("dit-huge", channels=3, image_size=(32, 32))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_heap_is_kept() -> None:
    """What is freed stays with the process: without this, 80 MB would go back to the system at once."""
    code = """
import runpy, sys
import torch
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
kept = runpy.run_path(sys.argv[1])["keep_heap"]() if sys.argv[2] == "keep" else None
before = resident()
torch.empty(20_000_000).fill_(1)
print(kept, resident() - before)
"""
    import sfumato

    path = f"{sfumato.__path__[0]}/cli/heap.py"
    found: dict[str, list[str]] = {}
    for what in ("keep", "leave"):
        command = [sys.executable, "-c", code, path, what]
        found[what] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if found["keep"][0] == "True":  # by glibc; other C libraries are left alone
        assert int(found["keep"][1]) > 60_000_000
        assert int(found["leave"][1]) < 20_000_000


def test_what_a_preset_is_told_enters_it() -> None:
    """A class by maps or by embedding, attributes, a caption and a picture: the answer follows each."""
    config = preset(
        "tiny",
        channels=1,
        image_size=(8, 8),
        classes=3,
        vector=5,
        context_dim=12,
        picture=2,
        conditioning="scale_shift",
        class_input="concat",
    )
    network = UNet(replace(config, zero_init=False)).eval()
    x = Noise((1, 2)).normal((3, 8, 8))
    told = {
        "classes": torch.tensor([0, 1]),
        "vector": Noise((3, 4)).normal((5,)),
        "context": Noise((5, 6)).normal((7, 12)),
    }
    with torch.no_grad():
        first = network(x, torch.zeros(2), **told)
        for name, value in told.items():
            other = network(x, torch.zeros(2), **{**told, name: value.flip(0)})
            assert float((other - first).abs().max()) > 1e-4, name
        silent = network(x, torch.zeros(2), **{**told, "vector": torch.zeros(2, 5)})
        assert torch.equal(
            network(x, torch.zeros(2), classes=told["classes"], context=told["context"]), silent
        )
    plain = preset("tiny", channels=1, image_size=(8, 8))
    with pytest.raises(SettingsError, match="without attributes"):
        UNet(plain)(x[:, :1], torch.zeros(2), vector=told["vector"])
    with pytest.raises(SettingsError, match=r"\(2, 5\)"):
        network(x, torch.zeros(2), **{**told, "vector": torch.zeros(2, 4)})
    with pytest.raises(SettingsError, match="without attributes"):
        build(DiTConfig(image_size=8, heads=2, head_channels=16, layers=1))(
            torch.zeros(1, 3, 8, 8), torch.zeros(1), vector=torch.zeros(1, 5)
        )
