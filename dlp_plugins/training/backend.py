"""torch's settings for a run on a GPU: deterministic or fast, and whether TF32 may round."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dlp_plugins.recipe.model import Training


@contextmanager
def backend(device: torch.device, training: Training) -> Iterator[None]:
    """Set what the recipe asks for; the former settings come back. A CPU needs none of it.

    deterministic: algorithms whose sums have an order, so that a run gives the same bits again;
        torch warns of an operation that has none. Else cuDNN tries which algorithm is fastest.
        CUBLAS_WORKSPACE_CONFIG stays set: cuBLAS reads it once.
    precision "tf32": convolutions round their inputs to 10 bits, several times as fast; products
        of matrices do not, as the search for neighbours needs float32.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.benchmark = not training.deterministic
    cudnn.deterministic = training.deterministic
    cudnn.allow_tf32 = training.precision == "tf32"
    if training.deterministic:
        # read when cuBLAS starts: without it the sums of products have no fixed order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)


def let_graphs_replay() -> None:
    """Before a pass of the network: what CUDA graphs gave until now may be written over.

    Else each pass of a compiled network would record further graphs. Where none was made there is
    nothing to do, and torch's compiler is not loaded for it.
    """
    if "torch._inductor.cudagraph_trees" in sys.modules:
        torch.compiler.cudagraph_mark_step_begin()
