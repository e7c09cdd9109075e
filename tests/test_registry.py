"""The registry: names without imports, entry points, a clear error for each way to go wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

import pytest
from pydantic import Field

from dlp_plugins.errors import MissingDependency, PluginError, RegistryError
from dlp_plugins.registry import KINDS, Registry, load_plugin_file, of_kind, solvers, weighters

WEIGHTER = """
    from dlp_plugins.registry import weighters
    from dlp_plugins.weighters.contract import Weighter

    class Half(Weighter):
        '''Certainty one half, always.'''
        def __init__(self, factor: float = 0.5) -> None:
            self.factor = factor

        def certainty(self, probabilities):
            return self.factor * probabilities.new_ones(len(probabilities))
"""


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Afterwards every registry holds only what is built in, and no plug-in is imported."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield monkeypatch
    for name in set(sys.modules) - before:
        if "plugin" in name and not name.startswith("dlp_plugins"):
            del sys.modules[name]
    for kind in KINDS:
        for component in list(kind._components.values()):
            if component.origin != "dlp-plugins":
                kind.unregister(component.name)


@pytest.fixture
def install(tmp_path: Path, restored: Any) -> Any:
    """A function that installs a distribution with entry points of the weighters' group."""

    def install_(distribution: str, module: str, text: str, *entries: str) -> None:
        (tmp_path / f"{module}.py").write_text(dedent(text))
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        lines = ["[dlp_plugins.weighters]", *entries]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        if str(tmp_path) not in sys.path:
            restored.syspath_prepend(str(tmp_path))

    return install_


@pytest.fixture
def plugin(tmp_path: Path, restored: Any) -> Any:
    """A function that writes a user's plug-in file and loads it."""

    def load(text: str, name: str = "mine.py") -> None:
        (tmp_path / name).write_text(dedent(text))
        load_plugin_file(tmp_path / name)

    return load


# -- names ----------------------------------------------------------------------------------------


def test_every_kind_has_components() -> None:
    assert all(kind.names() for kind in KINDS)


def test_names_import_no_component(tmp_path: Path, install: Any) -> None:
    install("noisy", "noisy_plugin", "raise SystemExit('imported!')", "noisy = noisy_plugin:X")
    script = dedent(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from dlp_plugins.registry import KINDS, weighters
        names = [name for kind in KINDS for name in kind.names()]
        assert "cg" in names and "noisy" in weighters.names(), names
        heavy = [m for m in sys.modules if m.startswith(("torch", "faiss", "timm", "noisy_plugin"))]
        assert not heavy, heavy
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_name_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(RegistryError) as caught:
        solvers.get("closed_from")
    message = str(caught.value)
    assert "solvers" in message
    assert "Did you mean 'closed_form'?" in message
    assert all(name in message for name in solvers.names())


def test_kinds_by_singular_or_plural() -> None:
    assert of_kind("solver") is of_kind("solvers") is solvers
    assert of_kind("affinity") is of_kind("affinities")
    with pytest.raises(RegistryError, match=r"Did you mean 'solvers'\?"):
        of_kind("slovers")


# -- entry points ---------------------------------------------------------------------------------


def test_entry_point_class_is_registered_on_use(install: Any) -> None:
    install("half-weights", "half_plugin", WEIGHTER, "half = half_plugin:Half")
    assert "half" in weighters.names()
    assert "half_plugin" not in sys.modules
    component = weighters.get("half")
    assert component.origin == "half-weights"
    assert component.summary == "Certainty one half, always."
    assert [p.name for p in component.parameters] == ["factor"]
    assert weighters.build("half", factor=0.25).factor == 0.25


def test_entry_point_module_that_registers_by_decorator(install: Any) -> None:
    text = dedent(WEIGHTER) + '\nweighters.register("half")(Half)\n'
    install("half-weights", "half_plugin", text, "half = half_plugin")
    assert weighters.get("half").origin == "half-weights"


def test_two_packages_that_claim_one_name(install: Any) -> None:
    install("first", "first_plugin", WEIGHTER, "half = first_plugin:Half")
    install("second", "second_plugin", WEIGHTER, "half = second_plugin:Half")
    with pytest.raises(RegistryError) as caught:
        weighters.get("half")
    assert "registered twice" in str(caught.value)
    assert "first" in str(caught.value)
    assert "second" in str(caught.value)
    assert weighters.build("entropy")  # the others still work


def test_package_that_claims_a_built_in_name(install: Any, restored: Any) -> None:
    weighters.get("margin")
    restored.delitem(weighters._components, "margin")  # as before its first use
    install("taker", "taker_plugin", WEIGHTER, "margin = taker_plugin:Half")
    with pytest.raises(RegistryError, match=r"'margin' is registered twice: by dlp-plugins and by"):
        weighters.get("margin")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("other = 1", "no attribute 'Half'"),
    ],
)
def test_plugin_that_fails_at_import(install: Any, text: str, reason: str) -> None:
    install("bad-package", "bad_plugin", text, "bad = bad_plugin:Half")
    with pytest.raises(PluginError) as caught:
        weighters.get("bad")
    for part in ("bad", "bad-package", reason, "other components still work"):
        assert part in str(caught.value)
    assert weighters.build("entropy")
    assert "bad" in weighters.names()


