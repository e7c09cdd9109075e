"""The code of a minimal component of a kind, under a name of one's own: cut out of `minimal.py`."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from dlp_plugins.registry import Registry

SOURCE = Path(__file__).with_name("minimal.py")
PLACEHOLDER = '"outside"'  # what each component is registered as there


@dataclass(frozen=True)
class Code:
    """A component's code. symbol: its class or function."""

    symbol: str
    text: str


def component_code(kind: Registry, name: str) -> Code:
    """A working component of that kind, registered as `name`, with the imports that it uses."""
    text = SOURCE.read_text(encoding="utf-8")
    tree = ast.parse(text)
    node = next(n for n in tree.body if _registered_in(n) == kind.kind)
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    imports, taken = _imports(tree, used)
    symbol = _symbol(name, kind, isinstance(node, ast.ClassDef), taken)
    lines = text.splitlines()[node.decorator_list[0].lineno - 1 : node.end_lineno]
    body = "\n".join(lines).replace(PLACEHOLDER, f'"{name}"', 1)
    body = re.sub(rf"\b(class|def) {node.name}\b", rf"\1 {symbol}", body, count=1)
    doc = f'"""{kind.singular.capitalize()} {name} for dlp-plugins."""'
    return Code(symbol, f"{doc}\n\n{imports}\n\n\n{body}\n")


def _registered_in(node: ast.stmt) -> str | None:
    """`solvers` of `@registry.solvers.register("outside")`."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return None
    for decorator in node.decorator_list:
        found = re.match(r"registry\.(\w+)\.register\(", ast.unparse(decorator))
        if found:
            return found[1]
    return None


def _imports(tree: ast.Module, used: set[str]) -> tuple[str, set[str]]:
    """The import lines that give these names, a blank line between their groups; the names."""
    groups: list[list[str]] = []
    names: set[str] = set()
    last_line = 0
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        kept = [a for a in node.names if future or (a.asname or a.name) in used]
        if node.lineno > last_line + 1:
            groups.append([])
        last_line = node.end_lineno or node.lineno
        if kept:
            node.names = kept
            groups[-1].append(ast.unparse(node))
            names |= {a.asname or a.name for a in kept}
    return "\n\n".join("\n".join(group) for group in groups if group), names


def _symbol(name: str, kind: Registry, is_class: bool, taken: set[str]) -> str:
    """A class or function name for the component, unlike any that its code uses."""
    words = [word for word in re.split(r"[^0-9a-z]+", name.lower()) if word.isascii()]
    for parts in (words, [*words, kind.singular], [kind.singular, *words, "component"]):
        found = "".join(map(str.capitalize, parts)) if is_class else "_".join(parts)
        reserved = keyword.iskeyword(found) or hasattr(builtins, found)
        if found.isidentifier() and not reserved and found not in taken:
            return found
    raise AssertionError(f"no name for {name!r}")  # the last one is always free
