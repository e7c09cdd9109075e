"""The model card: README.md of a run folder, as the Hugging Face hub shows it.

`huggingface_hub.upload_folder(folder_path="runs/photos", repo_id=...)` takes the folder as it is.
"""

from __future__ import annotations

from typing import Any

from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training.folder import CARD_MARK, RunFolder, write_text
from dlp_plugins.training.summary import with_propagation
from dlp_plugins.units import counted, format_seconds

MOST_CLASSES = 100  # named one by one
ERRORS = {
    "supervised_test_error": "labels alone",
    "supervised_teacher_test_error": "labels alone, teacher",
    "test_error": "with label propagation",
    "teacher_test_error": "with label propagation, teacher",
    "best_test_error": "best epoch by validation",
    "best_teacher_test_error": "best epoch by validation, teacher",
}
TEMPLATE = """---
{mark}
pipeline_tag: image-classification
tags:
- image-classification
- semi-supervised-learning
- label-propagation
---

# {title}

A classifier of {classes}, trained by [deep label propagation](https://arxiv.org/abs/1904.04717):
a few labels are spread over the nearest-neighbour graph of all training images.

## Use

With the package `dlp-plugins` and this folder:

```python
import dlp_plugins

classifier = dlp_plugins.load("FOLDER")
classifier.predict(images)  # {shape} {dtype}; names of classes
```

or `dlp predict FOLDER photos/ --out labels.csv`. `model.json` holds classes, mean, deviation and
shape of an input; `checkpoint/student.safetensors` the weights.

## Data

{data}

Classes: {names}.

## Errors

{errors}

Trained for {seconds} with seed {seed}. Not measured: other kinds of images than the training data.

## Recipe

```toml
{recipe}```
"""


def write_card(
    folder: RunFolder, recipe: Recipe, model: dict[str, Any], summary: dict[str, Any],
    counts: dict[str, int],
) -> None:  # fmt: skip
    """Write the card, unless a README.md of somebody's own is there.

    Args:
        model: what model.json holds. summary: what summary.json will hold.
        counts: images for training, of these with a label, and for the test: 'train', 'labeled',
            'test'.

    Raises:
        SaveError: the disk is full or the folder cannot be written.
    """
    if not folder.owns_card():
        return
    classes = [_plain(name) for name in model["classes"]]
    more = len(classes) - MOST_CLASSES
    part = recipe.dataset
    data = (
        f"Data set `{part.name}`: {counts['train']:,} training images, of which "
        f"{counts['labeled']:,} with a label; {counts['test'] or 'no'} test images."
    )
    text = TEMPLATE.format(
        mark=CARD_MARK,
        title=_plain(recipe.description) or folder.path.resolve().name,
        classes=counted(len(classes), "class", "classes"),
        shape=model["shape"],
        dtype=model["dtype"],
        data=data,
        names=", ".join(classes[:MOST_CLASSES]) + (f" and {more:,} more" if more > 0 else ""),
        errors=_errors(summary),
        seconds=format_seconds(summary["seconds"]),
        seed=summary["seed"],
        recipe=recipe.to_toml(),
    )
    write_text(folder.card, text)


def _errors(summary: dict[str, Any]) -> str:
    shown = with_propagation(summary)
    found = {title: shown[key] for key, title in ERRORS.items() if key in shown}
    if not found:
        return "There were no test images, so no error was measured."
    rows = [f"| {title} | {error:.2f} % |" for title, error in found.items()]
    return "\n".join(["| network | test error |", "| --- | --- |", *rows])


def _plain(text: str) -> str:
    """On one line, without what Markdown or HTML would read as a mark."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in line)
