"""What a recipe may hold: tables and keys with their types, ranges, meanings and defaults.

A recipe is data: it names registered components, never code to run. `check.py` reads and checks it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlp_plugins.registry import PROPAGATION

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of a TOML file: unknown keys and lax conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Part(Table):
    """A component by name. Every other key of its table is a parameter of the component."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict, exclude=True)


class DatasetPart(Part):
    num_labeled: Positive | Literal["all"] = Field(
        "all", description="labelled examples, balanced over classes; all: every known label"
    )
    labeled_indices: str | None = Field(
        None,
        description="file of indices into the training split (JSON, .npy, FILE.npz:KEY, .txt)",
    )
    num_validation: Count = Field(
        0, description="training images held out to choose the best epoch"
    )
    num_train: Positive | None = Field(None, description="use only so many training images")
    num_test: Positive | None = Field(None, description="use only so many test images")
    split_seed: int | None = Field(None, description="seed of these choices; by default the run's")


class BackbonePart(Part):
    normalize_descriptor: bool = Field(True, description="L2-normalise before the linear layer")
    weight_norm_heads: Literal["none", "both", "second"] = Field(
        "none", description="linear heads with weight normalisation; second: the consistency head"
    )
    trains: Literal["all", "none", "adapters", "last_layers"] = Field(
        "all",
        description="of a pretrained backbone; none: the heads alone; adapters: LoRA, needs peft",
    )
    adapter_rank: Positive = Field(8, description="of LoRA's matrices, with trains = adapters")
    last_layers: Positive = Field(
        1, description="blocks at the top that learn, with trains = last_layers"
    )


class GraphPart(Part):
    mutual: bool = Field(False, description="an edge needs both ends to choose each other")


class OptimizerPart(Part):
    decay_norms_and_biases: bool = Field(
        True, description="whether weight decay acts on norms and biases too, as in the paper"
    )
    backbone_rate: float = Field(
        1.0, ge=0, description="factor of the backbone's learning rate; the heads keep theirs"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer to the one before (timm models)",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of the gradient; longer ones are shortened"
    )


class PseudoLabels(Table):
    refresh_epochs: Positive = Field(1, description="epochs between refreshes")
    certainty_scale: Literal["unlabeled", "all"] = Field(
        "unlabeled",
        description="certainty is divided by the largest over these points; all: as the authors do",
    )
    class_shares: Literal["equal", "labels", "estimate"] | list[Share] = Field(
        "equal",
        description="sizes of the classes among unlabelled points, for class_mass, sinkhorn, "
        "discriminant, poisson_mbo and cut: as frequent as among the labels, estimated, or a "
        "number per class",
    )
    mirror_images: bool = Field(
        False, description="descriptors are the mean of an image's and its mirror image's"
    )
    warm_start: bool = Field(False, description="start the solver from the last refresh's scores")
    audit: bool = Field(
        False,
        description="estimate at each refresh how many given labels are wrong, by leaving them out",
    )


class Training(Table):
    stage_one_epochs: Count = Field(180, description="labelled examples only")
    stage_two_epochs: Count = Field(180, description="with pseudo-labels")
    stage_one_steps: Positive | None = Field(
        None, description="steps of an epoch in stage one; by default one pass over its images"
    )
    stage_two_steps: Positive | None = Field(
        None,
        description="steps of an epoch in stage two; by default one pass over unlabelled images",
    )
    batch_size: Positive = Field(100, description="examples in each step")
    labeled_per_batch: Positive = Field(50, description="labelled examples in each batch")
    soft_labels: bool = Field(
        False, description="train on the pseudo-labels' probabilities, not on the best class"
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the network's passes; auto: bfloat16 where processor or GPU has it, else "
        "float32; tf32 and float16 need a GPU",
    )
    deterministic: bool = Field(
        False, description="on a GPU: algorithms that give the same bits again, and are slower"
    )
    sync_batch_norm: bool = Field(
        False, description="several processes on GPUs: batch norm by the whole batch, not by shares"
    )
    channels_last: bool | None = Field(
        None,
        description="memory format of images and convolutions; by default on, but not in float32 "
        "on a GPU, where it is slower",
    )
    compile: bool | Literal["reduce-overhead"] = Field(
        False,
        description="torch.compile the network; reduce-overhead: that of torch.compile, which "
        "replays the network's kernels as CUDA graphs",
    )
    image_memory_mb: Count = Field(
        4096, description="MiB of images of a split to hold in memory; see image_disk_mb for more"
    )
    image_disk_mb: Count = Field(
        16384,
        description="MiB of images of a split, too many for memory, to decode once into an unnamed "
        "file beside the run, if the disk has twice their size free, memory their size, and one "
        "process trains; others are read in every epoch",
    )
    workers: Count | None = Field(
        None, description="processes that read such images; by default one per core, at most 8"
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

    description: str = Field("", description="one sentence; a file that extends this has its own")
    seed: int = Field(0, ge=0, lt=2**31, description="of the whole run")
    dataset: DatasetPart = DatasetPart(name="digits")
    backbone: BackbonePart = BackbonePart(name="small_cnn")
    augmentation: Part = Part(name="image")
    source: Part = Part(name="graph")
    pseudo_labels: PseudoLabels = PseudoLabels()
    transform: Part = Part(name=PROPAGATION["transform"])
    graph: GraphPart = GraphPart(name=PROPAGATION["graph"])
    affinity: Part = Part(name=PROPAGATION["affinity"])
    solver: Part = Part(name=PROPAGATION["solver"])
    normalizer: Part = Part(name=PROPAGATION["normalizer"])
    refiner: Part = Part(name=PROPAGATION["refiner"])
    weighter: Part = Part(name=PROPAGATION["weighter"])
    balancer: Part = Part(name=PROPAGATION["balancer"])
    consistency: Part = Part(name="none")
    optimizer: OptimizerPart = OptimizerPart(name="sgd")
    schedule: Part = Part(name="cosine")
    training: Training = Training()
    tracker: list[Part] = [Part(name="jsonl")]

    def as_dict(self) -> dict[str, Any]:
        """Every setting, defaults filled in, as a recipe file would hold it."""
        data = self.model_dump(exclude_none=True)
        for key in PARTS:
            data[key].update(_plain(getattr(self, key).params))
        for key in LISTS:
            for table, part in zip(data[key], getattr(self, key), strict=True):
                table.update(_plain(part.params))
        return data

    def to_toml(self) -> str:
        """The resolved recipe as TOML."""
        return tomli_w.dumps(self.as_dict())


PARTS: dict[str, type[Part]] = {
    key: field.annotation  # type: ignore[misc]
    for key, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Part)
}
"""Keys that hold one component."""
LISTS: dict[str, type[Part]] = {"tracker": Part}
"""Keys that may stand several times, `[[tracker]]`: a list of components."""


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as TOML can hold them: no None, paths as text, tuples as lists."""
    plain = json.loads(json.dumps(params, default=str))
    return {k: v for k, v in plain.items() if v is not None}
