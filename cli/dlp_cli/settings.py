"""Every key that a recipe may hold: its type, range, default and meaning, read from the code.

The tables come from `Recipe`, the parameters from the registry; `extends` alone, which the reader
of the file takes out, is listed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from dlp_cli.annotations import bounds, range_text, type_text
from dlp_plugins import registry
from dlp_plugins.component import BUILT_IN, Component
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.model import Part, Recipe

COLUMNS = ("key", "type", "range", "default", "meaning")


@dataclass(frozen=True)
class Setting:
    """One key.

    type: in words. bounds: as `annotations.bounds`. value: the default, None where there is none.
    """

    key: str
    type: str
    meaning: str
    bounds: dict[str, float] = field(default_factory=dict)
    required: bool = False
    value: Any = None

    @property
    def default(self) -> str:
        """In words."""
        return "required" if self.required else default_text(self.value)

    def row(self, prefix: str = "") -> tuple[str, ...]:
        """As COLUMNS."""
        within = range_text(self.bounds)
        return (prefix + self.key, self.type, within, self.default, self.meaning)

    def as_dict(self, prefix: str = "") -> dict[str, Any]:
        """For JSON: the default as the value that it is."""
        return {
            "key": prefix + self.key,
            "type": self.type,
            "bounds": self.bounds,
            "required": self.required,
            "default": json.loads(json.dumps(self.value, default=str)),
            "meaning": self.meaning,
        }


EXTENDS = Setting("extends", "text", "recipe to start from: a path beside this file, or a name")


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
                type_text(info.annotation),
                info.description or "",
                bounds(info.annotation, info.metadata),
                info.is_required(),
                None if info.is_required() else info.get_default(),
            )
            for name, info in self.model.model_fields.items()
            if name not in hidden and table_model(info.annotation) is None
        ]
        if self.kind:
            meaning = f"the component: {', '.join(registry.of_kind(self.kind).names())}"
            rows.insert(0, Setting("name", "text", meaning, value=self.default or None))
        return rows if self.key else [EXTENDS, *rows]

    def as_dict(self, components: bool) -> dict[str, Any]:
        """For JSON; with the parameters of its components, if asked for."""
        prefix = f"{self.key}." if self.key else ""
        found: dict[str, Any] = {
            "table": self.key,
            "repeated": self.repeated,
            "settings": [setting.as_dict(prefix) for setting in self.settings()],
        }
        if components and self.kind:
            found["components"] = [
                {"name": c.name, "parameters": [s.as_dict(prefix) for s in parameters(c)]}
                for c in self.components()
            ]
        return found

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
    for name, info in model.model_fields.items():
        inner = table_model(info.annotation)
        if inner is None:
            continue
        if issubclass(inner, Part):
            default = info.get_default(call_default_factory=True)
            parts = default if isinstance(default, list | tuple) else [default] if default else []
            names = ", ".join(part.name for part in parts)
            kind = registry.of_kind(name).kind
            repeated = _is_list(info.annotation)
            yield SettingsTable(prefix + name, inner, repeated, names, kind)
        else:
            yield SettingsTable(prefix + name, inner, _is_list(info.annotation))
        yield from _tables_of(inner, f"{prefix}{name}.")


def parameters(component: Component) -> list[Setting]:
    """What a component takes beside the keys of its table."""
    return [
        Setting(
            p.name,
            type_text(p.annotation),
            p.description,
            bounds(p.annotation),
            p.required,
            None if p.required else p.default,
        )
        for p in component.parameters
    ]


def default_text(value: Any) -> str:
    """As a recipe would write it; nothing for an optional key that is not set."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def toml_text(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {toml_text(v)}' for k, v in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    # text, numbers, true and false as in TOML
    return json.dumps(value, ensure_ascii=False, default=str)


def table_model(annotation: Any) -> type[BaseModel] | None:
    """The model behind a key that is a table, or a list of tables."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (table_model(a) for a in get_args(annotation) if a is not type(None))
    return next((model for model in found if model), None)


def _is_list(annotation: Any) -> bool:
    nested = get_args(annotation)
    return get_origin(annotation) in (list, tuple) or any(_is_list(a) for a in nested)
