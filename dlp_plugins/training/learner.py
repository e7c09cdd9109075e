"""What learns: network, consistency method, optimizer and schedule; one step and its state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.backbones.contract import normalization
from dlp_plugins.consistency.contract import Batch, Consistency, Step, unchanged
from dlp_plugins.errors import UsageError
from dlp_plugins.network import Network
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.recipe.build import build_part
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import checkpoint, seeds
from dlp_plugins.training.backend import let_graphs_replay
from dlp_plugins.training.data import RunData
from dlp_plugins.training.finetuning import restrict
from dlp_plugins.training.parameters import parameter_groups


def build_network(
    recipe: Recipe, shape: Sequence[int], num_classes: int, consistency: Consistency
) -> Network:
    """The recipe's network for inputs of that shape, with what the method adds, on the CPU."""
    backbone = build_part(recipe, "backbone", input_shape=tuple(shape))
    restrict(backbone, recipe.backbone)
    network = Network(
        backbone,
        num_classes,
        heads=consistency.heads,
        normalize_descriptor=recipe.backbone.normalize_descriptor,
        weight_norm_heads=recipe.backbone.weight_norm_heads,
    )
    consistency.extend(network)
    return network


def build_augmentation(
    recipe: Recipe, network: Network, mean: Sequence[float], std: Sequence[float]
) -> Augmentation:
    """The recipe's views; pretrained weights expect the mean and deviation they were trained with.

    mean, std: the data set's.
    """
    mean, std = normalization(network.backbone) or (mean, std)
    return build_part(recipe, "augmentation", mean=tuple(mean), std=tuple(std))


