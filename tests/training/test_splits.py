"""Which examples are labelled, held out or used: balance, seeds, published index files."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED

from dlp_plugins.datasets import LazyImages, TensorImages
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.training.splits import (
    choose_labeled,
    choose_subset,
    hold_out_validation,
    load_indices,
    select,
)

LABELS = torch.arange(10).repeat(20)


def counts(labels: torch.Tensor, chosen: torch.Tensor, c: int = 10) -> list[int]:
    return torch.bincount(labels[chosen], minlength=c).tolist()


def test_balanced_sorted_distinct() -> None:
    chosen = choose_labeled(LABELS, 50, 10, seed=0)
    assert counts(LABELS, chosen) == [5] * 10
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.dtype == torch.int64


def test_remainder_goes_to_random_classes() -> None:
    extra = [tuple(counts(LABELS, choose_labeled(LABELS, 53, 10, seed=s))) for s in range(20)]
    assert all(sorted(c) == [5] * 7 + [6] * 3 for c in extra)
    assert len(set(extra)) > 5


def test_small_class_gives_all_it_has() -> None:
    labels = torch.tensor([0] * 2 + [1] * 20 + [2] * 20 + [-1] * 20)
    assert counts(labels, choose_labeled(labels, 30, 3, seed=1), 3) == [2, 14, 14]


@given(
    available=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_as_even_as_the_classes_allow(available: list[int], share: float, seed: int) -> None:
    labels = torch.tensor([j for j, n in enumerate(available) for _ in range(n)] + [-1] * 3)
    count = max(1, round(share * sum(available)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = choose_labeled(labels, count, len(available), seed)
    got = counts(labels, chosen, len(available))
    assert sum(got) == count
    # water-filling: whoever has less than the fullest by more than one has nothing left to give
    assert all(g == n or g >= max(got) - 1 for g, n in zip(got, available, strict=True))


def test_seed_alone_decides() -> None:
    torch.manual_seed(1)
    first = choose_labeled(LABELS, 50, 10, seed=3)
    torch.manual_seed(2)
    np.random.seed(2)
    assert choose_labeled(LABELS, 50, 10, seed=3).equal(first)
    assert not choose_labeled(LABELS, 50, 10, seed=4).equal(first)


def test_all_known_labels_by_default() -> None:
    labels = torch.tensor([0, -1, 1, 1])
    assert choose_labeled(labels, None, 2, seed=0).tolist() == [0, 2, 3]


@pytest.mark.parametrize(("count", "text"), [(0, "1..200"), (201, "201 labelled examples")])
def test_impossible_number_of_labels(count: int, text: str) -> None:
    with pytest.raises(LabelError, match=text):
        choose_labeled(LABELS, count, 10, seed=0)


def test_no_known_label() -> None:
    with pytest.raises(LabelError, match="None of the 3"):
        choose_labeled(torch.full((3,), -1), None, 2, seed=0)


@pytest.mark.parametrize("bad", [10, -2])
def test_label_out_of_range(bad: int) -> None:
    labels = LABELS.clone()
    labels[7] = bad
    with pytest.raises(LabelError, match=f"Label {bad} of training image 7 is outside 0..9"):
        choose_labeled(labels, 50, 10, seed=0)


def test_fewer_labels_than_classes_warns() -> None:
    with pytest.warns(UserWarning, match="3 of 10 classes have no labelled example"):
        assert len(choose_labeled(LABELS, 7, 10, seed=0)) == 7


def test_a_label_for_every_class_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_labeled(LABELS, 10, 10, seed=0)


def test_validation_is_chosen_among_those_given() -> None:
    labeled = choose_labeled(LABELS, 50, 10, seed=0)
    pool = torch.arange(150)
    among = pool[~torch.isin(pool, labeled)]
    held_out = hold_out_validation(LABELS, 40, 10, seed=0, among=among)
    assert counts(LABELS, held_out) == [4] * 10
    assert torch.isin(held_out, among).all()


def test_all_known_labels_among_those_given() -> None:
    labels = torch.tensor([0, -1, 1, 1])
    assert choose_labeled(labels, None, 2, 0, torch.tensor([3, 1, 0])).tolist() == [0, 3]


def test_validation_is_another_choice_than_the_labeled() -> None:
    assert not hold_out_validation(LABELS, 50, 10, 0).equal(choose_labeled(LABELS, 50, 10, 0))


def test_no_validation() -> None:
    assert hold_out_validation(LABELS, 0, 10, seed=0).tolist() == []


def test_too_much_validation() -> None:
    with pytest.raises(LabelError, match="150 are left"):
        hold_out_validation(LABELS, 151, 10, seed=0, among=torch.arange(50, 200))


def test_subset_keeps_the_share_of_unknown() -> None:
    labels = torch.cat([LABELS, torch.full((600,), -1)])
    chosen = choose_subset(labels, 80, 10, seed=0)
    assert counts(labels, chosen[labels[chosen] >= 0]) == [2] * 10
    assert int((labels[chosen] == -1).sum()) == 60
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_whole_subset_is_everything() -> None:
    labels = torch.tensor([0, -1, 1, 1, -1])
    assert choose_subset(labels, 5, 2, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_subset_larger_than_the_whole() -> None:
    with pytest.raises(DataError, match="subset of 201 images"):
        choose_subset(LABELS, 201, 10, seed=0)


def read_number(i: int) -> torch.Tensor:
    return torch.full((1, 2, 2), i, dtype=torch.uint8)


def test_select_tensor_and_lazy_images() -> None:
    labels = torch.arange(6)
    lazy = LazyImages(read_number, labels, (1, 2, 2))
    indices = torch.tensor([4, 1])
    picked = select(lazy, indices)
    assert isinstance(picked, LazyImages)
    eager = select(lazy.load(), indices)
    assert isinstance(eager, TensorImages)
    assert picked.labels.tolist() == eager.labels.tolist() == [4, 1]
    assert pickle.loads(pickle.dumps(picked)).load().images.equal(eager.images)
    assert eager.images[:, 0, 0, 0].tolist() == [4, 1]


def test_index_files(tmp_path) -> None:
    indices = [7, 3, 5]
    (tmp_path / "a.json").write_text(json.dumps(indices))
    (tmp_path / "b.json").write_text(json.dumps({"labeled_indices": indices, "num_train": 9}))
    np.save(tmp_path / "c.npy", np.array(indices, dtype=np.int32))
    (tmp_path / "d.txt").write_text("7\n3\n\n5\n")
    np.savez(tmp_path / "e.npz", indices)
    np.savez(tmp_path / "f.npz", first=[1], second=indices)
    for name in ("a.json", "b.json", "c.npy", "d.txt", "e.npz", "f.npz:second"):
        assert load_indices(tmp_path / name, LABELS).tolist() == [3, 5, 7]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s.npz:ten_503", r"s\.npz: there is no 'ten_503' in it\. Did you mean 'ten_500'\?"),
        ("s.npz:ten_503", r"It holds ten_500, ten_1000\.$"),
        ("s.npz", r"it holds 2 arrays: choose one with .*s\.npz:KEY"),
        ("none.npz:ten_500", r"none\.npz: there is no such file"),
        ("s.npz:", r"s\.npz:: cannot be read"),
    ],
)
def test_a_key_of_an_npz_that_is_not_there(tmp_path, name, says) -> None:
    np.savez(tmp_path / "s.npz", ten_500=[1], ten_1000=[2])
    with pytest.raises(DataError, match=says):
        load_indices(tmp_path / name, LABELS)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data")
def test_the_papers_own_splits() -> None:
    labels = torch.arange(10).repeat(5000)
    found = load_indices(f"{SHARED}/data/splits/lp_deepssl.npz:cifar10_500_10", labels)
    assert len(found) == 500


@pytest.mark.parametrize(
    ("name", "text", "error", "says"),
    [
        ("a.json", "[1, 200]", LabelError, "index 200 is outside 0..199"),
        ("a.json", "[-1]", LabelError, "index -1 is outside"),
        ("a.json", "[4, 1, 4]", LabelError, "index 4 is given more than once"),
        ("a.json", "[2, 6]", LabelError, "label of image 6 is not known"),
        ("a.json", "[]", LabelError, "holds no index"),
        ("a.json", "[1.5]", DataError, "float64"),
        ("a.json", "[[1, 2], [3]]", DataError, "Expected: JSON"),
        ("a.json", "{}", DataError, "labeled_indices"),
        ("a.json", "[1,", DataError, "Expected: JSON"),
        ("a.txt", "one\n", DataError, "'one'"),
        ("a.npy", "not an array", DataError, "a.npy"),
        ("a.npy", "", DataError, "a.npy"),
    ],
)
def test_bad_index_file(tmp_path, name, text, error, says) -> None:
    (tmp_path / name).write_text(text)
    labels = LABELS.clone()
    labels[6] = -1
    with pytest.raises(error, match=says):
        load_indices(tmp_path / name, labels)


def test_missing_index_file(tmp_path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json: cannot be read: No such file"):
        load_indices(tmp_path / "nothing.json", LABELS)
