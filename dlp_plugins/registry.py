"""One registry for each kind of component: names to factories, found without importing them.

A component reaches a registry in one of three ways:

* it is built in: `dlp_plugins/<kind>/<name>.py` registers `<name>` with the decorator;
* an installed package names it in the entry-point group `dlp_plugins.<kind>`;
* a user's own file or notebook calls the decorator (`dlp run R --plugin my_solver.py`).

Listing names imports none of them; a component is imported when it is used. Its parameters are the
parameters of its signature, so a recipe can be checked against them.

>>> from dlp_plugins.registry import solvers
>>> "cg" in solvers.names()
True
>>> solvers.build("cg", alpha=0.9).alpha
0.9
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, TypeVar

from dlp_plugins.component import BUILT_IN, Component
from dlp_plugins.errors import PluginError, RegistryError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """The components of one kind.

    Args:
        kind: plural name, also the package of the built-in ones and the entry-point group's suffix;
            `singular` is what a recipe calls its table.
        base: `module:Class` every component must give an instance of; imported when first needed.
        context: names of arguments that the program supplies when it builds a component.
    """

    def __init__(self, kind: str, base: str, context: Iterable[str] = ()) -> None:
        self.kind = kind
        self.group = f"dlp_plugins.{kind}"
        self._base = base
        self.singular = {"affinities": "affinity"}.get(kind, kind.removesuffix("s"))
        self._context = frozenset(context)
        self._components: dict[str, Component] = {}

    # -- registration ---------------------------------------------------------------------------

    def register(
        self,
        name: str,
        *,
        requires: Iterable[str] = (),
        extra: str | None = None,
        family: bool = False,
    ) -> Callable[[F], F]:
        """Decorator that registers a class or function under `name`.

        Args:
            name: what a recipe writes. Lower case, digits, `_`, `-`, `.`.
            requires: import names of packages that the component needs when it is built.
            extra: the extra of dlp-plugins that installs them.
            family: the component serves every `name:member`; its first argument is the member.

        Raises:
            RegistryError: the name is malformed or taken, or the class has the wrong base.
        """
        self.check_name(name)

        def decorate(factory: F) -> F:
            self._add(
                Component(
                    kind=self.kind,
                    name=name,
                    factory=factory,
                    origin=_origin(factory),
                    requires=tuple(requires),
                    extra=extra,
                    family=family,
                    context=self._context,
                )
            )
            return factory

        return decorate

    def _add(self, new: Component) -> None:
        if inspect.isclass(new.factory) and not issubclass(new.factory, self.base):
            raise RegistryError(
                f"{self.kind} '{new.name}' ({new.origin}): {new.factory.__name__} must be a "
                f"subclass of {self.base.__module__}.{self.base.__qualname__}."
            )
        old = self._components.get(new.name)
        if old and not _same_code(old.factory, new.factory):
            raise self._taken(new.name, old.origin, new.origin)
        if not old and new.origin != BUILT_IN:
            if new.name in self._built_in():
                raise self._taken(new.name, BUILT_IN, new.origin)
            for entry in self._entry_points().get(new.name, []):
                if entry.module != new.factory.__module__:
                    raise self._taken(new.name, _distribution(entry), new.origin)
        self._components[new.name] = new

    def _taken(self, name: str, first: str, second: str) -> RegistryError:
        return RegistryError(
            f"{self.kind} '{name}' is registered twice: by {first} and by {second}. "
            "Rename one, or uninstall the package that you do not want."
        )

    def check_name(self, name: str) -> None:
        """Raise RegistryError unless a component may have this name."""
        if not isinstance(name, str):  # the decorator without brackets
            raise RegistryError(f'A component needs a name: @{self.kind}.register("my_name").')
        if not name or not all(c.islower() or c.isdigit() or c in "_-." for c in name):
            raise RegistryError(
                f"'{name}' cannot name one of {self.kind}: use lower-case letters, digits, _ - ."
            )

    def unregister(self, name: str) -> None:
        """Forget a component registered at run time (for tests and notebooks)."""
        self._components.pop(name, None)

    # -- look-up --------------------------------------------------------------------------------

    @cached_property
    def base(self) -> type:
        """The class every component of this kind derives from."""
        module, _, name = self._base.partition(":")
        return getattr(importlib.import_module(module), name)

    def names(self) -> list[str]:
        """Every known name, sorted; imports no component."""
        return sorted({*self._components, *self._built_in(), *self._entry_points()})

    def find(self, name: str) -> Component:
        """The component or family of that name; a member after a colon is not looked at.

        Raises:
            RegistryError: no such name; the message lists the valid ones and the nearest.
            PluginError: the plug-in's package fails at import, or registers something else.
        """
        stem = name.partition(":")[0]
        component = self._components.get(stem) or self._load(stem)
        if component is None:
            raise RegistryError(
                f"There is no {self.kind} component '{name}'.{did_you_mean(name, self.names())} "
                f"Available: {', '.join(self.names())}. If a file of your own registers it, give "
                "that file with --plugin FILE."
            )
        return component

    def get(self, name: str) -> Component:
        """The component that `name` selects, for a family by `name:member`.

        Raises:
            RegistryError: as `find`; or the family has no such member.
            PluginError: as `find`.
        """
        stem, colon, member = name.partition(":")
        component = self.find(name)
        if component.family and not member:
            raise RegistryError(
                f"{self.kind} '{stem}' is a family: write '{stem}:<name>'."
                + _some_members(component.members())
            )
        if colon and not component.family:
            raise RegistryError(f"{self.kind} '{stem}' takes no ':{member}'.")
        if member and (offered := component.members()) is not None and member not in offered:
            raise RegistryError(
                f"{self.kind} '{stem}' offers no '{member}'.{did_you_mean(member, offered)}"
                + _some_members(offered)
            )
        return component

    def build(self, name: str, /, **arguments: Any) -> Any:
        """Build a component. Context arguments it does not declare are left out.

        Raises:
            RegistryError, PluginError: as `get`; or what was built is not of this kind.
            MissingDependency: an optional package is not installed.
        """
        component = self.get(name)
        component.check_dependencies()
        signature = inspect.signature(component.factory).parameters
        given = {k: v for k, v in arguments.items() if k in signature or k not in self._context}
        member = [name.partition(":")[2]] if component.family else []
        built = component.factory(*member, **given)
        if not isinstance(built, self.base):
            raise PluginError(
                f"{self.kind} '{name}' ({component.origin}) built a {type(built).__name__}; it "
                f"must be a {self.base.__module__}.{self.base.__qualname__}."
            )
        return built

    def describe(self, component: Any) -> tuple[str, dict[str, Any]]:
        """The name and the parameters of which `build` makes the same component.

        Raises:
            RegistryError: its class is not registered, or does not keep its parameters.
        """
        for name, known in self._components.items():
            if known.factory is type(component):
                parameters = [p.name for p in known.parameters]
                if all(hasattr(component, p) for p in parameters):
                    return name, {p: getattr(component, p) for p in parameters}
        raise RegistryError(
            f"{component!r} cannot be saved by name: register its class among {self.kind}, and let "
            "it keep its parameters as attributes."
        )

    # -- where components come from ---------------------------------------------------------------

    def _built_in(self) -> list[str]:
        """File names of the kind's package: `cg.py` registers `cg`, `a__b.py` registers `a-b`."""
        folder = Path(__file__).parent / self.kind
        return [
            m.name.replace("__", "-")
            for m in pkgutil.iter_modules([str(folder)])
            if not m.name.startswith("_") and m.name != "contract"
        ]

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in _installed_entry_points().select(group=self.group):
            known = found.setdefault(entry.name, [])
            if all(entry.value != k.value for k in known):
                known.append(entry)
        return found

    def _load(self, name: str) -> Component | None:
        claims = self._entry_points().get(name, [])
        if name in self._built_in():
            if claims:
                raise self._taken(name, BUILT_IN, _distribution(claims[0]))
            module = name.replace("-", "__")  # a hyphen can stand in no module's name
            return self._import(name, f"dlp_plugins.{self.kind}.{module}", BUILT_IN)
        if len(claims) > 1:
            raise self._taken(name, *map(_distribution, claims[:2]))
        return self._load_entry_point(claims[0]) if claims else None

    def _import(self, name: str, module: str, origin: str) -> Component:
        try:
            importlib.import_module(module)
        except RegistryError:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(name, origin, error) from error
        if name not in self._components:
            raise PluginError(
                f"{self.kind} '{name}' ({origin}): importing {module} did not register that name."
            )
        return self._components[name]

    def _load_entry_point(self, entry: EntryPoint) -> Component:
        origin = _distribution(entry)
        try:
            loaded = entry.load()
        except RegistryError:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(entry.name, origin, error) from error
        if entry.name not in self._components:
            if not callable(loaded):
                raise PluginError(
                    f"{self.kind} '{entry.name}' ({origin}): the entry point {entry.value} neither "
                    "registers that name nor is a class or function."
                )
            self.register(entry.name)(loaded)
        return self._components[entry.name]

    def _broken(self, name: str, origin: str, error: BaseException) -> PluginError:
        return PluginError(
            f"{self.kind} '{name}' from {origin} fails at import: "
            f"{type(error).__name__}: {error}. The other components still work; fix or uninstall "
            "it."
        )


