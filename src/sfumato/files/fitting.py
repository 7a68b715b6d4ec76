"""Whether the tensors of a file are those that a network takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def unfit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """Why tensors cannot be put in the place of the wanted ones, which may be without memory (device "meta"):
    another name or shape, or a value that is no finite number. None where they can."""
    odd = sorted(wanted.keys() ^ tensors.keys())
    if odd:
        verb = "lacks" if odd[0] in wanted else "has a foreign"
        return f"{verb} tensor {odd[0]!r:.100} ({len(odd)} differ)"
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            return f"tensor {name!r} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
        if wanted[name].is_floating_point() and not tensor.is_floating_point():
            return f"tensor {name!r} holds {tensor.dtype}, no fractions"
        if not bool(torch.isfinite(tensor).all()):
            return f"tensor {name!r} holds NaN or an infinite number"
    return None
