"""The sizes: parameters, shapes that they fit, and the heap."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.networks import SIZES, UNet, parameter_count, preset

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
    rates = [size.learning_rate for size in SIZES.values()]
    assert rates == sorted(rates, reverse=True)


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