class Learner:
    """Builds the recipe's network, method and optimizer, and takes steps.

    Attributes:
        network: the student, compiled where the recipe says so, as is the teacher.
        forward: the same; its gradients are averaged over the processes where there are several.
        teacher: the method's average of it, or None.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: RunData,
        accelerator: Accelerator,
        processes: Processes = ALONE,
    ) -> None:
        self.recipe, self.accelerator, self.processes = recipe, accelerator, processes
        self.device = accelerator.device
        self.num_examples, self.total_steps = len(data.truth), 0
        self.consistency: Consistency = build_part(
            recipe, "consistency", num_classes=data.dataset.num_classes
        )
        self._check_processes()
        seeds.seed_step(recipe.seed)
        network = build_network(
            recipe, data.train.source.shape, data.dataset.num_classes, self.consistency
        )
        if recipe.training.sync_batch_norm and not processes.alone:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(self.device)
        if recipe.training.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compile(self.network)
        self.forward: nn.Module = self.network if processes.alone else self._averaging_gradients()
        self.augmentation = build_augmentation(
            recipe, self.network, data.dataset.mean, data.dataset.std
        )
        self.schedule = build_part(recipe, "schedule")
        self.optimizer: Any = build_part(
            recipe, "optimizer", params=parameter_groups(self.network, recipe.optimizer)
        )
        if accelerator.scaler is not None:  # of float16; without one the wrapper only takes time
            self.optimizer = accelerator.prepare(self.optimizer)
        self._base_rates = [g["lr"] * g["rate"] for g in self.optimizer.param_groups]

    def _compile(self, network: nn.Module) -> None:
        if chosen := self.recipe.training.compile:
            network.compile(mode=None if chosen is True else chosen)

    def _check_processes(self) -> None:
        """Raise UsageError where several processes cannot train as the recipe wants."""
        if self.processes.alone:
            return
        name = self.recipe.consistency.name
        if not self.consistency.many_processes:
            raise UsageError(f"consistency {name} trains in one process. Start one.")
        if self.recipe.training.sync_batch_norm and self.device.type != "cuda":
            raise UsageError(
                "training.sync_batch_norm: torch's synchronised batch norm needs GPUs. Leave it "
                "out: without it each process normalises by its own share of the batch."
            )

    def _averaging_gradients(self) -> nn.Module:
        # Not Accelerate's prepare: for mixed precision it replaces the network's own `forward`,
        # of which the methods keep copies as teachers.
        with warnings.catch_warnings():
            # torch 2.14 has another name for broadcast_buffers, which 2.6 does not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                self.network,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # `_statistics` become means, and so the same, in a step
                gradient_as_bucket_view=True,  # else every gradient is copied twice
            )

    def _statistics(self) -> list[Tensor]:
        """Batch norm's running statistics, student's and teacher's.

        Each process sees its own share of the batch; with the mean all hold the same networks.
        """
        teacher = self.teacher
        return [*self.network.buffers(), *(teacher.buffers() if teacher is not None else ())]

    @property
    def teacher(self) -> nn.Module | None:
        return self.consistency.teacher

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group, in the step taken last."""
        return self.optimizer.param_groups[0]["lr"]

    def begin_stage(self, total_steps: int) -> None:
        """Start a stage of so many steps; a teacher restarts as a copy of the student."""
        self.total_steps = total_steps
        self.consistency.begin_stage(self.network, self.num_examples, total_steps)
        if self.teacher is not None:
            self._compile(self.teacher)  # a copy of the student, which is copied as it was

    def step(
        self,
        batch: Batch,
        number: int,
        epoch: float,
        epochs: int,
        gather: Callable[[Tensor], Tensor] = unchanged,
    ) -> dict[str, Tensor]:
        """One optimizer step.

        Args:
            number: of the step within its stage, from 0. epoch: the same in epochs.
            epochs: of the stage.
            gather: as `Step.gather`.

        Returns:
            The loss terms, detached, 'total' among them; the mean over the processes is that of the
            whole batch.
        """
        factor = self.schedule(epoch, epochs)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        step = Step(
            student=self.forward,  # type: ignore[arg-type]
            batch=batch,
            weak=self.weak,
            strong=self.strong,
            number=number,
            epoch=epoch,
            total_steps=self.total_steps,
            gather=gather,
        )
        self.network.train()
        let_graphs_replay()
        with self.accelerator.autocast():
            losses = self._of_the_whole(self.consistency.losses(step), batch)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.optimizer.zero_grad()
        with self.processes.averaging(self._statistics()):  # no forward pass changes them any more
            self.accelerator.backward(total)
            if self.recipe.optimizer.clip_norm is not None:
                self.accelerator.clip_grad_norm_(
                    self.network.parameters(), self.recipe.optimizer.clip_norm
                )
            self.optimizer.step()
        self.consistency.after_step(self.network, number)
        return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}

    def _of_the_whole(self, losses: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Terms whose mean over the processes is that of the whole batch: gradients are averaged.

        A process with more of the images that a term is a mean over counts for more.
        """
        if self.processes.alone:
            return losses
        method, size = self.consistency, self.processes.size
        return {k: loss * (size * batch.part(method.mean_of(k))) for k, loss in losses.items()}

    # -- views -----------------------------------------------------------------------------------

    def weak(self, images: Tensor) -> Tensor:
        return self._layout(self.augmentation.weak(images))

    def strong(self, images: Tensor) -> Tensor:
        return self._layout(self.augmentation.strong(images))

    def plain(self, images: Tensor) -> Tensor:
        return self._layout(self.augmentation.plain(images))

    def _layout(self, view: Tensor) -> Tensor:
        if self.recipe.training.channels_last and view.ndim == 4:
            return view.contiguous(memory_format=torch.channels_last)
        return view

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> tuple[checkpoint.State, dict[str, Any]]:
        """Every tensor and number that `load` needs to go on bit for bit."""
        slots = self.optimizer.state_dict()["state"]
        slot_tensors = {
            f"{i}.{k}": v
            for i, slot in slots.items()
            for k, v in slot.items()
            if torch.is_tensor(v)
        }
        tensors = {
            **checkpoint.add_prefix("student", self.network.state_dict()),
            **checkpoint.add_prefix("consistency", self.consistency.state()),
            **checkpoint.add_prefix("optimizer", slot_tensors),
        }
        scaler = self.accelerator.scaler
        return tensors, {"scaler": scaler.state_dict()} if scaler is not None else {}

    def load(self, tensors: checkpoint.State, numbers: dict[str, Any], total_steps: int) -> None:
        """The reverse of `state`, within a stage of so many steps."""
        if "scaler" in numbers and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(numbers["scaler"])
        self.network.load_state_dict(checkpoint.with_prefix("student", tensors))
        self.begin_stage(total_steps)
        self.consistency.load_state(checkpoint.with_prefix("consistency", tensors))
        optimizer = self.optimizer.state_dict()
        for key, value in checkpoint.with_prefix("optimizer", tensors).items():
            index, _, name = key.partition(".")
            optimizer["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(optimizer)
        self._lay_out_state()

    def _lay_out_state(self) -> None:
        """Give the optimizer's tensors the memory format of their parameters.

        A checkpoint keeps none, and a fused step walks through both in the order of memory.
        """
        for parameter, slot in self.optimizer.state.items():
            for name, value in slot.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    slot[name] = torch.empty_like(parameter).copy_(value)
