"""Normalizers: all rows at once and in blocks; the check finds those that break the contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlp_plugins import testing
from dlp_plugins.embeddings import scores
from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.normalizers import Normalizer
from dlp_plugins.normalizers.clamp import Clamp
from dlp_plugins.propagation import Propagator


def test_clamp_divides_what_is_positive_by_its_sum() -> None:
    scores = torch.tensor([[3.0, 1.0, -2.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1e-39, 0.0]])
    p = Clamp().apply(scores, None, torch.full((3,), 1 / 3))
    assert p.tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("on_disk", [False, True])
def test_sums_over_all_points_are_the_same_in_blocks(tmp_path, monkeypatch, on_disk) -> None:
    monkeypatch.setattr(scores, "BLOCK_ENTRIES", 20)
    random = torch.Generator().manual_seed(0)
    truth = torch.arange(90) % 3
    x = torch.eye(3)[truth] + 0.3 * torch.randn(90, 3, generator=random)
    unit = torch.nn.functional.normalize(x)
    labels = torch.where(torch.arange(90) < 12, truth, -1)
    labels[3:6] = 0  # one class with more labels, so that columns differ
    propagator = Propagator.default(normalizer="class_mass", k=5)
    whole = propagator(x, labels, 3)
    parts = propagate_chunked(
        propagator, lambda tick: unit, labels, 3, ClassChunks(2, on_disk, 0), scratch=tmp_path
    )
    with parts.probabilities as p:
        torch.testing.assert_close(p.rows(slice(0, 90)), whole.probabilities, atol=1e-5, rtol=1e-4)
    assert torch.equal(parts.labels, whole.labels)
    assert not torch.equal(whole.probabilities, Propagator.default(k=5)(x, labels, 3).probabilities)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda z: z.clamp(min=0), "must sum to 1"),
        (lambda z: z.softmax(dim=1), "without a positive score must give zeros"),
        (lambda z: z * 0, "with a positive score must not give zeros"),
        (lambda z: z.double().clamp(min=0), "must be torch.float32"),
        (lambda z: Clamp().apply(z, None, z)[:, :1], "must be"),
        (lambda z: z.clamp_(min=0), "changes the scores"),
        (lambda z: Clamp().apply(z - z.mean(), None, z), "must not give zeros"),
    ],
)
def test_check_normalizer_finds(result, sentence) -> None:
    class Faulty(Normalizer):
        def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
            return result(scores)

    with pytest.raises(AssertionError, match=sentence):
        testing.check_normalizer(Faulty())


def test_check_normalizer_finds_sums_taken_of_one_block() -> None:
    class OneBlock(Normalizer):
        def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
            positive = scores.clamp(min=0)
            return Clamp().apply(positive / positive.sum(dim=0).clamp(min=1e-9), None, shares)

    with pytest.raises(AssertionError, match="how rows are put into blocks"):
        testing.check_normalizer(OneBlock())
