"""Group normalisation, scale and shift, and SiLU as one step that keeps only its input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def spread(v: Tensor, x: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, ..., 1), so that it broadcasts against x (B, C, *space)."""
    return v[(...,) + (None,) * (x.ndim - 2)]


def norm_silu(
    x: Tensor, norm: nn.GroupNorm, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """silu(groupnorm(x) (1 + scale) + shift), x (B, C, *space), scale and shift (B, C) or None.

    Adaptive group normalisation (Dhariwal & Nichol 2021, section 3). Written out, autograd would keep two or
    three tensors of x's size; here it keeps x alone and computes the rest again.
    """
    if torch.is_autocast_enabled(x.device.type):  # mixed precision: torch chooses the type of each operation
        return _written_out(x, norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps)
    if not torch.is_grad_enabled():
        return _forward(x, norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps)[0]
    return _NormSiLU.apply(x, norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps)


def _written_out(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    eps: float,
) -> Tensor:
    y = F.group_norm(x, groups, weight, bias, eps)
    if scale is not None and shift is not None:
        y = y * spread(1 + scale, x) + spread(shift, x)
    return F.silu(y)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and each group's mean and 1 / standard deviation, (B, groups)."""
    n, c = x.shape[:2]
    sites = x.numel() // (n * c)
    if _by_channel(x) and sites < 1024:  # torch would walk small images group by group, with strides
        mean = x.sum((2, 3)).view(n, groups, -1).mean(2) / sites
        y = x - spread(_each(mean, c), x)
        variance = (y * y).sum((2, 3)).view(n, groups, -1).mean(2) / sites
        rstd = (variance + eps).rsqrt()
        gain, offset = _affine(torch.zeros_like(mean), rstd, weight, bias, scale, shift)
        y = torch.addcmul(spread(offset, x), y, spread(gain, x), out=y)
        return F.silu(y, inplace=True), mean, rstd
    y, mean, rstd = torch.native_group_norm(_dense(x), weight, bias, n, c, sites, groups, eps)
    if scale is not None and shift is not None:
        y = y.mul_(spread(1 + scale, x)).add_(spread(shift, x))
    return F.silu(y, inplace=True), mean, rstd


def _by_channel(x: Tensor) -> bool:
    """Whether plain passes beat torch's kernels: the channels of a pixel lie side by side, and x is large."""
    large = x.ndim == 4 and x.numel() >= 2**16 and x.dtype in (torch.float32, torch.float64)
    return large and x.is_contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    """x in one of the layouts that torch's kernel takes; 1-D convolutions may answer in another."""
    by_channel = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if by_channel else x.contiguous()


def _each(v: Tensor, channels: int) -> Tensor:
    """(B, groups) -> (B, channels)."""
    return v.repeat_interleave(channels // v.shape[1], dim=1)


def _affine(
    mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(gain, offset), each (B, C): all of the step before the SiLU is gain x + offset."""
    gain = _each(rstd, len(weight)) * weight
    offset = bias - _each(mean, len(weight)) * gain
    if scale is None or shift is None:
        return gain, offset
    return gain * (1 + scale), offset * (1 + scale) + shift


class _NormSiLU(torch.autograd.Function):
    """The step of `norm_silu`. Its gradient may itself be differentiated: the step is then written out."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        groups: int,
        eps: float,
    ) -> Tensor:
        y, mean, rstd = _forward(x, weight, bias, scale, shift, groups, eps)
        ctx.groups, ctx.eps = groups, eps
        ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
        five = (x, weight, bias, scale, shift)
        if torch.is_grad_enabled():
            again = _written_out(*five, ctx.groups, ctx.eps)
            wanted = [t for t in five if t is not None and t.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, grad, create_graph=True))
            return (*(next(found) if t is not None and t.requires_grad else None for t in five), None, None)
        backward = _backward_by_channel if _by_channel(x) else _backward
        return (*backward(grad, *five, mean, rstd, ctx.groups), None, None)


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
) -> tuple[Tensor | None, ...]:
    """The gradients of the five inputs, by torch's own kernel for the normalisation."""
    n, c = x.shape[:2]
    xhat = (x - _sites(mean, x)) * _sites(rstd, x)
    y = xhat * spread(weight.expand(n, c), x) + spread(bias.expand(n, c), x)
    d_scale = d_shift = None
    if scale is None or shift is None:
        d = torch.ops.aten.silu_backward(grad, y)
    else:
        gain = spread(1 + scale, x)
        d = torch.ops.aten.silu_backward(grad, torch.addcmul(spread(shift, x), y, gain))
        space = list(range(2, x.ndim))
        d_shift, d_scale = d.sum(space), (y * d).sum(space)
        d = d * gain
    dx, d_weight, d_bias = torch.ops.aten.native_group_norm_backward(
        d.contiguous(),
        x.contiguous(),
        mean,
        rstd,
        weight,
        n,
        c,
        x.numel() // (n * c),
        groups,
        (True, True, True),
    )
    return dx, d_weight, d_bias, d_scale, d_shift


def _sites(v: Tensor, x: Tensor) -> Tensor:
    return spread(_each(v, x.shape[1]), x).to(x.dtype)


def _backward_by_channel(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
) -> tuple[Tensor | None, ...]:
    """The same in plain passes: with z = gain x + offset and d = dL/dz, dx = gain d - by group (p + q x)."""
    n, c = x.shape[:2]
    sites = x.numel() // (n * c)
    gain, offset = _affine(mean, rstd, weight, bias, scale, shift)
    z = torch.addcmul(spread(offset, x), x, spread(gain, x))
    d = torch.ops.aten.silu_backward(grad, z)
    sum_d = d.sum((2, 3))
    means, rstds = _each(mean, c), _each(rstd, c)
    sum_dx = (torch.mul(d, x, out=z).sum((2, 3)) - means * sum_d) * rstds  # of d times the normalised x
    d_scale = d_shift = None
    told = weight.expand(n, c)
    by_weight, by_bias = sum_dx, sum_d
    if scale is not None and shift is not None:
        d_scale, d_shift = sum_dx * weight + sum_d * bias, sum_d
        told = weight * (1 + scale)
        by_weight, by_bias = sum_dx * (1 + scale), sum_d * (1 + scale)
    count = sites * (c // groups)
    along = _each((told * sum_dx).view(n, groups, -1).sum(2), c) * rstds / count
    level = _each((told * sum_d).view(n, groups, -1).sum(2), c) * rstds / count
    slope = along * rstds
    dx = torch.addcmul(spread(slope * means - level, x), x, spread(-slope, x), out=z)
    dx = dx.addcmul_(d, spread(gain, x))
    return dx, by_weight.sum(0), by_bias.sum(0), d_scale, d_shift
