"""Group normalisation, scale and shift, and SiLU as one step that keeps only its input for the backward pass."""

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

    Adaptive group normalisation (Dhariwal & Nichol 2021, section 3). Written out, autograd would keep two or three
    tensors of x's size; here it keeps x and computes the rest again, which moves less memory than it saves.
    """
    if not torch.is_grad_enabled():
        y = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        if scale is not None and shift is not None:
            y = y.mul_(spread(1 + scale, x)).add_(spread(shift, x))
        return F.silu(y, inplace=True)
    if torch.is_autocast_enabled(
        x.device.type
    ):  # mixed precision: let torch choose the type of each operation
        return _written_out(x, norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps)
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


class _NormSiLU(torch.autograd.Function):
    """The step of `norm_silu`. Its gradient may itself be differentiated: it is then written out."""

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
        ctx.groups, ctx.eps = groups, eps
        n, c = x.shape[:2]
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, x.numel() // (n * c), groups, eps)
        ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)
        if scale is not None and shift is not None:
            y = y.mul_(spread(1 + scale, x)).add_(spread(shift, x))
        return F.silu(y, inplace=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = [t for t in (x, weight, bias, scale, shift) if t is not None]
            again = _written_out(x, weight, bias, scale, shift, ctx.groups, ctx.eps)
            wanted = [t for t in inputs if t.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, grad, create_graph=True))
            each = [
                next(found) if t is not None and t.requires_grad else None
                for t in (x, weight, bias, scale, shift)
            ]
            return (*each, None, None)
        n, c = x.shape[:2]
        sites = x.numel() // (n * c)
        y = torch.native_group_norm(x, weight, bias, n, c, sites, ctx.groups, ctx.eps)[0]
        d_scale = d_shift = None
        if scale is None or shift is None:
            d = torch.ops.aten.silu_backward(grad, y)
        else:
            gain = spread(1 + scale, x)
            d = torch.ops.aten.silu_backward(grad, torch.addcmul(spread(shift, x), y, gain))
            space = list(range(2, x.ndim))
            d_shift = d.sum(space)
            d_scale = y.mul_(d).sum(space)
            d = d.mul_(gain)
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2])
        dx, d_weight, d_bias = torch.ops.aten.native_group_norm_backward(
            d, x, mean, rstd, weight, n, c, sites, ctx.groups, wanted
        )
        return dx, d_weight, d_bias, d_scale, d_shift, None, None