def _installed_entry_points() -> EntryPoints:
    """Entry points of all installed packages; read again only if a folder has changed."""
    return _read_entry_points(tuple((p, _modified(p)) for p in sys.path))


@lru_cache(maxsize=1)
def _read_entry_points(folders: tuple[tuple[str, int], ...]) -> EntryPoints:
    found: Any = entry_points()  # typed as what it was before Python 3.12
    return found


def _modified(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _same_code(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """A module imported again (reload, `--plugin` twice) registers the same code again."""

    def place(factory: Callable[..., Any]) -> tuple[str, str]:
        try:
            source = inspect.getfile(factory)
        except (TypeError, OSError):
            source = factory.__module__
        return source, factory.__qualname__

    return old is new or ("<locals>" not in old.__qualname__ and place(old) == place(new))


def _origin(factory: Callable[..., Any]) -> str:
    module = factory.__module__
    if module.partition(".")[0] == "dlp_plugins":
        return BUILT_IN
    for kind in KINDS:
        for entries in kind._entry_points().values():
            for entry in entries:
                if entry.module == module:
                    return _distribution(entry)
    source = getattr(sys.modules.get(module), "__file__", None)
    return source or module


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _some_members(offered: list[str] | None) -> str:
    if not offered:
        return ""
    return f" For example: {', '.join(offered[:5])} ({len(offered)} in all)."


def load_plugin_file(path: Path) -> None:
    """Import a user's file so that its decorators register their components.

    It can import modules that lie beside it. Warns of a file that registers nothing.

    Raises:
        PluginError: the file does not exist or fails at import; the message names file and cause.
    """
    if not path.is_file():
        raise PluginError(f"--plugin {path}: there is no such file.")
    if path.suffix != ".py":  # a compiled module would be loaded, too
        raise PluginError(f"--plugin {path}: not a Python file (its name must end in .py).")
    name = f"dlp_user_plugin_{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that what lies there hides nothing installed
    before = _registered()
    try:
        spec.loader.exec_module(module)
    except RegistryError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"--plugin {path} fails at import: {type(error).__name__}: {error}"
        ) from error
    if _registered() == before:
        warnings.warn(
            f"--plugin {path} registers nothing. A component needs a decorator above its class: "
            'from dlp_plugins.registry import solvers, then @solvers.register("my_solver").',
            stacklevel=2,
        )


def _registered() -> list[Component]:
    return [component for kind in KINDS for component in kind._components.values()]


datasets = Registry("datasets", "dlp_plugins.datasets.contract:Dataset")
augmentations = Registry(
    "augmentations", "dlp_plugins.augmentations.contract:Augmentation", context=("mean", "std")
)
backbones = Registry("backbones", "torch.nn:Module", context=("input_shape",))
transforms = Registry("transforms", "dlp_plugins.transforms.contract:Transform")
graphs = Registry("graphs", "dlp_plugins.graphs.contract:GraphBuilder")
affinities = Registry("affinities", "dlp_plugins.affinities.contract:Affinity")
solvers = Registry("solvers", "dlp_plugins.solvers.contract:Solver")
normalizers = Registry("normalizers", "dlp_plugins.normalizers.contract:Normalizer")
refiners = Registry("refiners", "dlp_plugins.refiners.contract:Refiner")
weighters = Registry("weighters", "dlp_plugins.weighters.contract:Weighter")
balancers = Registry("balancers", "dlp_plugins.balancers.contract:Balancer")
consistency = Registry(
    "consistency", "dlp_plugins.consistency.contract:Consistency", context=("num_classes",)
)
sources = Registry("sources", "dlp_plugins.sources.contract:Source")
optimizers = Registry("optimizers", "torch.optim:Optimizer", context=("params",))
schedules = Registry("schedules", "dlp_plugins.schedules.contract:Schedule")
trackers = Registry("trackers", "dlp_plugins.trackers.contract:Tracker", context=("folder",))
selectors = Registry("selectors", "dlp_plugins.selectors.contract:Selector")

KINDS: tuple[Registry, ...] = (
    datasets, augmentations, backbones, transforms, graphs, affinities, solvers, normalizers,
    refiners, weighters, balancers, sources, consistency, optimizers, schedules, trackers,
    selectors,
)  # fmt: skip

# The parts of a propagation in the order in which they act, each with the paper's component.
PROPAGATION = {
    "transform": "none",
    "graph": "exact",
    "affinity": "inner_product",
    "solver": "cg",
    "normalizer": "clamp",
    "refiner": "none",
    "weighter": "entropy",
    "balancer": "inverse_frequency",
}

# The same for embeddings of which few have a label, where these are more accurate (docs/labels.md);
# training recipes keep the paper's. The builder is that of up to EXACT_POINTS points.
EMBEDDINGS = PROPAGATION | {
    "transform": "auto",
    "normalizer": "class_mass",
    "refiner": "discriminant",
}
EMBEDDINGS_K, EMBEDDINGS_ALPHA = 10, 0.9
EMBEDDINGS_START_ALPHA = 0.8  # from a classifier's probabilities, which need to spread less far
EXACT_POINTS = 100_000
SELECTOR = "coverage"  # the most accurate of them all on three sets (docs/suggest.md)


def graph_for(points: int) -> str:
    """The graph builder for so many embeddings, where none is chosen."""
    return EMBEDDINGS["graph"] if points <= EXACT_POINTS else "cells"


def of_kind(kind: str) -> Registry:
    """The registry of that kind, singular or plural.

    Raises:
        RegistryError: no such kind.
    """
    for candidate in KINDS:
        if kind in (candidate.kind, candidate.singular):
            return candidate
    names = [k.kind for k in KINDS]
    own = next((k.singular for k in KINDS if kind in k.names()), None)
    hint = f" It is a {own}: dlp show {own} {kind}." if own else did_you_mean(kind, names)
    raise RegistryError(f"There is no kind '{kind}'.{hint} Kinds: {', '.join(names)}.")


def raised_by(error: BaseException) -> str | None:
    """A sentence that names the component in whose file an exception was raised, or passed through.

    None where no component had a part in it. Of several, the innermost is named.
    """
    by_file: dict[str, list[Component]] = {}
    for kind in KINDS:
        for component in kind._components.values():
            with contextlib.suppress(TypeError, OSError):  # built in C, or typed at a prompt
                by_file.setdefault(inspect.getfile(component.factory), []).append(component)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        found = by_file.get(frame.f_code.co_filename)
        if found is None:
            continue
        here = (frame.f_code, type(frame.f_locals.get("self")))
        own = [c for c in found if c.factory in here or _code(c.factory) in here] or found
        names = " or ".join(f"{c.kind} '{c.name}'" for c in own)
        return (
            f"{names} ({frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}) raised "
            f"{type(error).__name__}: {error}. Fix that component, or choose another."
        )
    return None


def _code(factory: Any) -> Any:
    return getattr(factory, "__code__", factory)


def list_components(kind: str | None = None) -> dict[str, list[str]]:
    """Names of components by kind, of all kinds or one (singular or plural); imports none of them.

    Raises:
        RegistryError: no such kind.

    >>> list_components("weighter")
    {'weighters': ['entropy', 'margin', 'max_probability', 'uniform']}
    """
    return {k.kind: k.names() for k in ([of_kind(kind)] if kind else KINDS)}
