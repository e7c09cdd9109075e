"""LabelPropagationHook: labels spread over the network's descriptors before every epoch."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Any

import torch
from semilearn.algorithms.defixmatch import DeFixMatch
from semilearn.core.hooks import Hook
from torch import Tensor
from torch.utils.data import DataLoader

from dlp_plugins.errors import DataError, PluginError
from dlp_plugins.hosts.usb.arguments import build_propagator, first_propagation_epoch
from dlp_plugins.propagation import UNLABELED, Propagator, PseudoLabels

MASKING, LABELING = "MaskingHook", "PseudoLabelingHook"


class LabelPropagationHook(Hook):
    """Gives a USB algorithm graph labels and certainties in place of its own.

    Before every epoch from `first_epoch` on: descriptors of all training images (evaluation mode,
    no augmentation), the graph, labels spread over it. With `replace`, the algorithm's
    `PseudoLabelingHook` then answers with the graph's labels (its probabilities where the algorithm
    wants soft ones) and its `MaskingHook` with w_i z_(y_i), Iscen et al., eq. 12. Before that epoch
    the algorithm is as USB made it; its hooks go on keeping their statistics throughout.

    >>> algorithm.register_hook(LabelPropagationHook.from_args(args))  # doctest: +SKIP

    Attributes:
        pseudo: the last propagation over labelled and unlabelled images; None before the first.
        offset: position of the unlabelled set's first image among the points; None before that.
    """

    def __init__(self, propagator: Propagator, first_epoch: int = 0, replace: bool = True) -> None:
        super().__init__()
        self.propagator = propagator
        self.first_epoch = first_epoch
        self.replace = replace
        self.pseudo: PseudoLabels | None = None
        self.offset: int | None = None
        self._batch: Tensor | None = None  # idx_ulb of the batch in hand
        self._in_place = False

    @classmethod
    def from_args(cls, args: Namespace, replace: bool = True) -> LabelPropagationHook:
        """As a USB config says (`dlp_graph`, `dlp_solver`, ..., `dlp_warm_up`)."""
        return cls(build_propagator(args), first_propagation_epoch(args), replace)

    # -- USB calls these ---------------------------------------------------------------------------

    def before_run(self, algorithm: Any) -> None:
        if self.replace and not self._in_place:
            self._take_over(algorithm)
            self._in_place = True

    def before_train_epoch(self, algorithm: Any) -> None:
        if algorithm.epoch >= self.first_epoch:
            self.refresh(algorithm)

    def after_train_step(self, algorithm: Any) -> None:
        if self.pseudo is not None:
            health = self.pseudo.health
            algorithm.log_dict["train/lp_unreached"] = float(health.unreached)
            algorithm.log_dict["train/lp_residual"] = health.residual or 0.0

    # -- the work ----------------------------------------------------------------------------------

    def refresh(self, algorithm: Any) -> PseudoLabels:
        """Spread the labels over the network as it is now; sets and returns `pseudo`."""
        descriptors, labels = self.points(algorithm)
        self.pseudo = self.propagator(descriptors, labels, algorithm.num_classes)
        convergence = self.pseudo.health.convergence
        if convergence.labels_may_change:
            algorithm.print_fn(f"label propagation (dlp_solver): {convergence.describe()}")
        return self.pseudo

    def points(self, algorithm: Any) -> tuple[Tensor, Tensor]:
        """Descriptors [n, d] and labels [n] of all training images, the labelled ones first."""
        labeled, unlabeled = plain_views(algorithm.loader_dict)
        if self.offset is None:
            # include_lb_to_ulb: the unlabelled set starts with the labelled images themselves
            self.offset = 0 if begins_with(unlabeled, labeled) else len(labeled)
        own, known = describe(algorithm, labeled)
        descriptors, _ = describe(algorithm, unlabeled)
        if self.offset:
            descriptors = torch.cat([own, descriptors])
        labels = known.new_full((len(descriptors),), UNLABELED)
        labels[: len(known)] = known
        return descriptors, labels

    def of_batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels [b], weights w_i z_(y_i) [b] and probabilities [b, c] for idx_ulb [b].

        A point that no label reaches has weight 0 and label 0.
        """
        pseudo = self._latest()
        at = index.to(pseudo.labels.device) + (self.offset or 0)
        return pseudo.labels[at].clamp(min=0), pseudo.weights[at], pseudo.probabilities[at]

    @property
    def class_weights(self) -> Tensor:
        """[c] float32, the balancer's factor z_j of each class."""
        return self._latest().class_weights

    def _latest(self) -> PseudoLabels:
        assert self.pseudo is not None, "no labels were spread yet"
        return self.pseudo

    # -- in place of the algorithm's own labels and masks ------------------------------------------

    def _take_over(self, algorithm: Any) -> None:
        _refuse_unfit(algorithm)
        masking, labeling = algorithm.hooks_dict[MASKING], algorithm.hooks_dict[LABELING]
        process_batch = algorithm.process_batch
        own_mask, own_labels = masking.masking, labeling.gen_ulb_targets

        def with_index(*args: Any, **batch: Any) -> Any:
            self._batch = batch.get("idx_ulb")
            return process_batch(*args, **batch)

        def mask(algorithm: Any, *args: Any, **kwargs: Any) -> Tensor:
            ours = own_mask(algorithm, *args, **kwargs)  # keeps its own statistics up to date
            return ours if self.pseudo is None else self._current(len(ours))[1].to(ours)

        def targets(
            algorithm: Any, logits: Tensor, use_hard_label: bool = True, **kwargs: Any
        ) -> Tensor:
            if self.pseudo is None:
                return own_labels(algorithm, logits, use_hard_label, **kwargs)
            hard, _, soft = self._current(len(logits))
            return hard.to(logits.device) if use_hard_label else soft.to(logits)

        # Attributes of these very objects: nothing of USB's classes is touched.
        algorithm.process_batch = with_index
        masking.masking = mask
        labeling.gen_ulb_targets = targets

    def _current(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        if self._batch is None or len(self._batch) != size:
            raise DataError(
                "The unlabelled batch has no idx_ulb: LabelPropagationHook must know which images "
                "it sees. USB's own data sets give it; yours must return it from __getitem__."
            )
        return self.of_batch(self._batch)


def _refuse_unfit(algorithm: Any) -> None:
    name = type(algorithm).__name__
    if isinstance(algorithm, DeFixMatch):
        raise PluginError(
            f"LabelPropagationHook cannot serve {name}: it asks for pseudo-labels of its labelled "
            "batch as well. Use fixmatch, or algorithm: dlp."
        )
    missing = [hook for hook in (MASKING, LABELING) if hook not in algorithm.hooks_dict]
    if missing:
        raise PluginError(
            f"LabelPropagationHook cannot serve {name}: it has no {' and no '.join(missing)}, so "
            "its pseudo-labels are made where no hook reaches. Use fixmatch, flexmatch, freematch, "
            "softmatch, adamatch, uda or pseudolabel, or algorithm: dlp."
        )


def plain_views(loaders: dict[str, DataLoader]) -> tuple[Any, Any]:
    """Labelled and unlabelled set without augmentation: with the evaluation set's transform."""
    views = []
    for name in ("train_lb", "train_ulb"):
        view: Any = copy.copy(loaders[name].dataset)
        # It then returns what an evaluation set does: idx_lb, x_lb, y_lb.
        view.transform = getattr(loaders["eval"].dataset, "transform", None)
        view.strong_transform, view.is_ulb = None, False
        if getattr(view, "targets", None) is None:
            view.targets = [UNLABELED] * len(view)
        if "x_lb" not in view[0]:
            raise DataError(
                f"{type(view).__name__} gives no x_lb: label propagation inside USB reads its "
                "image data sets (BasicDataset), not text or sound."
            )
        views.append(view)
    return views[0], views[1]


def begins_with(unlabeled: Any, labeled: Any) -> bool:
    """Whether the unlabelled set's first images are the labelled ones, in order."""
    return len(labeled) <= len(unlabeled) and all(
        torch.equal(labeled[i]["x_lb"], unlabeled[i]["x_lb"]) for i in range(len(labeled))
    )


@torch.no_grad()
def describe(algorithm: Any, view: Any) -> tuple[Tensor, Tensor]:
    """Descriptors [n, d] and labels [n] of a plain view, in order, in evaluation mode."""
    model = algorithm.model
    device = next(model.parameters()).device
    loader = DataLoader(
        view, algorithm.args.eval_batch_size, num_workers=algorithm.args.num_workers
    )
    training = model.training
    model.eval()
    descriptors, labels = [], []
    try:
        for batch in loader:
            descriptors.append(model(batch["x_lb"].to(device))["feat"].float())
            labels.append(batch["y_lb"].to(device))
    finally:
        model.train(training)
    return torch.cat(descriptors), torch.cat(labels).long()
