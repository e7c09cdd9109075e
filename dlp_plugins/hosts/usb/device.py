"""USB's algorithms on any device: the places that ask for CUDA, overridden where they stand."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from semilearn.core import AlgorithmBase
from semilearn.core.hooks import Hook, TimerHook
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_fscore_support
from torch import Tensor


class LearningRateHook(Hook):
    """What TimerHook logs, without its CUDA events."""

    def after_train_step(self, algorithm: Any) -> None:
        algorithm.log_dict["lr"] = algorithm.optimizer.param_groups[-1]["lr"]


class AnyDevice(AlgorithmBase):
    """Mixed in before a USB algorithm, lets it run where its model lies; on CUDA it is USB's own.

    USB moves batches (`process_batch`, `evaluate`), takes times (`TimerHook`) and restores hooks
    (`load_model`) with CUDA calls only.
    """

    algorithm: str
    views_of: str | None = None  # USB's data sets choose the views by this algorithm's name

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def set_dataset(self) -> Any:
        name, self.algorithm = self.algorithm, self.views_of or self.algorithm
        try:
            return super().set_dataset()
        finally:
            self.algorithm = name

    def set_hooks(self) -> None:
        super().set_hooks()
        if not torch.cuda.is_available():
            # the same name takes USB's hook's place
            self.register_hook(LearningRateHook(), TimerHook.__name__, "LOW")

    def process_batch(self, input_args: Any = None, **batch: Any) -> dict[str, Any]:
        if self.device.type == "cuda":
            return super().process_batch(input_args, **batch)
        wanted = signature(self.train_step).parameters if input_args is None else input_args
        return {k: v for k, v in batch.items() if k in wanted and v is not None}

    def evaluate(
        self, eval_dest: str = "eval", out_key: str = "logits", return_logits: bool = False
    ) -> dict[str, Any]:
        """USB's measurements of the averaged weights, the network's own accuracy beside them."""
        student = accuracy_score(*self.answers(self.loader_dict[eval_dest], out_key)[:2])
        if self.device.type == "cuda":
            measured = super().evaluate(eval_dest, out_key, return_logits)
        else:
            measured = self._evaluate_average(eval_dest, out_key, return_logits)
        measured[f"{eval_dest}/student-top-1-acc"] = student
        return measured

    def _evaluate_average(
        self, eval_dest: str, out_key: str, return_logits: bool
    ) -> dict[str, Any]:
        self.ema.apply_shadow()
        try:
            truth, predicted, logits = self.answers(self.loader_dict[eval_dest], out_key)
        finally:
            self.ema.restore()
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, average="macro", zero_division=0
        )
        loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth), ignore_index=-1)
        measured = {
            "loss": float(loss),
            "top-1-acc": accuracy_score(truth, predicted),
            "balanced_acc": balanced_accuracy_score(truth, predicted),
            "precision": precision,
            "recall": recall,
            "F1": f1,
        }
        if return_logits:
            measured["logits"] = logits
        return {f"{eval_dest}/{name}": value for name, value in measured.items()}

    @torch.no_grad()
    def answers(
        self, loader: Any, out_key: str = "logits"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True classes [n], predicted classes [n], logits [n, c], in evaluation mode."""
        training = self.model.training
        self.model.eval()
        truth, logits = [], []
        try:
            for batch in loader:
                truth.append(batch["y_lb"])
                logits.append(self.model(batch["x_lb"].to(self.device))[out_key].float().cpu())
        finally:
            self.model.train(training)
        scores = torch.cat(logits)
        return torch.cat(truth).numpy(), scores.argmax(dim=1).numpy(), scores.numpy()

    def get_save_dict(self) -> dict[str, Any]:
        saved = super().get_save_dict()
        saved["hook_tensors"] = {
            name: {
                k: v.cpu()
                for k, v in vars(hook).items()
                if isinstance(v, Tensor) and not k.startswith("_")
            }
            for name, hook in self.hooks_dict.items()
        }
        return saved

    def load_model(self, load_path: str) -> dict[str, Any]:
        if self.device.type == "cuda":
            return super().load_model(load_path)
        # Past the algorithm's own method, which restores its hooks' tensors with `.cuda`.
        checkpoint = AlgorithmBase.load_model(self, load_path)
        for name, tensors in checkpoint.get("hook_tensors", {}).items():
            if name in self.hooks_dict:  # a hook of the user's own may not be there this time
                vars(self.hooks_dict[name]).update(tensors)
        return checkpoint