def test_entry_point_to_something_that_is_no_component(install: Any) -> None:
    install("constant", "constant_plugin", "Half = 3", "constant = constant_plugin:Half")
    with pytest.raises(PluginError, match="neither registers that name nor is a class"):
        weighters.get("constant")


def test_entry_point_of_the_wrong_base(install: Any) -> None:
    install("wrong", "wrong_plugin", "class Half: pass", "wrong = wrong_plugin:Half")
    with pytest.raises(RegistryError, match=r"must be a subclass of .*Weighter"):
        weighters.get("wrong")


# -- a user's file --------------------------------------------------------------------------------


def test_plugin_file_registers(plugin: Any, tmp_path: Path) -> None:
    plugin(dedent(WEIGHTER) + '\nweighters.register("half")(Half)\n')
    assert weighters.build("half").factor == 0.5
    assert weighters.get("half").origin == str(tmp_path / "mine.py")


def test_plugin_file_may_be_loaded_twice(plugin: Any) -> None:
    text = dedent(WEIGHTER) + '\nweighters.register("half")(Half)\n'
    plugin(text)
    plugin(text)
    assert weighters.build("half").factor == 0.5


def test_plugin_file_that_takes_a_built_in_name(plugin: Any) -> None:
    with pytest.raises(
        RegistryError, match=r"'entropy' is registered twice: by dlp-plugins and by"
    ):
        plugin(dedent(WEIGHTER) + '\nweighters.register("entropy")(Half)\n')
    assert type(weighters.build("entropy")).__name__ != "Half"


