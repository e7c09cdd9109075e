"""Annotations of parameters in words: what a recipe may write there."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

NAMES = {
    int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path",
    type(None): "nothing", Any: "anything", dict: "table", list: "list", tuple: "list",
}  # fmt: skip
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def type_text(annotation: Any) -> str:
    """The type as a person would say it.

    >>> type_text(float | None), type_text(Literal["graph", "network"])
    ('number', "'graph' or 'network'")
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        # None is only ever a default: TOML cannot write it.
        return " or ".join(type_text(a) for a in arguments if a is not type(None))
    if origin in (list, tuple):
        inner = dict.fromkeys(type_text(a) for a in arguments if a is not ...)
        return f"list of {' or '.join(inner)}"
    plain = origin or annotation
    return NAMES.get(plain, getattr(plain, "__name__", str(plain)))


def bounds(annotation: Any, metadata: Any = ()) -> dict[str, float]:
    """The declared bounds by name: ge, gt, le, lt. Of alternatives, those that have any.

    metadata: of the annotation, where pydantic has taken it off.

    >>> from pydantic import Field
    >>> bounds(Annotated[float, Field(ge=0, lt=1)] | None)
    {'ge': 0, 'lt': 1}
    """
    found: dict[str, float] = {}
    if get_origin(annotation) in (Union, types.UnionType):
        for alternative in get_args(annotation):
            found |= bounds(alternative)
    for item in (*getattr(annotation, "__metadata__", ()), *metadata):
        found |= bounds(None, getattr(item, "metadata", ()))  # pydantic's `Field` holds them
        for name in BOUNDS:
            if (bound := getattr(item, name, None)) is not None:
                found[name] = bound
    return found


def range_text(found: dict[str, float]) -> str:
    """Bounds as a person would write them, or nothing.

    >>> range_text({"ge": 0, "lt": 1})
    '>= 0, < 1'
    """
    return ", ".join(
        f"{BOUNDS[name]} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for name, bound in found.items()
    )
