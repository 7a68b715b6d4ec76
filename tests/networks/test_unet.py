"""What the networks promise: sizes, a start at zero, rows apart, dropout by sample, checkpointing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sfumato import noise
from sfumato.errors import SettingsError
from sfumato.networks import Config, DiTConfig, UNet, UNetConfig, build, from_json, parameter_count, to_json

SMALL = UNetConfig(channels=(16, 32), layers=1, groups=4, head_channels=16, attention=("none", "self"))
CROSS = replace(SMALL, attention=("cross", "self"), middle="cross", context_dim=6, linear_projection=True)
DIT = DiTConfig(image_size=8, heads=2, head_channels=16, layers=2, classes=4)

VARIANTS: dict[str, Config] = {
    "plain": SMALL,
    "scale_shift, resnet": replace(SMALL, conditioning="scale_shift", resampling="resnet"),
    "context": CROSS,
    "classes": replace(SMALL, classes=4, null_class=True),
    "class maps": replace(SMALL, classes=4, class_input="concat"),
    "signal": replace(CROSS, dims=1, downsample_padding=0),
    "signal, resnet": replace(SMALL, dims=1, resampling="resnet", classes=4, class_input="concat"),
    "volume": replace(CROSS, dims=3, linear_projection=False),
    "volume, resnet": replace(SMALL, dims=3, resampling="resnet", conditioning="scale_shift"),
    "no skips": replace(SMALL, skips=False, layers=2),
    "dit": DIT,
    "dit, signal": replace(DIT, dims=1),
    "dit, volume": replace(DIT, dims=3),
}


def draws(rows: int, *shape: int, use: str = "x") -> Tensor:
    return noise.Noise.of("network", use, places=range(rows)).normal(shape)


def awake(config: Config) -> nn.Module:
    """A network none of whose weights is zero."""
    with noise.seeded("network", str(config)):
        network = build(config)
        for weight in network.parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 25
            nn.init.normal_(weight, mean=float(weight.ndim == 1), std=fan**-0.5)
    return network


def inputs(config: Config, rows: int = 3, side: int = 8) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    sizes = (side, 2 * side, side)[: config.dims]
    given: dict[str, Tensor] = {}
    if config.classes is not None:
        given["classes"] = torch.arange(rows) % 4
    if isinstance(config, UNetConfig) and config.context_dim is not None:
        given["context"] = draws(rows, 5, config.context_dim, use="context")
    return (draws(rows, config.in_channels, *sizes), torch.linspace(0, 999, rows)), given


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_matters(name: str) -> None:
    """Shapes are kept, and every parameter of every variant has a gradient that is not zero."""
    network = awake(VARIANTS[name])
    (x, label), given = inputs(VARIANTS[name])
    y = network(x, label, **given)
    assert y.shape == x.shape
    (y * draws(*y.shape, use="gradient")).sum().backward()
    still = {"to_k.bias"}  # softmax does not see what is added to all keys
    for key, weight in network.named_parameters():
        assert weight.grad is not None, key
        if not any(key.endswith(s) for s in still):
            assert float(weight.grad.abs().max()) > 1e-7, key


@pytest.mark.parametrize("name", VARIANTS)
def test_it_starts_at_zero_and_can_leave_it(name: str) -> None:
    network = build(VARIANTS[name])
    (x, label), given = inputs(VARIANTS[name])
    y = network(x, label, **given)
    assert torch.equal(y, torch.zeros_like(y))
    (y - draws(*y.shape, use="target")).square().sum().backward()
    assert any(float(w.grad.abs().max()) > 0 for w in network.parameters() if w.grad is not None)
    with torch.no_grad():
        woken = build(replace(VARIANTS[name], zero_init=False))(x, label, **given)
    assert float(woken.abs().max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_is_the_same_alone_and_in_a_batch(name: str) -> None:
    network = awake(VARIANTS[name]).eval()
    (x, label), given = inputs(VARIANTS[name], rows=9, side=16)
    with torch.no_grad():
        together = network(x, label, **given)
        for row in (0, 8):
            one = slice(row, row + 1)
            alone = network(x[one], label[one], **{k: v[one] for k, v in given.items()})
            assert float((alone - together[one]).abs().max()) <= 1e-5 * max(1.0, float(together.abs().max()))


@pytest.mark.parametrize("name", ["plain", "context", "dit"])
def test_checkpointing_gives_the_same_gradients_with_dropout(name: str) -> None:
    config = replace(VARIANTS[name], dropout=0.3)
    streams = noise.Noise((5, 6, 7))
    (x, label), given = inputs(config)
    found: list[list[Tensor]] = []
    for checkpointing in (False, True):
        network = awake(replace(config, checkpointing=checkpointing))
        network.load_state_dict(awake(config).state_dict())
        with noise.streams(streams):
            loss = network(x, label, **given).square().mean()
        loss.backward()  # outside: the recomputation must bring the streams along
        found.append([w.grad for w in network.parameters() if w.grad is not None])
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * max(1.0, float(a.abs().max()))


def test_checkpointing_keeps_less() -> None:
    (x, label), _ = inputs(SMALL)
    kept: list[int] = []
    for checkpointing in (False, True):
        total = 0

        def count(t: Tensor) -> Tensor:
            nonlocal total
            total += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            awake(replace(SMALL, checkpointing=checkpointing))(x, label)
        kept.append(total)
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("name", ["plain", "dit"])
def test_dropout_follows_the_sample(name: str) -> None:
    config = replace(VARIANTS[name], dropout=0.5)
    network = awake(config)
    (x, label), given = inputs(config)
    order = [2, 0, 1]

    def run(rows: list[int]) -> Tensor:
        with noise.streams(noise.Noise((5, 6, 7)).take(rows)), torch.no_grad():
            return network(x[rows], label[rows], **{k: v[rows] for k, v in given.items()})

    straight, turned = run([0, 1, 2]), run(order)
    scale = max(1.0, float(straight.abs().max()))
    assert float((turned - straight[order]).abs().max()) <= 1e-5 * scale
    with torch.no_grad():
        whole = network.eval()(x, label, **given)
    assert float((whole - straight).abs().max()) > 1e-2 * scale  # it did drop


def test_no_skips_has_no_skip_parameters() -> None:
    with_skips, without = (UNet(replace(SMALL, skips=s)).state_dict() for s in (True, False))
    first = "up_blocks.1.resnets.0.conv1.weight"
    assert with_skips[first].shape[1] == 32 + 16
    assert without[first].shape[1] == 32
    ins = {
        k: v.shape[1] for k, v in without.items() if k.startswith("up_blocks") and k.endswith("conv1.weight")
    }
    assert set(ins.values()) == {16, 32}
    assert sum(v.numel() for v in without.values()) < sum(v.numel() for v in with_skips.values())


@pytest.mark.parametrize("name", ["classes", "class maps", "dit"])
def test_the_class_changes_the_answer(name: str) -> None:
    network = awake(VARIANTS[name]).eval()
    (x, label), _ = inputs(VARIANTS[name], rows=1)
    with torch.no_grad():
        answers = [network(x, label, classes=torch.tensor([c])) for c in range(4)]
    for i in range(4):
        for j in range(i):
            assert float((answers[i] - answers[j]).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["classes", "dit"])
def test_no_class_is_the_last_row(name: str) -> None:
    network = awake(VARIANTS[name]).eval()
    (x, label), _ = inputs(VARIANTS[name])
    with torch.no_grad():
        assert torch.equal(network(x, label), network(x, label, classes=torch.full((3,), 4)))


def test_a_context_is_looked_at_as_a_set() -> None:
    network = awake(CROSS).eval()
    (x, label), given = inputs(CROSS)
    with torch.no_grad():
        y = network(x, label, **given)
        turned = network(x, label, context=given["context"].flip(1))
        other = network(x, label, context=given["context"] + 1)
    assert float((y - turned).abs().max()) <= 1e-5 * max(1.0, float(y.abs().max()))
    assert float((y - other).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("config", "shape", "word"),
    [
        (SMALL, (1, 3, 8, 9), "divisible by 2"),
        (replace(SMALL, channels=(16, 32, 32), attention=()), (1, 3, 8, 30), "divisible by 4"),
        (SMALL, (1, 1, 8, 8), "must be"),
        (SMALL, (1, 3, 8), "must be"),
        (DIT, (1, 3, 8, 9), "divisible by the patch 2"),
        (CROSS, (1, 3, 8, 8), "context"),
        (replace(SMALL, classes=3), (1, 3, 8, 8), "class"),
    ],
)
def test_a_wrong_input_is_one_sentence(config: Config, shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        build(config)(torch.zeros(shape), torch.zeros(1))


@pytest.mark.parametrize("config", [SMALL, replace(DIT, classes=None)])
def test_conditions_that_a_network_cannot_use_are_refused(config: Config) -> None:
    x, label = torch.zeros(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(SettingsError, match="class"):
        build(config)(x, label, classes=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(SettingsError, match="context"):
        build(config)(x, label, context=torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"channels": (16, 30)}, "groups"),
        ({"channels": ()}, "resolutions"),
        ({"attention": ("self",)}, "attention"),
        ({"attention": ("self", "all")}, "attention"),
        ({"middle": "cross"}, "context_dim"),
        ({"head_channels": 5}, "head_channels"),
        ({"heads": 5}, "heads"),
        ({"layers": (1, 2, 3)}, "layers"),
        ({"layers": 10**9}, "layers"),
        ({"dims": 4}, "dims"),
        ({"dropout": 1.0}, "dropout"),
        ({"conditioning": "film"}, "conditioning"),
        ({"null_class": True}, "null class"),
        ({"downsample_padding": 2}, "downsample_padding"),
    ],
)
def test_a_wrong_setting_is_one_sentence(change: dict[str, object], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        replace(SMALL, **change)


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_survive_json(name: str) -> None:
    config = VARIANTS[name]
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_json_that_says_nonsense_is_refused() -> None:
    with pytest.raises(SettingsError, match="colour"):
        from_json(UNetConfig, {"colour": 1})
    with pytest.raises(SettingsError):
        from_json(UNetConfig, {"channels": "many"})
    with pytest.raises(SettingsError):
        from_json(DiTConfig, {"layers": [1]})


def test_parameters_are_counted_without_making_them() -> None:
    assert parameter_count(SMALL) == sum(w.numel() for w in UNet(SMALL).parameters())
    assert parameter_count(replace(SMALL, channels=(4096, 8192), head_channels=64)) > 1_000_000_000


@pytest.mark.parametrize("layers", [1, 3])
def test_a_dit_sees_where_a_patch_is(layers: int) -> None:
    """Turning the image upside down does not turn the answer: without positions it would."""
    network = awake(replace(DIT, layers=layers, patch=1)).eval()
    x, label = draws(1, 3, 4, 8), torch.tensor([3.0])
    with torch.no_grad():
        y, turned = network(x, label), network(x.flip(2, 3), label).flip(2, 3)
    assert float((y - turned).abs().max()) > 1e-2


@pytest.mark.parametrize("name", [name for name in VARIANTS if "dit" not in name])
def test_a_large_batch_goes_through_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = awake(VARIANTS[name]).eval()
    (x, label), given = inputs(VARIANTS[name], rows=5)
    with torch.no_grad():
        whole = network(x, label, **given)
        monkeypatch.setattr("sfumato.networks.unet.CACHED", 2 * 16 * x[0, 0].numel())
        in_parts = network(x, label, **given)
    assert torch.allclose(whole, in_parts, atol=1e-5)
    together = network(x, label, **given)  # what a backward pass needs is kept of the whole batch
    assert torch.allclose(whole, together, atol=1e-5)
