"""`--search`: ranges, logarithms, lists, and what cannot be searched."""

from __future__ import annotations

import pytest

from dlp_plugins.errors import UsageError
from dlp_plugins.tuning.space import Search, combinations, parse_space

optuna = pytest.importorskip("optuna", reason="the extra tune")


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("solver.alpha=0.5..0.999", Search("solver.alpha", (), 0.5, 0.999)),
        ("solver.alpha=0..0.9", Search("solver.alpha", (), 0, 0.9)),
        ("graph.k=5..50", Search("graph.k", (), 5, 50)),
        ("graph.k=5..500:log", Search("graph.k", (), 5, 500, True)),
        ("optimizer.beta=1e-3..1:log", Search("optimizer.beta", (), 1e-3, 1, True)),
        ("graph.k = 10, 20,50", Search("graph.k", ("10", "20", "50"))),
        ("solver=cg,power", Search("solver", ("cg", "power"))),
        ("backbone=timm:resnet18,cnn13", Search("backbone", ("timm:resnet18", "cnn13"))),
    ],
)  # fmt: skip
def test_what_is_searched(text: str, search: Search) -> None:
    assert Search.parse(text) == search


@pytest.mark.parametrize(
    "text",
    [
        "solver.alpha", "=1..2", "a=", "a.=1..2", "a=1", "a=1,1", "a=1,,2", "a=2..1", "a=1..1",
        "a=x..y", "a=0..1:log", "a=-1..1:log", "a=nan..1", "a=0..inf", "seed=1..5",
        "dataset.num_labeled=50,100", "dataset=digits,cifar10",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--search "):
        Search.parse(text)


def test_a_space_names_each_key_once() -> None:
    with pytest.raises(UsageError, match=r"graph\.k is given twice"):
        parse_space(["graph.k=1,2", "graph.k=3..4"])
    with pytest.raises(UsageError, match="--search is missing"):
        parse_space([])
    assert combinations(parse_space(["a=1,2,3", "b=x,y"])) == 6
    assert combinations(parse_space(["a=1,2,3", "b=1..2"])) is None


def test_what_is_drawn_is_what_set_takes() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn: dict[str, list[str]] = {}
    texts = ["f=0.9..0.99999999", "n=1..9", "l=1e-6..1:log", "c=x,y"]
    for _ in range(200):
        trial = study.ask()
        for search in parse_space(texts):
            drawn.setdefault(search.key, []).append(search.draw(trial))
    assert all(0.9 <= float(v) <= 0.99999999 and len(v) <= 10 for v in drawn["f"])
    assert set(drawn["n"]) == set("123456789")
    assert set(drawn["c"]) == {"x", "y"}
    small = sum(float(v) < 1e-3 for v in drawn["l"])
    assert 70 < small < 130  # half of them, as the logarithm is even
