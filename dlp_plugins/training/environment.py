"""Where a run ran: versions, device, threads. Goes beside every number it gives."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = (
    "dlp-plugins", "torch", "torchvision", "timm", "faiss-cpu", "faiss-gpu-cu12", "accelerate",
    "numpy", "scipy", "scikit-learn",
)  # fmt: skip


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Everything that may change a result or a time."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MiB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
