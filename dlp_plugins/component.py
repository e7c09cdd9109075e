"""What is known of a registered component without building it: parameters, docs, dependencies."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
import shlex
import typing
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, requires
from typing import TYPE_CHECKING, Any

from dlp_plugins.errors import MissingDependency, PluginError

if TYPE_CHECKING:  # half of the time of importing the registry
    from pydantic import BaseModel

BUILT_IN = "dlp-plugins"
NO_BUILD_ISOLATION = ("torch-sparse",)  # extras compiled against the torch that is installed


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component, as a recipe may set it."""

    name: str
    annotation: Any
    default: Any  # inspect.Parameter.empty when the recipe must give it
    description: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Component:
    """A registered component: its factory and what is known of it without building it."""

    kind: str
    name: str
    factory: Callable[..., Any]
    origin: str  # the distribution or file it comes from
    requires: tuple[str, ...] = ()  # packages it imports when it is built
    extra: str | None = None  # the extra of dlp-plugins that installs them
    family: bool = False  # `name:member`; the member is the factory's first argument
    context: frozenset[str] = frozenset()  # arguments the program gives, never a recipe

    @property
    def summary(self) -> str:
        """First line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]

    @cached_property
    def parameters(self) -> list[Parameter]:
        """What a recipe may set, read from the signature."""
        return list(self._read_signature())

    def _read_signature(self) -> Iterable[Parameter]:
        target: Any = self.factory
        # A dataclass's fields are read from it: each base resolves its names in its own module.
        if inspect.isclass(target) and not is_dataclass(target):
            target = target.__init__  # type: ignore[misc]
        try:
            hints = typing.get_type_hints(target, include_extras=True)
        except Exception as error:
            raise PluginError(
                f"{self.kind} '{self.name}' ({self.origin}): an annotation of its signature cannot "
                f"be read: {error}. Import its type at the top of the component's file."
            ) from None
        declared = list(inspect.signature(self.factory).parameters.values())
        if self.family:
            declared = declared[1:]
        for p in declared:
            if p.name in self.context or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            annotation = hints.get(p.name, Any)
            yield Parameter(p.name, annotation, p.default, _description(annotation))

    @cached_property
    def model(self) -> type[BaseModel]:
        """A pydantic model of the parameters: unknown keys and lax conversions are refused."""
        from pydantic import ConfigDict, PydanticUserError, create_model

        fields: dict[str, Any] = {
            p.name: (p.annotation, ... if p.required else p.default) for p in self.parameters
        }
        config = ConfigDict(
            extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
        )
        try:
            with warnings.catch_warnings():
                # A parameter called `json` or `copy` shadows BaseModel's own: harmless here.
                warnings.filterwarnings("ignore", message=".*shadows an attribute")
                return create_model(f"{self.kind}:{self.name}", __config__=config, **fields)
        except (PydanticUserError, TypeError) as error:
            raise PluginError(
                f"{self.kind} '{self.name}' ({self.origin}): its parameters cannot be checked: "
                f"{error}. Annotate them with types that TOML can hold."
            ) from None

    def missing(self) -> list[str]:
        """Required packages that are not installed."""
        return [r for r in self.requires if importlib.util.find_spec(r.partition(".")[0]) is None]

    @property
    def install_command(self) -> str:
        """The command that installs what `missing` names."""
        return (
            install_command(self.extra) if self.extra else f"pip install {' '.join(self.requires)}"
        )

    def check_dependencies(self) -> None:
        """Raise MissingDependency, with the command to run, unless all packages are there."""
        if missing := self.missing():
            raise MissingDependency(
                f"{self.kind} '{self.name}' needs {', '.join(missing)}: not installed. "
                f"Run: {self.install_command}"
            )

    def members(self) -> list[str] | None:
        """The names a family offers after the colon, or None when they cannot be listed."""
        lister = getattr(self.factory, "members", None)
        return list(lister()) if self.family and lister else None


def install_command(extra: str) -> str:
    """The command that installs what an extra of dlp-plugins needs.

    It names the packages and not the extra: dlp-plugins itself is installed from a checkout, where
    pip finds no `dlp-plugins[amg]`.
    """
    isolation = "--no-build-isolation " if extra in NO_BUILD_ISOLATION else ""
    known: list[str] = []
    with contextlib.suppress(PackageNotFoundError):  # run from a checkout that is not installed
        known = requires(BUILT_IN) or []
    packages = [
        requirement.partition(";")[0].strip()
        for requirement in known
        if re.search(rf"extra == ['\"]{extra}['\"]", requirement)
    ]
    return f"pip install {isolation}{shlex.join(packages or [f'.[{extra}]'])}"


def _description(annotation: Any) -> str:
    for extra in getattr(annotation, "__metadata__", ()):
        if text := getattr(extra, "description", None):
            return text
    return ""
