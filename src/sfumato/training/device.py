"""Where a model trains, and in which precision."""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato.errors import SettingsError


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """auto | cpu | cuda | mps. Raises SettingsError when this machine does not have it."""
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(f"--device is one of auto, cpu, cuda, mps, not {name!r}")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    if not has[name]:
        raise SettingsError(
            f"--device {name}: this machine or this build of torch has none, use --device auto"
        )
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def gains_from_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster here: CUDA from Ampere on, a CPU with AMX; others are slower by far."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        try:
            return "amx_bf16" in Path("/proc/cpuinfo").read_text(errors="replace")
        except OSError:
            return False
    return False


def choose_precision(name: str, device: torch.device) -> str:
    """auto | fp32 | bf16: auto takes bf16 only where the hardware gains."""
    if name not in ("auto", "fp32", "bf16"):
        raise SettingsError(f"--precision is one of auto, fp32, bf16, not {name!r}")
    if name != "auto":
        return name
    return "bf16" if gains_from_bf16(device) else "fp32"
