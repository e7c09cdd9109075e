"""One function per method: descriptors in, a function of labels out. Each imports only its own.

A method's first call builds what does not depend on labels (its graph), so that both are timed.
Everyone gets the same unit rows x [n, d] float32 and labels [n] int64, -1 where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

Label = Callable[[np.ndarray], np.ndarray]
"""Labels [n], -1 where there is none, to labels of all points [n]."""
Method = Callable[[np.ndarray, int], Label]

K = 10  # neighbours, for every method that takes it


def dlp(x: np.ndarray, classes: int, settings: tuple[str, ...] = ()) -> Label:
    from benchmarks.label_quality import by_propagation
    from dlp_plugins.embeddings.defaults import propagation_recipe
    from dlp_plugins.recipe.build import build_propagator

    return by_propagation(build_propagator(propagation_recipe(settings, len(x))), x, classes)


def dlp_without_steps(x: np.ndarray, classes: int) -> Label:
    return dlp(x, classes, ("transform=none", "refiner=none"))


def graphlearning(name: str) -> Method:
    """A class of `graphlearning.ssl`, on the library's own graph of k neighbours, its defaults."""

    def method(x: np.ndarray, classes: int) -> Label:
        import graphlearning as gl

        w = gl.weightmatrix.knn(x, K)

        def label(labels: np.ndarray) -> np.ndarray:
            own = np.flatnonzero(labels >= 0)
            found: np.ndarray = getattr(gl.ssl, name)(w).fit_predict(own, labels[own])
            return found

        return label

    return method


def modssc(module: str, name: str, ridge: bool = False) -> Method:
    """A method of ModSSC with its defaults, on its own graph of k neighbours.

    ridge: its eps, without which a graph of several components has no solution.
    """

    def method(x: np.ndarray, classes: int) -> Label:
        from modssc.graph.artifacts import NodeDataset
        from modssc.graph.construction.api import build_graph
        from modssc.graph.specs import GraphBuilderSpec, GraphWeightsSpec

        spec = GraphBuilderSpec(
            k=K, metric="cosine", symmetrize="or", weights=GraphWeightsSpec("cosine"),
            normalize="none", self_loops=False,
        )  # fmt: skip
        graph = build_graph(x, spec=spec, cache=False)
        library = import_module(f"modssc.transductive.methods.{module}")
        spec_of = getattr(library, name.replace("Method", "Spec"))
        method = partial(getattr(library, name), spec_of(eps=1e-3) if ridge else spec_of())

        def label(labels: np.ndarray) -> np.ndarray:
            known = labels >= 0
            y = np.where(known, labels, 0)
            data = NodeDataset(x, y, graph, masks={"train_mask": known})
            scores: np.ndarray = method().fit(data, device="cpu").predict_proba(data)
            return scores.argmax(axis=1)

        return label

    return method


def label_spreading(x: np.ndarray, classes: int) -> Label:
    from sklearn.semi_supervised import LabelSpreading

    def label(labels: np.ndarray) -> np.ndarray:
        model = LabelSpreading(kernel="knn", n_neighbors=K, alpha=0.9, max_iter=100)
        found: np.ndarray = model.fit(x, labels).transduction_
        return found

    return label


def logistic_regression(x: np.ndarray, classes: int) -> Label:
    from sklearn.linear_model import LogisticRegression

    def label(labels: np.ndarray) -> np.ndarray:
        own = labels >= 0
        found: np.ndarray = (
            LogisticRegression(C=10, max_iter=1000).fit(x[own], labels[own]).predict(x)
        )
        return found

    return label


METHODS: dict[str, Method] = {
    "dlp, default": dlp,
    "dlp, without rescaling and discriminant": dlp_without_steps,
    "graphlearning, Laplace": graphlearning("laplace"),
    "graphlearning, Poisson": graphlearning("poisson"),
    "ModSSC, label spreading": modssc("classic.label_spreading", "LabelSpreadingMethod"),
    "ModSSC, Laplace": modssc("classic.laplace_learning", "LaplaceLearningMethod"),
    "ModSSC, Poisson": modssc("pde.poisson_learning", "PoissonLearningMethod", ridge=True),
    "scikit-learn, LabelSpreading": label_spreading,
    "scikit-learn, logistic regression": logistic_regression,
}
PACKAGES = {"dlp": "dlp-plugins", "ModSSC": "modssc"}


def package(method: str) -> str:
    """The distribution that a method comes from."""
    name = method.split(",")[0]
    return PACKAGES.get(name, name)


def importing(method: str) -> list[Any]:
    """Import what the method needs, so that its time can be told from that of its work."""
    modules = {
        "dlp": ["torch", "dlp_plugins.embeddings.run", "dlp_plugins.recipe.build"],
        "graphlearning": ["graphlearning"],
        "ModSSC": ["modssc.graph.construction.api", "modssc.transductive.methods.classic"],
        "scikit-learn": ["sklearn.semi_supervised", "sklearn.linear_model"],
    }[method.split(",")[0]]
    return [import_module(module) for module in modules]
