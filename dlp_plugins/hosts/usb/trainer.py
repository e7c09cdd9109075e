"""USB's convenience class Trainer, on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from semilearn import Trainer
from semilearn.core.utils import get_logger

from dlp_plugins.hosts.usb.device import AnyDevice


class AnyDeviceTrainer(Trainer):
    """`semilearn.Trainer`, which asks for CUDA on construction and at every evaluation."""

    def __init__(self, config: Any, algorithm: AnyDevice, verbose: int = 0) -> None:
        if torch.cuda.is_available():
            super().__init__(config, algorithm, verbose)
            return
        self.config, self.algorithm, self.verbose = config, algorithm, verbose
        self.save_path = str(Path(config.save_dir) / config.save_name)
        self.logger = get_logger(config.save_name, save_path=self.save_path, level="INFO")

    def predict(
        self, data_loader: Any, use_ema_model: bool = False, return_gt: bool = False
    ) -> tuple[np.ndarray, ...]:
        """Predicted classes [n], probabilities [n, c] and, if asked, true classes [n]."""
        if use_ema_model:
            self.algorithm.ema.apply_shadow()
        try:
            truth, predicted, logits = self.algorithm.answers(data_loader)
        finally:
            if use_ema_model:
                self.algorithm.ema.restore()
        probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
        return (predicted, probabilities, truth) if return_gt else (predicted, probabilities)
