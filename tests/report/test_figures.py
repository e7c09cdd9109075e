"""What the figures draw, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dlp_plugins.report.classes import confusion
from dlp_plugins.report.curves import _lines
from dlp_plugins.report.points import Absent, Points, measurable, printable, sample
from dlp_plugins.report.reliability import reliability


def points(labels, truth, certainty=None, given=None, classes=("a", "b", "c")) -> Points:
    n = len(labels)
    certainty = np.full(n, 0.5) if certainty is None else np.array(certainty)
    known = None if given is None else np.array(given)
    return Points(
        "points", "certainty", np.array(labels), certainty, classes, [str(i) for i in range(n)],
        known, None if truth is None else np.array(truth),
    )  # fmt: skip


def test_given_and_unknown_points_are_not_measured():
    found = points([0, 1, 2, -1], [0, 2, -1, 1], given=[True, False, False, False])
    assert found.measured.tolist() == [1, 3]
    assert found.right.tolist() == [False, False]
    assert isinstance(measurable(points([0], None)), Absent)
    assert isinstance(measurable(points([0], [-1])), Absent)


def test_the_confusion_matrix_counts_points_without_a_label_apart():
    found = confusion(points([0, 0, 1, 1, -1], [0, 1, 1, 1, 2]))
    assert found.tolist() == [[1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 1]]


def test_the_reliability_curve_and_its_error():
    found = reliability(np.array([0.05, 0.15, 0.15, 1.0]), np.array([False, True, False, True]))
    np.testing.assert_allclose(found.certainty, [0.05, 0.15, 1.0])
    np.testing.assert_allclose(found.accuracy, [0, 0.5, 1])
    assert found.count.tolist() == [1, 2, 1]
    assert found.error == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)


def test_a_sample_keeps_what_must_be_kept():
    kept = np.array([3, 99])
    found = sample(100, kept, 10)
    assert len(found) == len(set(found.tolist())) == 10
    assert set(kept) <= set(found)
    assert sample(5, kept[:1], 10).tolist() == [0, 1, 2, 3, 4]
    assert len(sample(100, np.arange(50), 10)) == 10


def test_names_lose_control_characters_and_their_middle():
    assert printable("a\x1b[31m\nb\u202e") == "a?[31m b?"
    assert printable("x" * 50, 11) == "xxxxx…xxxxx"


def test_a_long_curve_keeps_its_last_epoch():
    history = [{"test_error": float(i)} for i in range(500)]
    ((_, _, shown, _),) = _lines({"a": history}, {"test_error": ""})
    assert len(shown) < 500
    assert shown[-1] == (500, 499.0)
