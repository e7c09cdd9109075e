"""Every key that a recipe may hold: its type, range, default and meaning, read from the code.

The tables come from `Recipe`, the parameters from the registry; `extends` alone, which the reader
of the file takes out, is listed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from dlp_cli.annotations import bounds_text, range_text, type_text
from dlp_plugins import registry
from dlp_plugins.component import BUILT_IN, Component
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.model import Part, Recipe

COLUMNS = ("key", "type", "range", "default", "meaning")


@dataclass(frozen=True)
class Setting:
    """One key, in words."""

    key: str
    type: str
    range: str
    default: str
    meaning: str

    def row(self, prefix: str = "") -> tuple[str, ...]:
        return (prefix + self.key, self.type, self.range, self.default, self.meaning)


EXTENDS = Setting(
    "extends", "text", "", "", "recipe to start from: a path beside this file, or a name"
)


@dataclass(frozen=True)
class SettingsTable:
    """A table of a recipe.

    key: 'solver' for [solver]; empty for the keys above all tables.
    repeated: it may stand several times, as [[key]].
    default: of a component's table, the component that is taken where the recipe names none.
    kind: of a component's table, the registry's name for its components.
    """

    key: str
    model: type[BaseModel]
    repeated: bool = False
    default: str = ""
    kind: str = ""

    @property
    def title(self) -> str:
        brackets = ("[[", "]]") if self.repeated else ("[", "]")
        return self.key.join(brackets) if self.key else "above all tables"

    def settings(self) -> list[Setting]:
        """Its own keys, which hold whatever component is named."""
        hidden = {"name", "params"} if self.kind else set()
        rows = [
            Setting(
                name,
                type_text(field.annotation),
                range_text(field.annotation) or bounds_text(field.metadata),
                "required" if field.is_required() else default_text(field.get_default()),
                field.description or "",
            )
            for name, field in self.model.model_fields.items()
            if name not in hidden and table_model(field.annotation) is None
        ]
        if self.kind:
            meaning = f"the component: {', '.join(registry.of_kind(self.kind).names())}"
            rows.insert(0, Setting("name", "text", "", self.default, meaning))
        return rows if self.key else [EXTENDS, *rows]

    def components(self) -> list[Component]:
        """Those that come with the project and can be imported here."""
        found = []
        for name in registry.of_kind(self.kind).names() if self.kind else ():
            try:
                component = registry.of_kind(self.kind).find(name)
            except DlpError:
                continue  # `dlp list KIND` shows what is wrong with it
            if component.origin == BUILT_IN:
                found.append(component)
        return found


def tables() -> list[SettingsTable]:
    """Every table of a recipe, in its order."""
    return [SettingsTable("", Recipe), *_tables_of(Recipe, "")]


def _tables_of(model: type[BaseModel], prefix: str) -> Iterator[SettingsTable]:
    for name, field in model.model_fields.items():
        inner = table_model(field.annotation)
        if inner is None:
            continue
        if issubclass(inner, Part):
            default = field.get_default(call_default_factory=True)
            parts = default if isinstance(default, list | tuple) else [default] if default else []
            names = ", ".join(part.name for part in parts)
            kind = registry.of_kind(name).kind
            repeated = _is_list(field.annotation)
            yield SettingsTable(prefix + name, inner, repeated, names, kind)
        else:
            yield SettingsTable(prefix + name, inner, _is_list(field.annotation))
        yield from _tables_of(inner, f"{prefix}{name}.")


def parameters(component: Component) -> list[Setting]:
    """What a component takes beside the keys of its table."""
    return [
        Setting(
            p.name,
            type_text(p.annotation),
            range_text(p.annotation),
            "required" if p.required else default_text(p.default),
            p.description,
        )
        for p in component.parameters
    ]


def default_text(value: Any) -> str:
    """As a recipe would write it; nothing for an optional key that is not set."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def table_model(annotation: Any) -> type[BaseModel] | None:
    """The model behind a key that is a table, or a list of tables."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (table_model(a) for a in get_args(annotation) if a is not type(None))
    return next((model for model in found if model), None)


def _is_list(annotation: Any) -> bool:
    nested = get_args(annotation)
    return get_origin(annotation) in (list, tuple) or any(_is_list(a) for a in nested)
