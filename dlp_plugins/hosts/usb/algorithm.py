"""`dlp` and `dlp_meanteacher`: deep label propagation as algorithms of USB."""

from __future__ import annotations

from typing import Any

import torch
from semilearn.algorithms.utils import SSL_Argument
from semilearn.core.hooks import EMAHook
from semilearn.core.utils import ALGORITHMS
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from dlp_plugins.hosts.usb.arguments import first_propagation_epoch, ssl_arguments
from dlp_plugins.hosts.usb.device import AnyDevice
from dlp_plugins.hosts.usb.hook import LabelPropagationHook
from dlp_plugins.hosts.usb.network import DescriptorNet
from dlp_plugins.schedules._ramp_up import ramp_up
from dlp_plugins.schedules.cosine import Cosine

HEAD_TIE = 0.01  # times the mean squared difference of the two heads' logits


@ALGORITHMS.register("dlp")
class DeepLabelPropagation(AnyDevice):
    """Label propagation for deep semi-supervised learning (Iscen et al., CVPR 2019).

    Stage one, the first `dlp_warm_up` of the epochs: labelled images only. Stage two: before each
    epoch labels spread over the descriptors of all training images; the loss is the batch's mean of
    w_i z_(y_i) CE(f(x_i), y_i), labelled and pseudo-labelled alike. The learning rate's cosine
    starts again with stage two. `uratio: 1` gives the paper's equal shares of a batch.
    """

    views_of = "pseudolabel"  # one weak view of an unlabelled image
    normalize = True
    two_heads = False

    def __init__(self, args: Any, net_builder: Any, tb_log: Any = None, logger: Any = None) -> None:
        self.first_epoch = first_propagation_epoch(args)
        super().__init__(args, net_builder, tb_log, logger)

    @property
    def propagation(self) -> LabelPropagationHook:
        return self.hooks_dict[LabelPropagationHook.__name__]

    @property
    def stage_start(self) -> int:
        """Number of the first step of the stage that the run is in."""
        second = self.first_epoch * self.num_iter_per_epoch
        return second if self.it >= second else 0

    def set_model(self) -> nn.Module:
        return self._wrap(super().set_model())

    def set_ema_model(self) -> nn.Module:
        average = self._wrap(self.net_builder(num_classes=self.num_classes))
        average.load_state_dict(self.check_prefix_state_dict(self.model.state_dict()))
        return average

    def _wrap(self, base: nn.Module) -> DescriptorNet:
        normalize = getattr(self.args, "dlp_normalize", self.normalize)
        return DescriptorNet(base, normalize, self.two_heads)

    def set_optimizer(self) -> tuple[Any, Any]:
        optimizer, _ = super().set_optimizer()
        second = self.first_epoch * self.num_iter_per_epoch
        stages = {0: second, second: self.num_train_iter - second}
        warm_up = self.args.num_warmup_iter

        def factor(step: int) -> float:
            start = second if step >= second else 0
            rising = min(1.0, (step + 1) / (warm_up + 1))
            return rising * Cosine().factor(step - start, stages[start])

        return optimizer, LambdaLR(optimizer, factor)

    def set_hooks(self) -> None:
        super().set_hooks()
        self.register_hook(LabelPropagationHook.from_args(self.args, replace=False))

    def train_step(
        self, x_lb: Tensor, y_lb: Tensor, idx_ulb: Tensor, x_ulb_w: Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        with self.amp_cm():
            if self.propagation.pseudo is None:
                logits, labels, weights = self.model(x_lb)["logits"], y_lb, torch.ones_like(y_lb)
            else:
                logits = self._forward(self.model, x_lb, x_ulb_w)["logits"]
                labels, weights = self._targets(y_lb, idx_ulb)
            losses = self.ce_loss(logits, labels, reduction="none") * weights
        return self._report(losses, len(y_lb), weights)

    def _forward(self, model: nn.Module, *views: Tensor) -> dict[str, Tensor]:
        """The outputs for several views, in one pass or (`use_cat: False`) in one pass each."""
        if self.use_cat:
            return model(torch.cat(views))
        outputs = [model(view) for view in views]
        return {key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}

    def _targets(self, y_lb: Tensor, idx_ulb: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and weights w_i z_(y_i) of a batch, the labelled first (their w is 1)."""
        labels, weights, _ = self.propagation.of_batch(idx_ulb)
        own = self.propagation.class_weights.to(y_lb.device)[y_lb]
        return torch.cat([y_lb, labels.to(y_lb)]), torch.cat([own, weights.to(own)])

    def _report(
        self, losses: Tensor, labeled: int, weights: Tensor, **terms: Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        total = losses.mean() + sum(terms.values())
        log = self.process_log_dict(
            sup_loss=losses[:labeled].sum().item() / len(losses),
            unsup_loss=losses[labeled:].sum().item() / len(losses),
            total_loss=total.item(),
            util_ratio=weights[labeled:].float().mean().item() if len(weights) > labeled else 0.0,
            **{name: term.item() for name, term in terms.items()},
        )
        return self.process_out_dict(loss=total), log

    @staticmethod
    def get_argument() -> list[SSL_Argument]:
        return ssl_arguments(normalize=True)


class TeacherHook(EMAHook):
    """Mean Teacher's average: decay min(1 - 1/(step + 1), ema_m), a fresh copy at each stage."""

    def before_run(self, algorithm: Any) -> None:
        super().before_run(algorithm)
        algorithm.ema_model.to(algorithm.device).train()

    def before_train_epoch(self, algorithm: Any) -> None:
        if algorithm.epoch == algorithm.first_epoch:
            algorithm.ema.register()
            algorithm.ema_model.load_state_dict(algorithm.model.state_dict())

    def after_train_step(self, algorithm: Any) -> None:
        step = algorithm.it - algorithm.stage_start
        algorithm.ema.decay = min(1 - 1 / (step + 1), algorithm.ema_m)
        super().after_train_step(algorithm)


@ALGORITHMS.register("dlp_meanteacher")
class DeepLabelPropagationMeanTeacher(DeepLabelPropagation):
    """Mean Teacher (Tarvainen and Valpola, 2017) together with label propagation.

    The teacher is USB's `ema_model`, the average of the student's weights; it never gets a
    gradient. The student's second head follows the teacher's classes on another view of each
    unlabelled image, from the first stage on: weight `dlp_consistency` (100), ramped up over
    `dlp_rampup_epochs` (5), mean squared error between softmax outputs. The paper's decay is
    `ema_m: 0.97`. Departure: the labelled images, of which USB gives one view, take no part in it.
    """

    views_of = "meanteacher"  # two weak views of an unlabelled image
    normalize = False
    two_heads = True

    def set_hooks(self) -> None:
        super().set_hooks()
        self.register_hook(TeacherHook(), EMAHook.__name__, "HIGH")  # in the place of USB's

    # USB reads what a step takes from its signature, which differs from algorithm to algorithm.
    def train_step(  # type: ignore[override]
        self, x_lb: Tensor, y_lb: Tensor, idx_ulb: Tensor, x_ulb_w: Tensor, x_ulb_s: Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        labeled = len(y_lb)
        with self.amp_cm():
            with torch.no_grad():
                goal = self.compute_prob(self.ema_model(x_ulb_w)["logits"])
            output = self._forward(self.model, x_lb, x_ulb_s)
            logits, follows = output["logits"], output["consistency_logits"]
            if self.propagation.pseudo is None:
                labels, weights = y_lb, torch.ones_like(y_lb)
            else:
                labels, weights = self._targets(y_lb, idx_ulb)
            losses = self.ce_loss(logits[: len(labels)], labels, reduction="none") * weights
            apart = self.consistency_loss(follows[labeled:], goal, "mse")
            tie = HEAD_TIE * (logits - follows).pow(2).mean()
            weight = self.lambda_u * self.args.dlp_consistency * self._rampup()
        return self._report(losses, labeled, weights, consistency=weight * apart, tie=tie)

    def _rampup(self) -> float:
        epoch = (self.it - self.stage_start) / self.num_iter_per_epoch
        return ramp_up(epoch, self.args.dlp_rampup_epochs)

    @staticmethod
    def get_argument() -> list[SSL_Argument]:
        return [
            *ssl_arguments(normalize=False),
            SSL_Argument("--dlp_consistency", float, 100.0, "weight of the consistency loss"),
            SSL_Argument("--dlp_rampup_epochs", float, 5.0, "epochs until it has that weight"),
        ]
