"""Labels for other tools: CSV as `dlp propagate --labels` reads it, and Label Studio's JSON.

Shapes: n points.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from dlp_plugins._files.writing import to_json
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.live import View


def labels_csv(view: View, classes: list[str], ids: Ids | None) -> str:
    """The labels that people gave: columns `index` (from 0), `id` where points have one, `label`.

    Names are written as they are: the file is read back to the same labels.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", *(["id"] if ids else []), "label"])
    for point in (view.given != UNLABELED).nonzero().squeeze(1).tolist():
        own = [ids.values[point]] if ids else []
        writer.writerow([point, *own, classes[int(view.given[point])]])
    return buffer.getvalue()


def label_studio_json(
    view: View, classes: list[str], name: Callable[[int], str], prefix: str
) -> str:
    """Tasks in Label Studio's basic JSON format, for `<Image name="image" value="$image"/>` and
    `<Choices name="choice" toName="image">`.

    Given labels are annotations, propagated ones predictions with their certainty as the score.

    Args:
        name: of a point's image.
        prefix: what Label Studio finds the images by.
    """
    tasks = []
    for point, (label, certainty) in enumerate(
        zip(view.labels.tolist(), view.certainty.tolist(), strict=True)
    ):
        image = prefix + quote(name(point))
        task: dict[str, Any] = {"data": {"image": image, "index": point}}
        if label >= 0:
            choice = {
                "from_name": "choice",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [classes[label]]},
            }
            if int(view.given[point]) == label:
                task["annotations"] = [{"result": [choice]}]
            else:
                score = round(certainty, 4)
                task["predictions"] = [
                    {"model_version": "dlp-plugins", "score": score, "result": [choice]}
                ]
        tasks.append(task)
    return to_json(tasks)
