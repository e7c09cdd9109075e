"""Each consistency method against none on real images: minutes long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from steps import NAMES

from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training.run import run

# Stage one alone, 30 labels. The descriptor is not normalised: that bounds the logits, and no
# prediction would reach FixMatch's threshold.
DIGITS = [
    "dataset.num_labeled=30", "backbone.width=16", "backbone.normalize_descriptor=false",
    "augmentation.rotate=15.0", "augmentation.strong_magnitude=0.3", "augmentation.cutout=0.25",
    "training.stage_one_steps=20", "training.stage_two_epochs=0", "training.evaluate_every=1000",
]  # fmt: skip
ON_DIGITS = {  # the papers' ramp-ups are longer than these 20 epochs
    "mean_teacher": ["weight=30.0"],
    "pi_model": ["ramp_up_epochs=5.0"],
    "temporal_ensembling": ["weight=120.0", "ramp_up_epochs=10.0"],
    "vat": ["epsilon=1.0"],
    "fixmatch": ["ema_decay=0.97"],
    "mixup": [],
    "ict": ["weight=30.0", "ramp_up_epochs=5.0", "ema_decay=0.97"],
}


def errors_on_digits(name: str, folder: Path) -> list[float]:
    """The student's test error in percent, for each of three seeds."""
    own = [f"consistency.{setting}" for setting in ON_DIGITS.get(name, [])]
    recipes = [
        load_recipe("digits", [*DIGITS, f"consistency.name={name}", *own, f"seed={seed}"])
        for seed in range(3)
    ]
    return [
        run(recipe, folder / str(recipe.seed), device="cpu")["test_error"] for recipe in recipes
    ]


@pytest.fixture(scope="module")
def errors_without(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return errors_on_digits("none", tmp_path_factory.mktemp("none"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"none"}))
def test_lowers_the_error_on_digits(name: str, errors_without: list[float], tmp_path: Path) -> None:
    """The mean over three seeds, student against student, at settings that suit digits."""
    errors = errors_on_digits(name, tmp_path)
    print(f"{name}: {errors}, none: {errors_without}")
    assert np.mean(errors) < np.mean(errors_without)