@pytest.mark.parametrize("name", ["", "Half", "ha lf", "half:x", "half/x"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(RegistryError, match="use lower-case letters"):
        weighters.register(name)


def test_plugin_file_that_is_missing_or_no_python(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"--plugin .*absent\.py: there is no such file"):
        load_plugin_file(tmp_path / "absent.py")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(PluginError, match=r"must end in .py"):
        load_plugin_file(tmp_path / "text.txt")


def test_plugin_file_that_registers_nothing(plugin: Any) -> None:
    with pytest.warns(UserWarning, match=r"mine\.py registers nothing\. A component needs"):
        plugin("class Mine: ...")


def test_plugin_file_that_fails(plugin: Any) -> None:
    with pytest.raises(PluginError, match=r"mine\.py fails at import: ValueError: no luck"):
        plugin("raise ValueError('no luck')")
    with pytest.raises(PluginError, match=r"mine\.py fails at import: SystemExit"):
        plugin("raise SystemExit(1)")


# -- signatures, dependencies, families -----------------------------------------------------------


@pytest.fixture
def shelf() -> Registry:
    """An empty registry of its own, for anything at all."""
    return Registry("things", "builtins:object", context=("size",))


def test_parameters_come_from_the_signature(shelf: Registry) -> None:
    @shelf.register("thing")
    def thing(
        size: int,
        rate: Annotated[float, Field(gt=0, description="how fast")],
        mode: str = "plain",
        **rest: Any,
    ) -> object:
        """A thing."""
        return (size, rate, mode)

    rate, mode = shelf.get("thing").parameters
    assert (rate.name, rate.required, rate.description) == ("rate", True, "how fast")
    assert (mode.name, mode.required, mode.default) == ("mode", False, "plain")
    assert shelf.build("thing", size=3, rate=1.0) == (3, 1.0, "plain")


def test_context_is_given_only_to_those_who_take_it(shelf: Registry) -> None:
    shelf.register("plain")(lambda: "plain")
    assert shelf.build("plain", size=3) == "plain"


def test_unreadable_annotation_is_a_plugin_error(plugin: Any) -> None:
    plugin("""
        from __future__ import annotations
        from dlp_plugins.registry import weighters
        @weighters.register("odd")
        def odd(factor: Nowhere = 1): ...
        @weighters.register("odder")
        def odder(lock: "Lock" = None): ...
        class Lock: ...
    """)
    with pytest.raises(PluginError, match=r"'odd'.*'Nowhere' is not defined"):
        _ = weighters.get("odd").parameters
    with pytest.raises(PluginError, match=r"'odder'.*parameters cannot be checked"):
        _ = weighters.get("odder").model


@pytest.mark.parametrize(
    ("requires", "extra", "command"),
    [
        (("not_there_a", "not_there_b.part"), None, "pip install not_there_a not_there_b.part"),
        (("not_there_a",), "amg", "pip install 'pyamg>=5.2'"),
        (
            ("not_there_a",),
            "torch-sparse",
            "pip install --no-build-isolation 'torch-scatter>=2.1.2' 'torch-sparse>=0.6.18'",
        ),
    ],
)
def test_missing_dependency_says_what_to_run(
    shelf: Registry, requires: tuple[str, ...], extra: str | None, command: str
) -> None:
    shelf.register("needy", requires=requires, extra=extra)(lambda: 1 / 0)
    assert shelf.get("needy").missing() == list(requires)
    with pytest.raises(MissingDependency) as caught:
        shelf.build("needy")
    assert str(caught.value).endswith(f"Run: {command}")
    assert "needy" in str(caught.value)


def test_installed_dependency_passes(shelf: Registry) -> None:
    shelf.register("content", requires=("json", "xml.dom"))(lambda: "built")
    assert shelf.build("content") == "built"


def test_factory_that_builds_something_else() -> None:
    weighters.register("liar")(lambda: 3)
    try:
        with pytest.raises(PluginError, match=r"built a int; it must be a .*Weighter"):
            weighters.build("liar")
    finally:
        weighters.unregister("liar")


def test_families(shelf: Registry) -> None:
    class Member:
        def __init__(self, name: str, size: int = 0) -> None:
            self.name = name

        @staticmethod
        def members() -> list[str]:
            return ["alpha", "beta"]

    shelf.register("zoo", family=True)(Member)
    shelf.register("single")(lambda: None)
    assert shelf.build("zoo:beta").name == "beta"
    assert shelf.find("zoo").members() == ["alpha", "beta"]
    assert shelf.get("zoo:alpha").parameters == []  # the member is not a parameter
    with pytest.raises(RegistryError, match=r"is a family: write 'zoo:<name>'. For example: alpha"):
        shelf.get("zoo")
    with pytest.raises(RegistryError, match=r"offers no 'betta'. Did you mean 'beta'\?"):
        shelf.get("zoo:betta")
    with pytest.raises(RegistryError, match="'single' takes no ':x'"):
        shelf.get("single:x")


def test_a_plugin_imports_what_lies_beside_it_and_hides_nothing(
    tmp_path: Path, plugin: Any
) -> None:
    (tmp_path / "beside.py").write_text("HALF = 0.5")
    (tmp_path / "wave.py").write_text("raise SystemExit('not the library')")
    text = dedent(WEIGHTER) + '\nweighters.register("half")(Half)\n'
    plugin("import wave\nfrom beside import HALF\n" + text)
    assert Path(sys.modules["beside"].__file__ or "").parent == tmp_path
