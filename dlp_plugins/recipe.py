"""A recipe: which components, with which parameters, trained how. TOML in, checked recipe out.

Layers, each over the one before: what a file `extends`, the file, `--set` on the command line. A
recipe is data: it names registered components, never code to run. Every problem is reported at
once, each with the file it stands in, the key, what was found and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlp_plugins import registry
from dlp_plugins.augment import AugmentationSettings
from dlp_plugins.errors import DlpError, MissingDependency, did_you_mean, nearest
from dlp_plugins.recipe_files import Layer, RecipeError, find_recipe, override_layer, read_layers

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
    graph: GraphPart = GraphPart(name="exact")
    affinity: Part = Part(name="inner_product")
    solver: Part = Part(name="cg")
    weighter: Part = Part(name="entropy")
    balancer: Part = Part(name="inverse_frequency")
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


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe."""

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.key}: {self.message}"


def load_recipe(recipe: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        recipe: path, or the name of a recipe that comes with the project.
        overrides: `key=value` as on the command line, `solver.alpha=0.9`; the value is TOML, or
            else text. A component's name alone selects it: `solver=power`.

    Raises:
        RecipeError: with every problem found.
        UsageError: no such recipe.
        PluginError, MissingDependency: a named plug-in cannot be loaded.
    """
    return check_layers([*read_layers(find_recipe(recipe)), override_layer(overrides)])


def check_layers(layers: Sequence[Layer]) -> Recipe:
    """Merge layers, later ones over earlier, and check the result."""
    problems: list[Problem] = []
    merged, sources = _merge(layers, problems)
    data: dict[str, Any] = {}
    for key, value in merged.items():
        if key in PARTS and isinstance(value, dict):
            data[key] = _check_part(key, value, sources, problems)
        else:
            data[key] = value
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += _explain(error, Recipe, (), sources)
    if problems:
        raise RecipeError(_report(problems))
    return _fill_defaults(recipe)


Sources = dict[tuple[str, ...], str]


def check_table(model: type[Table], data: dict[str, Any], source: str) -> Any:
    """Check another TOML file of the project (a benchmark suite) with the same kind of message.

    Raises:
        RecipeError: with every problem found.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        sources: Sources = {(key,): source for key in data}
        raise RecipeError(_report(list(_explain(error, model, (), sources)))) from None


def _merge(layers: Sequence[Layer], problems: list[Problem]) -> tuple[dict[str, Any], Sources]:
    merged: dict[str, Any] = {}
    sources: Sources = {}
    for layer in layers:
        for key, value in layer.data.items():
            if key in PARTS and isinstance(value, str):
                value = {"name": value}
            if not isinstance(value, dict):
                merged[key] = value
                sources[(key,)] = layer.source
                continue
            table = merged.setdefault(key, {})
            if not isinstance(table, dict):
                message = f"a key of it is set, but {sources[key,]} says {_short(table)}"
                problems.append(Problem(layer.source, key, message))
                continue
            if key in PARTS and "name" in value:
                _forget_other_component(key, table, value["name"])
            sources[(key,)] = layer.source
            for k, v in value.items():
                table[k] = v
                sources[key, k] = layer.source
    return merged, sources


def _forget_other_component(key: str, table: dict[str, Any], name: Any) -> None:
    """Another component is chosen: parameters meant for the former one do not concern it.

    What neither knows stays, so that a misspelt key is still reported.
    """
    former = table.get("name", Recipe.model_fields[key].default.name)
    if former == name:
        return
    for k in _parameter_names(key, former) - _parameter_names(key, name):
        table.pop(k, None)


def _parameter_names(key: str, name: Any) -> set[str]:
    try:
        return {p.name for p in registry.registry(key).get(name).parameters}
    except (DlpError, AttributeError):
        return set()  # the bad name is reported where the part is checked


def _check_part(
    key: str, table: dict[str, Any], sources: Sources, problems: list[Problem]
) -> dict[str, Any]:
    """Move the component's own parameters to `params`, checked against its signature."""
    kind = registry.registry(key)
    common = {k: v for k, v in table.items() if k in PARTS[key].model_fields and k != "params"}
    own = {k: v for k, v in table.items() if k not in common}
    name = table.setdefault("name", Recipe.model_fields[key].default.name)
    common["name"] = name
    if not isinstance(name, str):
        return common  # the recipe's own model says so
    try:
        component = kind.get(name)
        model = component.model
    except DlpError as error:
        problems.append(Problem(sources.get((key, "name"), "recipe"), f"{key}.name", str(error)))
        return common
    if clash := {p.name for p in component.parameters} & set(PARTS[key].model_fields):
        message = f"'{name}' has a parameter of a name that the recipe itself uses: "
        problems.append(Problem(component.origin, key, message + ", ".join(sorted(clash))))
        return common
    try:
        checked = model.model_validate_json(json.dumps(own, default=str))
    except ValidationError as error:
        allowed = [p.name for p in component.parameters] + list(PARTS[key].model_fields)
        problems += _explain(error, model, (key,), sources, allowed)
    else:
        common["params"] = {k: getattr(checked, k) for k in type(checked).model_fields}
    return common


def check_dependencies(recipe: Recipe) -> None:
    """Raise MissingDependency unless every package that the recipe's components need is there."""
    messages = []
    for key in PARTS:
        try:
            registry.registry(key).get(getattr(recipe, key).name).check_dependencies()
        except MissingDependency as error:
            messages.append(str(error))
    if messages:
        raise MissingDependency("\n".join(messages))


def _fill_defaults(recipe: Recipe) -> Recipe:
    """Write the defaults of components that the recipe does not mention into it."""
    filled = {}
    for key in PARTS:
        part: Part = getattr(recipe, key)
        component = registry.registry(key).get(part.name)
        params = {p.name: p.default for p in component.parameters if not p.required}
        filled[key] = part.model_copy(update={"params": {**params, **part.params}})
    return recipe.model_copy(update=filled)


def _explain(
    error: ValidationError,
    model: type[BaseModel],
    prefix: tuple[str, ...],
    sources: Sources,
    allowed: list[str] | None = None,
) -> Iterable[Problem]:
    for item in error.errors():
        loc = (*prefix, *(str(part) for part in item["loc"]))
        source = next(
            (sources[loc[:i]] for i in range(len(loc), 0, -1) if loc[:i] in sources), "recipe"
        )
        key = ".".join(loc) or "recipe"
        if item["type"] == "extra_forbidden":
            keys = allowed or _keys_at(model, loc[len(prefix) : -1])
            keys = sorted(set(keys) - {"params"})
            message = (
                f"unknown key (found {_short(item['input'])}).{did_you_mean(loc[-1], keys)} "
                f"Allowed: {', '.join(keys) or 'no keys'}."
            )
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
        else:
            message = f"found {_short(item['input'])}; allowed: {_allowed(item, key)}"
        yield Problem(source, key, message)


def _keys_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return list(model.model_fields)


def _allowed(item: Any, key: str) -> str:
    if item["type"] == "model_type":
        return "a component's name, or a table" if key in PARTS else "a table"
    text = item["msg"].removeprefix("Input should be ")
    expected = item.get("ctx", {}).get("expected")
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        match = nearest(
            item["input"], [e.strip(" '") for e in expected.replace(" or ", ",").split(",")]
        )
        return text + (f" (did you mean '{match}'?)" if match else "")
    return text


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)  # true and "x", as TOML writes them
    return text if len(text) <= 60 else text[:57] + "..."


def _report(problems: list[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return f"{len(problems)} problems:\n" + "\n".join(f"  {p}" for p in problems)


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as TOML can hold them: no None, paths as text, tuples as lists."""
    plain = json.loads(json.dumps(params, default=str))
    return {k: v for k, v in plain.items() if v is not None}
