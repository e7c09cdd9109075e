"""An installable package around a minimal component: files, checked place, all or nothing."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dlp_plugins.component import BUILT_IN
from dlp_plugins.errors import RegistryError, SaveError, UsageError
from dlp_plugins.registry import Registry, of_kind
from dlp_plugins.scaffold.component import component_code

# How a component is tried out; {key} is its table in a recipe. The rest are taken by --set.
TRY = {
    "trackers": 'dlp run digits --set \'tracker=[{{name="jsonl"}}, {{name="{name}"}}]\'',
    "datasets": "dlp run digits --set dataset={name} --set dataset.num_labeled=20",
    "selectors": "dlp suggest features.npy --out next.csv --selector {name}",
}
TRY_OTHERS = "dlp run digits --set {key}={name}"

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.21"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "{Singular} {name} for dlp-plugins"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["dlp-plugins>={version}"]

[project.optional-dependencies]
test = ["pytest>=8"]

# dlp finds the component by this line; nobody has to import the package.
[project.entry-points."{group}"]
{entry} = "{module}:{symbol}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

TEST = '''\
"""{Singular} {name} keeps the contract of its kind."""

from __future__ import annotations

from dlp_plugins.testing import {check}

from {module} import {symbol}


def test_contract() -> None:
    assert {symbol}.__doc__  # `dlp list {kind}` shows its first line
    {check}("{name}")
'''

README = """\
# {distribution}

{Singular} `{name}` for dlp-plugins. `dlp new {singular} {name}` wrote it, and it works
as it stands: put your own code into `{module}/__init__.py`. What a {singular} must
do is described in `dlp_plugins/{kind}/contract.py`; `{check}` tests it.

```sh
pip install --editable .
dlp show {singular} {name}
{attempt}
python -m pytest
```

The parameters of its signature are what a recipe may set. Give them types and ranges
(`Annotated[float, Field(ge=0)]`), and they are checked before anything starts.
"""


@dataclass(frozen=True)
class Package:
    """A package of one component, not yet written. files: by path within its folder."""

    distribution: str
    module: str
    symbol: str
    files: dict[str, str]


def package_for(kind: str, name: str) -> Package:
    """The package of a minimal component.

    Args:
        kind: of the component, singular or plural.
        name: what a recipe will call it.

    Raises:
        RegistryError: no such kind, a malformed name, or one that is taken.
    """
    registry = of_kind(kind)
    registry.check_name(name)
    if not (name.isascii() and name[0].isalnum() and name[-1].isalnum()):
        raise RegistryError(
            f"'{name}' cannot name a package: begin and end with a letter a-z or a digit."
        )
    if name in registry.names():
        raise RegistryError(
            f"{registry.kind} '{name}' is there already (`dlp show {registry.singular} {name}`). "
            "Choose another name."
        )
    distribution = re.sub(r"[-_.]+", "-", f"dlp-{registry.singular}-{name}")
    module = distribution.replace("-", "_")
    code = component_code(registry, name)
    words = {
        "distribution": distribution,
        "module": module,
        "symbol": code.symbol,
        "name": name,
        "entry": name if re.fullmatch(r"[\w-]+", name) else f'"{name}"',
        "kind": registry.kind,
        "singular": registry.singular,
        "Singular": registry.singular.capitalize(),
        "group": registry.group,
        "check": f"check_{registry.singular}",
        "version": version(BUILT_IN),
        "attempt": try_command(registry, name),
    }
    files = {
        "pyproject.toml": PYPROJECT.format(**words),
        "README.md": README.format(**words),
        f"{module}/__init__.py": code.text,
        f"tests/test_{module}.py": TEST.format(**words),
    }
    return Package(distribution, module, code.symbol, files)


def try_command(kind: Registry, name: str) -> str:
    """A command that uses the component."""
    return TRY.get(kind.kind, TRY_OTHERS).format(key=kind.singular, name=name)


def write_package(package: Package, folder: Path) -> list[Path]:
    """Write the package's files into a folder that is new or empty; all of them or none.

    Raises:
        UsageError: the folder holds something, or there is no folder to put it in.
        SaveError: it could not be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already. Give another folder with --out.")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {folder.parent}.")
    there = folder.exists()
    made: Path | None = None
    moved: list[Path] = []
    try:
        made = (folder if there else parent) / f".{package.distribution}.{secrets.token_hex(4)}"
        made.mkdir()
        for name, text in package.files.items():
            path = made / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if there:  # it may be the working directory, which cannot be replaced
            for path in list(made.iterdir()):
                moved.append(path.replace(folder / path.name))
            made.rmdir()
        else:
            made.replace(folder)
        made = None
    except OSError as error:
        raise SaveError(f"{folder} could not be written: {error.strerror or error}.") from error
    finally:
        for path in [*moved, made] if made is not None else []:
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()  # a file of the package's own
    return [folder / name for name in package.files]
