"""New pseudo-labels from the network as it is, and what is known of how good they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from dlp_plugins.embeddings.audit import Audit, audit_by_graph
from dlp_plugins.errors import DivergenceError, UsageError
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.propagation.class_shares import known_shares
from dlp_plugins.recipe.build import build_part, build_propagator
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.sources.contract import Refresh, Source
from dlp_plugins.training import evaluate
from dlp_plugins.training.data import RunData
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.pseudo_labels import PseudoLabelState, accuracy, mean_certainty


@dataclass(frozen=True)
class Labeling:
    """One refresh.

    state: what training uses from now on.
    pseudo: what the source gave.
    certainty: mean over the unlabelled examples.
    accuracy: percent of them with the true label; None where no truth is known.
    seconds: of describing and propagating.
    audit: of the given labels by the graph alone; None where it is not wanted, or there is none.
    """

    state: PseudoLabelState
    pseudo: PseudoLabels
    certainty: float
    accuracy: float | None
    seconds: float
    audit: Audit | None = None

    def metrics(self) -> dict[str, Any]:
        """Health and quality, as the epochs' metrics hold them."""
        found = {k: v for k, v in self.pseudo.health.as_dict().items() if v is not None}
        found.update(certainty=self.certainty, propagation_seconds=self.seconds)
        if self.accuracy is not None:
            found["pseudo_label_accuracy"] = self.accuracy
        if self.audit is not None:
            found["label_errors"] = 100 * self.audit.error_rate
        return found


class Labeler:
    """The recipe's source of pseudo-labels with its propagation.

    Raises:
        UsageError: mirror images are asked for where the inputs are vectors.
        ParameterError: class shares of another number of classes.
    """

    def __init__(
        self, recipe: Recipe, data: RunData, learner: Learner, processes: Processes = ALONE
    ) -> None:
        self.recipe, self.data, self.learner = recipe, data, learner
        self.processes = processes
        self.propagator = replace(build_propagator(recipe), processes=processes)
        # before stage one, which may take hours
        known_shares(self.propagator.class_shares, data.known_labels, data.dataset.num_classes)
        self.source: Source = build_part(recipe, "source")
        self._descriptors: Tensor | None = None
        if recipe.pseudo_labels.mirror_images and len(data.train.source.shape) != 3:
            raise UsageError("pseudo_labels.mirror_images: vectors have no mirror image; leave it.")

    def check_teacher(self) -> None:
        """Raise UsageError if the source needs a teacher that the method does not keep."""
        if self.source.needs_teacher and self.learner.teacher is None:
            raise UsageError(
                f"source.name = {self.recipe.source.name}: consistency "
                f"{self.recipe.consistency.name} keeps no teacher. Take mean_teacher, or the "
                "source graph."
            )

    def refresh(self, former: PseudoLabelState) -> Labeling:
        """Pseudo-labels of all training images.

        Args:
            former: the labels used until now, whose scores the solver may start from.

        Raises:
            DivergenceError: the network's output is not finite.
        """
        started = time.monotonic()
        d, settings = self.data, self.recipe.pseudo_labels
        known_unreadable = len(d.train.unreadable)
        pseudo = self.source.pseudo_labels(
            Refresh(
                student=self.learner.network,
                teacher=self.learner.teacher,
                describe=self._describe,
                predict=lambda network: self._of_all_images(evaluate.predict, network),
                propagator=self.propagator,
                labels=d.known_labels,
                num_classes=d.dataset.num_classes,
                indices=d.indices,
                scores=former.scores,
            )
        )
        if len(d.train.unreadable) > known_unreadable:
            return self.refresh(former)  # without the labels of images that could not be read
        pseudo = self._same_everywhere(pseudo)
        state = PseudoLabelState.propagated(
            pseudo, soft=self.recipe.training.soft_labels, keep_scores=settings.warm_start
        )
        right = accuracy(pseudo, d.truth, d.unlabeled)
        certainty = mean_certainty(pseudo, d.unlabeled)
        seconds = time.monotonic() - started
        audit = None
        if settings.audit and pseudo.graph is not None and self.processes.first:
            alpha = self.propagator.alpha
            audit = audit_by_graph(pseudo.graph, d.known_labels, d.dataset.num_classes, alpha)
        return Labeling(state, pseudo, certainty, right, seconds, audit)

    def _same_everywhere(self, pseudo: PseudoLabels) -> PseudoLabels:
        """The first process's: on GPUs a sum may differ in its last bit from process to process."""
        if self.processes.alone:
            return pseudo
        names = ("labels", "certainty", "reached", "class_weights", "probabilities", "scores")
        held = {n: t for n in names if (t := getattr(pseudo, n)) is not None}
        same: Any = {n: self.processes.tensor_from_first(t) for n, t in held.items()}
        return replace(pseudo, **same)

    def _describe(self, network: nn.Module) -> Tensor:
        """Descriptors [n, d] of all images, averaged with their mirror images' where asked for.

        Those of a frozen backbone never change, so they are computed once.
        """
        frozen = self.recipe.backbone.trains == "none"
        if frozen and self._descriptors is not None:
            return self._descriptors
        found = self._of_all_images(evaluate.describe, network)
        if self.recipe.pseudo_labels.mirror_images:
            found += self._of_all_images(evaluate.describe, network, self._mirrored)
            found /= 2
        if frozen:
            self._descriptors = found
        return found

    def _mirrored(self, images: Tensor) -> Tensor:
        return self.learner.plain(images.flip(-1))

    def _of_all_images(
        self,
        measure: Callable[..., Tensor],
        network: nn.Module,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        # Autocast for the network's passes alone: graph and solver compute in float32.
        with self.learner.accelerator.autocast():
            found = measure(network, self.data.train, view or self.learner.plain, self.processes)
        if not found.isfinite().all():
            raise DivergenceError("the network's output is not finite")
        return found
