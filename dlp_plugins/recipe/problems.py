"""What is wrong with a recipe, in sentences: file, key, what was found, what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dlp_plugins.errors import did_you_mean, nearest
from dlp_plugins.recipe.model import PARTS

UNION_BRANCH = re.compile(r"constrained-|literal\[|bool$")  # how pydantic names a type of several
Sources = dict[tuple[str, ...], str]
"""Where each key was set: ("solver", "alpha") to a file's path, or '--set'."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe."""

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.key}: {self.message}"


def explain(
    error: ValidationError,
    model: type[BaseModel],
    prefix: tuple[str, ...],
    sources: Sources,
    allowed: list[str] | None = None,
) -> Iterable[Problem]:
    either: dict[str, Problem] = {}  # of a key with several types, what each of them allows
    for item in error.errors():
        loc = (*prefix, *(str(part) for part in item["loc"]))
        union = len(loc) > 1 and bool(UNION_BRANCH.match(loc[-1]))
        loc = loc[:-1] if union else loc
        source = next(
            (sources[loc[:i]] for i in range(len(loc), 0, -1) if loc[:i] in sources), "recipe"
        )
        key = ".".join(loc) or "recipe"
        if item["type"] == "extra_forbidden":
            keys = allowed or _keys_at(model, loc[len(prefix) : -1])
            keys = sorted(set(keys) - {"params"})
            message = (
                f"unknown key (found {short(item['input'])}).{did_you_mean(loc[-1], keys)} "
                f"Allowed: {', '.join(keys) or 'no keys'}."
            )
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
        else:
            message = f"found {short(item['input'])}; allowed: {_allowed(item, key)}"
        if union and key in either:
            message = f"{either[key].message} or {_allowed(item, key)}"
        if union:
            either[key] = Problem(source, key, message)
        else:
            yield Problem(source, key, message)
    yield from either.values()


def _keys_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    for part in path:
        if not part.isdecimal():  # of a list of tables, whose model is met already
            found: Any = model.model_fields[part].annotation
            model = next(iter(get_args(found)), found)
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


def short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)  # true and "x", as TOML writes them
    return text if len(text) <= 60 else text[:57] + "..."


def report(problems: Sequence[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return f"{len(problems)} problems:\n" + "\n".join(f"  {p}" for p in problems)
