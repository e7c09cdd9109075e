"""A USB algorithm as a loss: its train_step on a batch that is given to it, nothing else."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from argparse import Namespace
from typing import Any

import torch
from semilearn.core import AlgorithmBase
from semilearn.core.utils import ALGORITHMS, EMA
from torch import Tensor, nn

from dlp_plugins.errors import UsageError, did_you_mean
from dlp_plugins.network import Network, Output


class StudentView(nn.Module):
    """A Network as USB sees one: a dictionary of logits and features."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        # What is called may be a compiled form of the same network; a list hides it from Module.
        self.called: list[Any] = [network]

    def forward(self, images: Tensor, **_: Any) -> dict[str, Tensor]:
        output: Output = self.called[0](images)
        return {"logits": output.logits, "feat": output.descriptor}


class Average(EMA):
    """USB's averaged weights, kept in a network of their own."""

    def __init__(self, view: StudentView, average: Network, decay: float) -> None:
        super().__init__(view, decay)
        self.average = average
        self.shadow = {f"network.{name}": p.data for name, p in average.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        student = self.model.network
        torch._foreach_lerp_(
            [p.data for p in self.average.parameters()],
            [p.data for p in student.parameters()],
            1 - self.decay,
        )
        for mine, theirs in zip(self.average.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)


class Driver(AlgorithmBase):
    """Mixed in before a USB algorithm: no data, no optimiser, and a model that is given to it.

    Attributes:
        memories: names of the algorithm's own tensors that outlive a step.
    """

    memories: tuple[str, ...] = ()

    def set_dataset(self) -> None:
        return None

    def set_data_loader(self) -> None:
        return None

    def set_model(self) -> nn.Module:
        return self.net_builder

    def set_ema_model(self) -> None:
        return None

    def set_optimizer(self) -> tuple[None, None]:
        return None, None


def drive(
    name: str,
    view: StudentView,
    num_classes: int,
    num_examples: int,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    driver: type[Driver] = Driver,
) -> Any:
    """The USB algorithm of that name around a student.

    Args:
        settings: of USB's common arguments (ulb_loss_ratio, num_train_iter).
        arguments: the algorithm's own, by USB's names; defaults are USB's.

    Raises:
        UsageError: an argument that the algorithm does not have.
    """
    algorithm = ALGORITHMS[name]
    own = {a.name.lstrip("-"): a for a in algorithm.get_argument()}
    for key in arguments:
        if key not in own:
            raise UsageError(
                f"consistency usb:{name}: arguments.{key}: unknown.{did_you_mean(key, own)} "
                f"Allowed: {', '.join(own)}."
            )
    args = Namespace(
        **{key: a.default for key, a in own.items()} | arguments,
        **_common(name, num_classes, num_examples) | settings,
    )
    driven = type(f"Driven{algorithm.__name__}", (driver, algorithm), {})
    # The constructors print, and warn that there is no CUDA.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return driven(args=args, net_builder=view)


def _common(name: str, num_classes: int, num_examples: int) -> dict[str, Any]:
    """What AlgorithmBase reads of a config, for a run of one process."""
    return {
        "algorithm": name, "num_classes": num_classes, "ulb_dest_len": num_examples,
        "ema_m": 0.999, "epoch": 1, "num_train_iter": 2**20, "num_eval_iter": 0, "num_log_iter": 0,
        "ulb_loss_ratio": 1.0, "use_cat": True, "amp": False, "clip_grad": 0.0,
        "save_name": "", "save_dir": "", "resume": False, "gpu": None, "rank": 0, "world_size": 1,
        "distributed": False, "use_wandb": False, "use_aim": False, "lb_dest_len": 0,
        "dataset": "cifar10",  # SimMatch chooses its bank's momentum by it: as for small images
    }  # fmt: skip


def wanted(name: str) -> list[str]:
    """Names of what an algorithm's train_step takes: x_lb, y_lb, x_ulb_w, ..."""
    return list(inspect.signature(ALGORITHMS[name].train_step).parameters)[1:]


def tensors(algorithm: Any) -> dict[str, Tensor]:
    """Everything that the algorithm and its hooks remember, by `hook.attribute`."""
    hooks = {
        f"{name}.{key}": value
        for name, hook in algorithm.hooks_dict.items()
        for key, value in vars(hook).items()
        if isinstance(value, Tensor)
    }
    return hooks | {f".{key}": getattr(algorithm, key) for key in algorithm.memories}


def restore(algorithm: Any, saved: dict[str, Tensor], device: torch.device) -> None:
    """The reverse of `tensors`."""
    for name, value in saved.items():
        hook, _, key = name.partition(".")
        owner = algorithm.hooks_dict[hook] if hook else algorithm
        setattr(owner, key, value.to(device))
