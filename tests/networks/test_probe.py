"""Probes: seen in order, by their own thread alone, and without a trace where they change nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from sfumato.networks import DiTConfig, UNetConfig, build
from sfumato.networks import unet as unet_file
from sfumato.networks.probe import PLACES, probed, probing, watched
from sfumato.noise import Noise, seeded

UNET = UNetConfig(
    in_channels=1,
    out_channels=1,
    channels=(8, 16),
    layers=1,
    groups=4,
    head_channels=8,
    attention=("self", "cross"),
    middle="cross",
    context_dim=6,
    zero_init=False,
)
DIT = DiTConfig(
    in_channels=1, out_channels=1, image_size=8, heads=2, head_channels=8, layers=4, zero_init=False
)


@dataclass(frozen=True)
class Watch:
    """Keeps the places that it sees, and adds a pattern to what is there."""

    places: tuple[str, ...] = PLACES
    added: float = 0.0
    seen: list[tuple[str, tuple[int, ...]]] = field(default_factory=list[tuple[str, tuple[int, ...]]])

    def __call__(self, place: str, value: Tensor) -> Tensor:
        self.seen.append((place, tuple(value.shape)))
        return (
            value + self.added * torch.arange(value.numel()).sin().reshape(value.shape)
            if self.added
            else value
        )


def asked(network: nn.Module, rows: int = 3) -> Tensor:
    x = Noise(tuple(range(rows))).normal((1, 8, 8), "x")
    more = (
        {"context": Noise(tuple(range(rows))).normal((5, 6), "c")} if "cross" in str(network.config) else {}
    )
    with torch.no_grad():
        return network(x, torch.full((rows,), 40.0), **more)


@pytest.fixture(scope="module", params=[UNET, DIT], ids=["unet", "dit"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    with seeded("probe"):
        return build(request.param).eval()


def test_a_probe_that_changes_nothing_leaves_no_trace(network: nn.Module) -> None:
    plain, watch = asked(network), Watch()
    with probing(watch):
        assert torch.allclose(asked(network), plain, atol=1e-5)
    assert not watched()
    assert torch.equal(asked(network), plain)
    places = [place for place, _ in watch.seen]
    assert places.count("bottleneck") == 1
    middle = places.index("bottleneck")
    assert places[:middle].count("self") >= 1 <= places[middle:].count("self")


def test_what_a_probe_gives_is_what_the_network_goes_on_with(network: nn.Module) -> None:
    plain = asked(network)
    with probing(Watch(("bottleneck",), 1.0)):
        once = asked(network)
        with probing(Watch(("bottleneck",), -1.0)):  # after the outer one
            assert torch.allclose(asked(network), plain, atol=1e-4)
    assert float((once - plain).abs().max()) > 1e-3


def test_maps_add_up_to_one_over_what_is_looked_at() -> None:
    with seeded("probe"):
        network = build(UNET).eval()
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Keep:
        places: tuple[str, ...] = ("cross", "self")

        def __call__(self, place: str, value: Tensor) -> Tensor:
            seen.append(value)
            return value

    with probing(Keep()):
        asked(network)
    assert {maps.shape[-1] for maps in seen} == {64, 16, 5}
    assert all(torch.allclose(maps.sum(-1), torch.ones(())) for maps in seen)


def test_a_batch_that_is_probed_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet_file, "CACHED", 1)
    with seeded("probe"):
        network = build(UNET).eval()
    watch = Watch(("bottleneck",))
    with probing(watch):
        asked(network, rows=4)
    assert watch.seen == [("bottleneck", (4, 16, 4, 4))]


def test_another_thread_sees_no_probe() -> None:
    found: list[bool] = []
    with probing(Watch()):
        thread = threading.Thread(target=lambda: found.append(watched("self")))
        thread.start()
        thread.join()
        assert watched("self")
        assert probed("nowhere", torch.ones(1)).item() == 1
    assert found == [False]
