"""The fused step against itself written out, in float64: values, gradients, and gradients of gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.networks import normalization
from sfumato.networks.convolution import double, double_then
from sfumato.networks.normalization import norm_silu
from sfumato.noise import Noise

SHAPES = {
    "channels last, small": ((2, 8, 3, 5), torch.channels_last),
    "channels last, plain passes": ((5, 32, 16, 32), torch.channels_last),
    "channels last, torch's forward": ((3, 16, 48, 32), torch.channels_last),
    "contiguous": ((2, 8, 4, 4), torch.contiguous_format),
    "signal": ((2, 8, 7), torch.contiguous_format),
    "volume": ((2, 8, 2, 3, 4), torch.contiguous_format),
}


def draw(*shape: int, use: str) -> Tensor:
    return Noise.of("norm", use, places=[0]).normal(shape)[0].double()


def parts(name: str, told: bool) -> tuple[nn.GroupNorm, list[Tensor]]:
    shape, layout = SHAPES[name]
    norm = nn.GroupNorm(4, shape[1]).double()
    with torch.no_grad():
        norm.weight.copy_(1 + draw(shape[1], use="weight"))
        norm.bias.copy_(draw(shape[1], use="bias"))
    x = (3 * draw(*shape, use="x") + 2).contiguous(memory_format=layout).requires_grad_()
    two = [draw(*shape[:2], use=use).requires_grad_() for use in ("scale", "shift")] if told else []
    return norm, [x, *two]


def written_out(
    norm: nn.GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    h = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    space = (1,) * (x.ndim - 2)
    if scale is not None and shift is not None:
        h = h * (1 + scale.view(*scale.shape, *space)) + shift.view(*shift.shape, *space)
    return h * torch.sigmoid(h)


@pytest.mark.parametrize("told", [False, True], ids=["plain", "scale and shift"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_step_and_its_gradients(name: str, told: bool) -> None:
    norm, given = parts(name, told)
    expected, found = written_out(norm, *given), norm_silu(given[0], norm, *given[1:])
    with torch.no_grad():
        at_rest = norm_silu(given[0], norm, *given[1:])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(at_rest, expected, rtol=1e-10, atol=1e-10)
    weights = draw(*given[0].shape, use="grad")
    wanted = [*given, norm.weight, norm.bias]
    theirs = torch.autograd.grad(expected, wanted, weights)
    ours = torch.autograd.grad(found, wanted, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("told", [False, True], ids=["plain", "scale and shift"])
@pytest.mark.parametrize("by_channel", [False, True])
def test_gradcheck(told: bool, by_channel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalization, "_by_channel", lambda x: by_channel)
    norm, given = parts("channels last, small", told)
    inputs = (given[0], norm.weight, norm.bias, *given[1:])

    def step(x: Tensor, weight: Tensor, bias: Tensor, *told: Tensor) -> Tensor:
        scale, shift = told or (None, None)
        return normalization._NormSiLU.apply(x, weight, bias, scale, shift, 4, 1e-5)

    assert torch.autograd.gradcheck(step, inputs)
    assert torch.autograd.gradgradcheck(step, inputs, atol=1e-4)


def test_it_keeps_only_its_input() -> None:
    norm, (x,) = parts("channels last, plain passes", False)
    kept: list[int] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t.numel() if t.data_ptr() != x.data_ptr() else 0)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        norm_silu(x, norm)
    assert sum(kept) < x.numel() / 10


def test_a_large_mean_does_not_cancel() -> None:
    """The variance comes from centred numbers: E[x^2] - E[x]^2 would lose all of it in float32 here."""
    norm = nn.GroupNorm(4, 32)
    x = (Noise((1, 2, 3, 4, 5)).normal((32, 16, 32)) + 3000).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = written_out(norm.double(), x.double())
        found = norm_silu(x, norm.float())
    assert float((found - exact).abs().max()) < 2e-3


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(2, 3), (9, 12)])
def test_doubling_folded_into_a_convolution(size: tuple[int, int], layout: torch.memory_format) -> None:
    conv = nn.Conv2d(6, 5, 3, padding=1).double().to(memory_format=layout)
    x = draw(2, 6, *size, use="double").contiguous(memory_format=layout).requires_grad_()
    expected, found = conv(double(x)), double_then(conv, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = draw(*found.shape, use="double's gradient")
    wanted = [x, conv.weight, conv.bias]
    theirs = torch.autograd.grad(expected, wanted, weights)
    torch.testing.assert_close(torch.autograd.grad(found, wanted, weights), theirs, rtol=1e-11, atol=1e-11)
