"""The machine that a result comes from: device, free memory, versions, threads."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from dlp_plugins.errors import UsageError
from dlp_plugins.units import counted

CGROUP = Path("/sys/fs/cgroup")
GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Packages whose version may change a result, a time or an error.
PACKAGES = (
    "dlp-plugins", "torch", "torchvision", "timm", "faiss-cpu", "faiss-gpu-cu12", "accelerate",
    "safetensors", "numpy", "scipy", "scikit-learn", "pydantic", "typer", "rich",
)  # fmt: skip


def choose_device(name: str) -> torch.device:
    """The device of that name: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.

    Raises:
        UsageError: no such device here.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: allowed: auto, cpu, cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here. `dlp doctor` says more.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def seed_generators(number: int) -> None:
    """Seed torch's global generators: the CPU's, and those of GPUs if they are in use.

    As `torch.manual_seed`, which also keeps the stack of its caller for every kind of device that
    is not in use: 1.6 ms, a seventh of a training step of a small network.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Everything that may change a result or a time."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them it is emulated, slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MiB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def package_versions() -> dict[str, str]:
    """The version of each of PACKAGES that is installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that a process could still take: of the GPU, or of the host and a container's limit."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    return max(min([free, *_free_in_groups()]), 0)


def _free_in_groups() -> Iterator[int]:
    """Bytes left in the control group of this process, of version 2 and of version 1."""
    # 'max', no such file, no permission: there is no limit to heed
    with contextlib.suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        yield limit - used + _droppable(CGROUP, "file", "shmem")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = GROUPS_OF_PROCESS.read_text().splitlines()
        own = next(x.split(":", 2)[2] for x in lines if x.split(":")[1] == "memory")
        group = CGROUP / "memory" / own.lstrip("/")
        group = group if group.is_dir() else CGROUP / "memory"  # as a container sees its own
        used = int((group / "memory.usage_in_bytes").read_text())
        limit = int((group / "memory.limit_in_bytes").read_text())
        yield limit - used + _droppable(group, "total_cache", "total_shmem")


def _droppable(group: Path, files: str, shared: str) -> int:
    """Bytes of files that were read: they count as used, and the kernel drops them for room."""
    with contextlib.suppress(OSError, ValueError):
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(held.get(files, 0)) - int(held.get(shared, 0))
    return 0


def boot() -> str:
    """Names the running kernel: containers on one machine have other host names, but share it."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""
