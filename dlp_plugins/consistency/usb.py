"""USB's algorithms as consistency methods: `consistency = { name = "usb:fixmatch" }`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._terms import cross_entropy
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.registry import consistency

# docs/usb.md says why each of the others cannot be driven as a loss on a batch.
MEMBERS = (
    "adamatch", "comatch", "defixmatch", "fixmatch", "flexmatch", "freematch", "meanteacher",
    "mixmatch", "pimodel", "pseudolabel", "simmatch", "softmatch", "uda",
)  # fmt: skip
# For these USB's data sets make the second view of an unlabelled image a weak one too.
TWO_WEAK_VIEWS = ("meanteacher", "mixmatch", "pimodel")


@consistency.register("usb", requires=("semilearn",), extra="usb", family=True)
class Usb(Consistency):
    """A USB algorithm's own loss on our batch; docs/usb.md says why some are left out.

    Two terms: 'usb', the algorithm's whole loss, its supervised part included; and 'supervised',
    the weighted cross entropy of the examples that carry a propagated label (none in stage one).
    The teacher is USB's average of the student's weights, which is what USB measures.

    Left out: vat (asks for CUDA inside its loss; there is 'vat' without USB), dash (its thresholds
    need a warm-up of USB's own), crmatch and remixmatch (further heads, and rotated images for
    them), fullysupervised and supervised (nothing but the labels: 'none').
    """

    needs_unlabeled = True
    many_processes = False  # USB's algorithms keep thresholds and queues of their own batch

    def __init__(
        self,
        member: str,
        num_classes: int,
        ulb_loss_ratio: Annotated[
            float, Field(ge=0, description="weight of the algorithm's unlabelled loss")
        ] = 1.0,
        ema_m: Annotated[
            float, Field(ge=0, lt=1, description="momentum of the averaged weights")
        ] = 0.999,
        arguments: Annotated[
            dict[str, bool | int | float | str],
            Field(description="the algorithm's own arguments, by USB's names"),
        ] = {},  # noqa: B006 - read only
    ) -> None:
        self.member = member
        self.num_classes = num_classes
        self.ema_m = ema_m
        self.ulb_loss_ratio = ulb_loss_ratio
        self.arguments = dict(arguments)
        self.algorithm: Any = None

    @staticmethod
    def members() -> list[str]:
        """The algorithms of USB that can be driven."""
        return list(MEMBERS)

    def extend(self, network: Network) -> None:
        if self.member in ("comatch", "simmatch"):
            from dlp_plugins.consistency import _usb_projection

            size = int(self.arguments.get("proj_size", _usb_projection.SIZE))
            network.projection = _usb_projection.projection(network.head.in_features, size)

    def begin_stage(self, student: Network, num_examples: int, total_steps: int) -> None:
        from dlp_plugins.consistency import _usb_loss, _usb_projection

        mixed_in = {
            "comatch": _usb_projection.DrivenCoMatch,
            "simmatch": _usb_projection.DrivenSimMatch,
        }
        heads = self.member in mixed_in
        view = (_usb_projection.ProjectedView if heads else _usb_loss.StudentView)(student)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.algorithm = _usb_loss.drive(
            self.member,
            view,
            self.num_classes,
            num_examples,
            # ramps of USB's are shares of num_train_iter; a stage of 0 epochs has 0 steps
            {"ulb_loss_ratio": self.ulb_loss_ratio, "num_train_iter": max(total_steps, 1)},
            self.arguments,
            mixed_in.get(self.member, _usb_loss.Driver),
        )
        self.algorithm.ema = _usb_loss.Average(view, self.teacher, self.ema_m)

    def losses(self, step: Step) -> dict[str, Tensor]:
        batch, labeled = step.batch, step.batch.num_labeled
        if labeled == len(batch):  # every training image is labelled
            return super().losses(step)
        algorithm = self.algorithm
        algorithm.model.called[0] = step.student
        algorithm.it, algorithm.epoch = step.number, int(step.epoch)
        out, _ = algorithm.train_step(**self._views(step, labeled))
        terms = {"usb": out["loss"]}
        terms["supervised"] = out["loss"].new_zeros(())
        if batch.propagated:
            output = step.student(step.view[labeled:])
            loss = cross_entropy(output.logits, batch.targets[labeled:])
            # the batch's mean, as everywhere: over labelled and pseudo-labelled alike
            terms["supervised"] = loss.sum() / len(batch)
        return terms

    def _views(self, step: Step, labeled: int) -> dict[str, Tensor]:
        """Those of USB's inputs that the algorithm's train_step asks for."""
        from dlp_plugins.consistency import _usb_loss

        batch = step.batch
        second = step.weak if self.member in TWO_WEAK_VIEWS else step.strong
        make: dict[str, Callable[[], Tensor]] = {
            "idx_lb": lambda: batch.index[:labeled],
            "x_lb": lambda: step.view[:labeled],
            "x_lb_s": lambda: step.strong(batch.images[:labeled]),
            "y_lb": lambda: batch.labels[:labeled],
            "idx_ulb": lambda: batch.index[labeled:],
            "x_ulb_w": lambda: step.view[labeled:],
            "x_ulb_s": lambda: second(batch.images[labeled:]),
            "x_ulb_s_0": lambda: step.strong(batch.images[labeled:]),
            "x_ulb_s_1": lambda: step.strong(batch.images[labeled:]),
        }
        return {name: make[name]() for name in _usb_loss.wanted(self.member)}

    def after_step(self, student: Network, number: int) -> None:
        self.algorithm.ema.update()

    def state(self) -> dict[str, Tensor]:
        from dlp_plugins.consistency import _usb_loss

        hooks = {f"hooks.{k}": v for k, v in _usb_loss.tensors(self.algorithm).items()}
        return {**super().state(), **hooks}

    def load_state(self, state: dict[str, Tensor]) -> None:
        from dlp_plugins.consistency import _usb_loss

        super().load_state(state)
        hooks = {k.removeprefix("hooks."): v for k, v in state.items() if k.startswith("hooks.")}
        device = next(self.teacher.parameters()).device  # type: ignore[union-attr]
        _usb_loss.restore(self.algorithm, hooks, device)
