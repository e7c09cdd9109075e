"""One data set being labelled: what its pages ask for, and what their answers do.

Shapes: n points, m nodes of the graph, c classes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.errors import LabelError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling import probability
from dlp_plugins.labeling.advice import Suspicion, audit, choose_next, least_certain
from dlp_plugins.labeling.background import Background
from dlp_plugins.labeling.images import ImageFolder
from dlp_plugins.labeling.layout import principal_map
from dlp_plugins.labeling.live import LiveLabels, Space, View
from dlp_plugins.labeling.store import SKIPPED, Answer, LabelStore
from dlp_plugins.propagation.calibration import Calibration
from dlp_plugins.selectors.contract import Selector

if TYPE_CHECKING:
    from dlp_plugins.labeling.from_run import RunPictures

QUEUE = 48  # points chosen at once, two screenfuls, so that the next is there when it is wanted
LOW = 24  # points left in the queue below which new ones are chosen
CLAIM_SECONDS = 300.0  # for so long nobody else is shown what a person has on the screen
DOUBTFUL = 0.5  # doubt above which a label counts as suspicious
# An audit takes as long as several refinements, and so does a calibration. Each then rests for so
# many times its own length. The temperature changes slowly: it is found again when there are a
# tenth more or fewer labels.
REST = 3.0
RECALIBRATE = 1.1

Source = Literal["useful", "uncertain", "class", "suspicious", "points"]


@dataclass(frozen=True)
class Truth:
    """Labels that are known but not shown, to measure accuracy.

    labels: [n] int64, position in `names`, -1 where there is none.
    """

    labels: Tensor
    names: list[str]

    def accuracy(self, view: View, classes: list[str]) -> tuple[float, int] | None:
        """Share of points without a label of their own whose label is right, and their number."""
        number = torch.tensor([classes.index(t) if t in classes else SKIPPED for t in self.names])
        counted = (self.labels != UNLABELED) & (view.given == UNLABELED)
        if not counted.any():
            return None
        right = view.labels[counted] == number[self.labels[counted]]
        return float(right.float().mean()), int(counted.sum())


class Session:
    """Labels of one data set, the same for everyone whose page is open.

    Args:
        ids: of the points, where they have any; shown with them.
        images: None where there are none, and the ids are shown alone.
    """

    def __init__(
        self,
        space: Space,
        store: LabelStore,
        selector: Selector,
        *,
        ids: Ids | None = None,
        images: ImageFolder | RunPictures | None = None,
        truth: Truth | None = None,
    ) -> None:
        self.space, self.store, self.selector = space, store, selector
        self.ids, self.images, self.truth = ids, images, truth
        self.points = len(space.distinct.expand(space.graph.degree))
        self.map = space.distinct.expand(principal_map(space.descriptors))
        self._lock = threading.Lock()
        self._versions = store.versions()
        self._labels = store.labels()
        self.live = LiveLabels(space, self._given(), len(store.classes()))
        self._queue: list[int] = []
        self._suspicions: dict[int, Suspicion] = {}
        self._claims: dict[int, tuple[str, float]] = {}
        self._calibration = probability.usual(space, self.live.view)
        self._calibrated = 0  # labels that the calibration knew
        self._probability: tuple[View, Calibration | None, Tensor] | None = None
        self._advise(LOW)
        self.refiner = Background("refinement of labels", self._refine)
        self.adviser = Background("choice of points", self._advise)
        self.auditor = Background("audit of labels", self._audit, rest=REST)
        self.auditor.wake()
        self.calibrator = Background("calibration", self._calibrate, rest=REST)
        self.calibrator.wake()

    def _works(self) -> tuple[Background, ...]:
        return self.refiner, self.adviser, self.auditor, self.calibrator

    def close(self) -> None:
        for work in self._works():
            work.stop()
        self.store.close()

    # -- answers ----------------------------------------------------------------------------------

    def answer(self, person: str, seen: dict[int, int], label: int | None) -> Answer:
        """Give points a class, SKIPPED or None; returns once that is on the disk and has spread.

        Raises:
            LabelError: no such point or class.
        """
        if bad := [p for p in seen if not 0 <= p < self.points]:
            raise LabelError(f"There is no point {bad[0]}.")
        if label not in (None, SKIPPED) and not 0 <= label < len(self.store.classes()):
            raise LabelError(f"There is no class {label}.")
        with self._lock:
            return self._apply(self.store.answer(person, seen, label))

    def undo(self, person: str) -> Answer:
        """Take back the person's last answer."""
        with self._lock:
            return self._apply(self.store.undo(person))

    def _apply(self, answer: Answer) -> Answer:
        if not answer.changed:
            return answer
        for point, change in answer.changed.items():
            if change.after is None:
                self._labels.pop(point, None)
            else:
                self._labels[point] = change.after
            self._versions[point] = change.version
            self._suspicions.pop(point, None)
        self.live.update(self._given(), len(self.store.classes()))
        for work in self._works():
            work.wake()
        return answer

    def _given(self) -> Tensor:
        """[n] int64 of the labels of now."""
        given = np.full(self.points, UNLABELED, dtype=np.int64)
        for point, label in self._labels.items():
            given[point] = max(label, UNLABELED)
        return torch.from_numpy(given)

    # -- in the background ------------------------------------------------------------------------

    def _refine(self) -> None:
        while not self.live.view.settled:
            self.live.refine()

    def _advise(self, count: int = QUEUE) -> None:
        view = self.live.view
        skipped = torch.tensor([p for p, c in [*self._labels.items()] if c == SKIPPED]).long()
        left = [p for p in self._queue if p not in self._labels]
        if len(left) < LOW:
            left = choose_next(self.space, view, self.selector, skipped, count)
        self._queue = left

    def _audit(self) -> None:
        view = self.live.view
        found = audit(self.space, view)
        now = self.live.view.given
        same = (view.given == now).tolist()  # a label that was changed meanwhile is not in doubt
        self._suspicions = {s.point: s for s in found if same[s.point]}

    def _calibrate(self) -> None:
        view = self.live.view
        labels = int((view.given != UNLABELED).sum())
        low, high = sorted((labels, self._calibrated))
        if high > RECALIBRATE * low:
            found = probability.calibrated(self.space, view)
            self._calibration = found or probability.usual(self.space, view)
            self._calibrated = labels

    def _probabilities(self, view: View) -> Tensor:
        """[n], that each label of the view is right; kept until another view or calibration."""
        kept, calibration = self._probability, self._calibration
        if kept is None or kept[0] is not view or kept[1] is not calibration:
            kept = (view, calibration, probability.probability(self.space, view, calibration))
            self._probability = kept
        return kept[2]

    # -- what pages show --------------------------------------------------------------------------

    def cards(
        self,
        person: str,
        source: Source,
        count: int,
        *,
        label: int = 0,
        points: list[int] | None = None,
        exclude: frozenset[int] = frozenset(),
    ) -> list[dict[str, Any]]:
        """At most `count` points to look at.

        Args:
            source: 'useful' and 'uncertain': without a label, not on anybody else's screen;
                'class': with `label` propagated to them, the least certain first; 'suspicious':
                labels in doubt, the most doubtful first; 'points': those of `points`.
            exclude: points to leave out.
        """
        view = self.live.view
        if source == "points":
            chosen = [p for p in points or [] if 0 <= p < self.points][:count]
        elif source == "suspicious":
            found = [s for s in [*self._suspicions.values()] if s.doubt > DOUBTFUL]
            chosen = [s.point for s in found if s.point not in exclude][:count]
        elif source == "class":
            ordered = least_certain(view, view.labels == label)
            chosen = self._open(ordered, count, exclude)
        else:
            chosen = self._claim(person, view, source, count, exclude)
        return [self._card(view, p) for p in chosen]

    def _claim(
        self, person: str, view: View, source: str, count: int, exclude: frozenset[int]
    ) -> list[int]:
        with self._lock:
            now = time.monotonic()
            self._claims = {
                p: (who, when)
                for p, (who, when) in self._claims.items()
                if who != person and now - when < CLAIM_SECONDS
            }
            shut = exclude | self._claims.keys()
            queue = self._queue if source == "useful" else []
            chosen = self._open(torch.tensor(queue).long(), count, shut)
            if len(chosen) < count:  # the queue is being filled
                more = least_certain(view, torch.ones(self.points, dtype=torch.bool))
                chosen += self._open(more, count - len(chosen), shut | set(chosen))
            self._claims |= dict.fromkeys(chosen, (person, now))
            return chosen

    def _open(self, ordered: Tensor, count: int, shut: frozenset[int]) -> list[int]:
        """The first `count` points that have no label, were not skipped and are not in `shut`."""
        found: list[int] = []
        for part in ordered.split(1024):
            found += [p for p in part.tolist() if p not in self._labels and p not in shut]
            if len(found) >= count:
                break
        return found[:count]

    def _card(self, view: View, point: int) -> dict[str, Any]:
        suspicion = self._suspicions.get(point)
        return {
            "point": point,
            "version": self._versions.get(point, 0),
            "name": self.name(point),
            "given": self._labels.get(point),
            "label": int(view.labels[point]),
            "certainty": round(float(view.certainty[point]), 3),
            "probability": round(float(self._probabilities(view)[point]), 3),
            "doubt": suspicion and round(suspicion.doubt, 3),
            "suggested": suspicion and suspicion.suggested,
        }

    def name(self, point: int) -> str:
        if self.ids is not None:
            return str(self.ids.values[point])
        return self.images.names[point] if self.images else f"point {point}"

    def summary(self) -> dict[str, Any]:
        """Counts, mean probability of labels nobody gave, and accuracy, of now."""
        view, classes = self.live.view, self.store.classes()
        c = len(classes)
        given = torch.bincount(view.given[view.given >= 0], minlength=c).tolist()
        total = torch.bincount(view.labels[view.labels >= 0], minlength=c).tolist()
        unlabeled = view.given == UNLABELED
        likely = self._probabilities(view)[unlabeled]
        right = self.truth.accuracy(view, classes) if self.truth else None
        suspicious = sum(s.doubt > DOUBTFUL for s in [*self._suspicions.values()])
        return {
            "version": view.version,
            "settled": view.settled,
            "classes": [
                {"name": name, "given": given[j], "total": total[j]}
                for j, name in enumerate(classes)
            ],
            "points": self.points,
            "labelled": sum(given),
            "skipped": sum(label == SKIPPED for label in [*self._labels.values()]),
            "unreached": int((view.labels == UNLABELED).sum()),
            "probability": round(float(likely.mean()), 3) if len(likely) else 1.0,
            "accuracy": right and {"share": right[0], "of": right[1]},
            "suspicious": suspicious,
            "problem": next(filter(None, (work.problem for work in self._works())), None),
        }

    def colours(self) -> bytes:
        """[n] of 4 bytes: label + 1 (16 bits, little-endian), certainty in 0..255, given or not."""
        view = self.live.view
        rows = np.empty(self.points, dtype=[("c", "<u2"), ("p", "u1"), ("g", "u1")])
        rows["c"] = view.labels.numpy() + 1
        rows["p"] = (view.certainty.numpy() * 255).round()
        rows["g"] = view.given.numpy() >= 0
        return rows.tobytes()

    def places(self) -> bytes:
        """[n, 2] places on the map, 16 bits each, little-endian."""
        return self.map.numpy().astype("<u2").tobytes()
