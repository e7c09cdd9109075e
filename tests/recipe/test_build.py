"""What a recipe says of propagation reaches the propagator."""

from __future__ import annotations

from dlp_plugins.normalizers import Normalizer
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import PROPAGATION, normalizers, of_kind


class Half(Normalizer):
    """Scores as they are."""

    def apply(self, scores, total, shares):
        return scores


def test_every_part_by_the_name_that_the_recipe_gives():
    normalizers.register("half")(Half)
    try:
        settings = ("normalizer=half", "solver.alpha=0.9", "pseudo_labels.certainty_scale=all")
        propagator = build_propagator(load_recipe("digits", (*settings, "graph.mutual=true")))
    finally:
        normalizers.unregister("half")
    assert isinstance(propagator.normalizer, Half)
    assert propagator.solver.alpha == 0.9
    assert (propagator.certainty_scale, propagator.mutual) == ("all", True)


def test_the_defaults_are_the_papers_names_stated_once():
    recipe = load_recipe("digits")
    assert {part: getattr(recipe, part).name for part in PROPAGATION} == PROPAGATION
    propagator = build_propagator(recipe)
    for part, name in PROPAGATION.items():
        assert type(getattr(propagator, part)) is of_kind(part).get(name).factory
    assert propagator.certainty_scale == "unlabeled"
