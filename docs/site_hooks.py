"""What MkDocs does beyond mkdocs.yml: pages from elsewhere, formulas, and a check of the result.

MkDocs calls these functions by their names while it builds the site.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

# Pages that lie in the repository's root, where a git host shows them
ROOT_PAGES = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
}  # fmt: skip
KINDS = sorted(path.parent.name for path in ROOT.glob("dlp_plugins/*/contract.py"))
# The Python API: a title and what the page shows
API = {
    "run, load, propagate": (
        "training.run.run",
        "training.load.load",
        "training.load.Classifier",
        "propagation.propagator.propagate",
        "propagation.pseudo_labels.PseudoLabels",
        "recipe.check.load_recipe",
        "registry.list_components",
    ),
    "scikit-learn": (
        "sklearn.GraphLabelPropagation",
        "sklearn.MultiLabelPropagation",
        "sklearn.PrototypePropagation",
    ),
    "embeddings": (
        "embeddings.run.propagate_file",
        "embeddings.options.Options",
        "embeddings.job.FilePropagation",
        "embeddings.index.load_index",
        "embeddings.index.Index",
        "embeddings.suggest.suggest_file",
        "embeddings.explain.explain_file",
        "propagation.influence",
    ),
    "photos": (
        "photos.source.open_photos",
        "photos.embed.embed",
        "photos.predict.predict",
        "photos.export.export",
    ),
    "report": ("report.run.write_report", "report.run.TableFiles"),
    "registry": ("registry.Registry", "registry.load_plugin_file"),
    "contracts": tuple(f"{kind}.contract" for kind in KINDS),
    "testing": ("testing",),
    "errors": ("errors",),
}
MODULES = ("contracts", "testing", "errors")  # pages of whole modules  # fmt: skip


def on_config(config: Any) -> Any:
    sys.path.insert(0, str(ROOT / "docs"))  # for site_docstrings.py and what it imports
    math = {"name": "math", "class": "math", "format": formula}
    config["mdx_configs"].setdefault("pymdownx.superfences", {})["custom_fences"] = [math]
    (reference,) = (part["Reference"] for part in config["nav"] if "Reference" in part)
    (python,) = (part for part in reference if "Python" in part)
    python["Python"] = [{title: api_page(title)} for title in API]
    return config


def api_page(title: str) -> str:
    return f"api/{re.sub('[^a-z]+', '_', title.lower())}.md"


def on_files(files: Files, config: Any) -> Files:
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=with_links(text, "docs/")))
    for title, objects in API.items():
        show = whole_module if title in MODULES else "::: dlp_plugins.{}\n\n".format
        shown = "".join(map(show, objects))
        content = f"# Python: {title}\n\n{shown}"
        files.append(File.generated(config, api_page(title), content=content))
    return files


def whole_module(name: str) -> str:
    """A module under its own name, which for `contract` would not say of what."""
    options = "    options: {show_root_heading: false, heading_level: 3}"
    return f"## dlp_plugins.{name}\n\n::: dlp_plugins.{name}\n{options}\n\n"


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    return with_links(text, "../")


def with_links(text: str, prefix: str) -> str:
    """Links between docs/ and the root as links between pages of the site.

    Other files of the repository are no pages: a link to one becomes its name alone.
    """

    def replaced(found: re.Match[str]) -> str:
        target = found[2]
        if target in ROOT_PAGES:
            return f"{found[1]}({ROOT_PAGES[target]}"
        if prefix and target.startswith(prefix):
            return with_links(f"{found[1]}({target.removeprefix(prefix)}", "")
        return found[0]

    text = re.sub(r"(\])\(([^)#\s]+)", replaced, text)
    return re.sub(r"\[([^\]]+)\]\((examples|benchmarks|recipes|tests)/[^)]+\)", r"`\1`", text)


def formula(source: str, *_: Any, **__: Any) -> str:
    """A block of LaTeX as MathML, which browsers draw by themselves; its source for the ear."""
    drawn = convert(" ".join(source.split()), display="block")
    return f'<div class="formula" role="math" aria-label={quoteattr(source.strip())}>{drawn}</div>'


def on_post_build(config: Any) -> None:
    """No page may fetch anything from elsewhere."""
    fetched = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]+')
    for path in sorted(Path(config["site_dir"]).rglob("*.html")):
        for tag in fetched.findall(path.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in tag:
                raise PluginError(f"{path} fetches from elsewhere: {tag}")
