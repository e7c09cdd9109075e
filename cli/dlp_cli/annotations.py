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


def range_text(annotation: Any) -> str:
    """The declared bounds, or nothing.

    >>> from pydantic import Field
    >>> range_text(Annotated[float, Field(ge=0, lt=1)])
    '>= 0, < 1'
    """
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(filter(None, map(range_text, get_args(annotation))))
    return bounds_text(getattr(annotation, "__metadata__", ()))


def bounds_text(metadata: Any) -> str:
    """The bounds among an annotation's metadata, pydantic's `Field` unpacked."""
    found = []
    for item in metadata:
        if nested := getattr(item, "metadata", None):
            found.append(bounds_text(nested))
        for name, sign in BOUNDS.items():
            if (bound := getattr(item, name, None)) is not None:
                found.append(f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}")
    return ", ".join(filter(None, found))
