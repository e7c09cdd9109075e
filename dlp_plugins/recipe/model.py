"""What a recipe may hold: tables and keys with their types, ranges, meanings and defaults.

A recipe is data: it names registered components, never code to run. `check.py` reads and checks it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlp_plugins.augmentations._augmenter import AugmentationSettings
from dlp_plugins.registry import PROPAGATION

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of a TOML file: unknown keys and lax conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Part(Table):
    """A component by name. Every other key of its table is a parameter of the component."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict, exclude=True)


class DatasetPart(Part):
    num_labeled: Positive | None = Field(
        None, description="labelled examples, balanced over classes; by default all known labels"
    )
    labeled_indices: str | None = Field(
        None, description="file of indices into the training split (JSON, .npy, .txt)"
    )
    num_validation: Count = Field(
        0, description="training images held out to choose the best epoch"
    )
    num_train: Positive | None = Field(None, description="use only so many training images")
    num_test: Positive | None = Field(None, description="use only so many test images")
    split_seed: int | None = Field(None, description="seed of these choices; by default the run's")


class BackbonePart(Part):
    normalize_descriptor: bool = Field(True, description="L2-normalise before the linear layer")


class GraphPart(Part):
    mutual: bool = Field(False, description="an edge needs both ends to choose each other")


class PseudoLabels(Table):
    source: Literal["graph", "network"] = Field(
        "graph", description="graph: label propagation; network: its own predictions"
    )
    refresh_epochs: Positive = Field(1, description="epochs between refreshes")
    certainty_scale: Literal["unlabeled", "all"] = Field(
        "unlabeled",
        description="certainty is divided by the largest over these points; all: as the authors do",
    )
    warm_start: bool = Field(False, description="start the solver from the last refresh's scores")


class Training(Table):
    stage_one_epochs: Count = Field(180, description="labelled examples only")
    stage_two_epochs: Count = Field(180, description="with pseudo-labels")
    stage_one_steps: Positive | None = Field(
        None, description="steps of an epoch in stage one; by default one pass over its images"
    )
    batch_size: Positive = 100
    labeled_per_batch: Positive = Field(50, description="labelled examples in each batch")
    learning_rate: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(2e-4, ge=0)
    cosine_epochs: Positive = Field(210, description="epoch at which the cosine would reach 0")
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    compile: bool = Field(False, description="torch.compile the network")
    image_memory_mb: Count = Field(
        4096, description="MiB of images of a split to hold; more are read in every epoch"
    )
    evaluate_every: Positive = Field(1, description="epochs between measurements")
    checkpoint_seconds: float = Field(60.0, ge=0, description="time between checkpoints")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.stage_two_epochs and self.labeled_per_batch >= self.batch_size:
            raise ValueError(
                f"labeled_per_batch ({self.labeled_per_batch}) must be less than batch_size "
                f"({self.batch_size}): stage two needs room for unlabelled examples"
            )
        return self


class Recipe(Table):
    """A checked recipe. Defaults are the paper's, on the embedded data set."""

    description: str = ""
    seed: int = Field(0, ge=0, lt=2**31)
    dataset: DatasetPart = DatasetPart(name="digits")
    backbone: BackbonePart = BackbonePart(name="small_cnn")
    augmentation: AugmentationSettings = AugmentationSettings()
    pseudo_labels: PseudoLabels = PseudoLabels()
    graph: GraphPart = GraphPart(name=PROPAGATION["graph"])
    affinity: Part = Part(name=PROPAGATION["affinity"])
    solver: Part = Part(name=PROPAGATION["solver"])
    normalizer: Part = Part(name=PROPAGATION["normalizer"])
    weighter: Part = Part(name=PROPAGATION["weighter"])
    balancer: Part = Part(name=PROPAGATION["balancer"])
    consistency: Part = Part(name="none")
    training: Training = Training()

    def as_dict(self) -> dict[str, Any]:
        """Every setting, defaults filled in, as a recipe file would hold it."""
        data = self.model_dump(exclude_none=True)
        for key in PARTS:
            data[key].update(_plain(getattr(self, key).params))
        return data

    def to_toml(self) -> str:
        """The resolved recipe as TOML."""
        return tomli_w.dumps(self.as_dict())


PARTS: dict[str, type[Part]] = {
    key: field.annotation  # type: ignore[misc]
    for key, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Part)
}


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as TOML can hold them: no None, paths as text, tuples as lists."""
    plain = json.loads(json.dumps(params, default=str))
    return {k: v for k, v in plain.items() if v is not None}
