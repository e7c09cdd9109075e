"""Labels on disk: one transaction for each answer, undo, several people, a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dlp_plugins.errors import LabelError, UsageError
from dlp_plugins.labeling.run import listen_again
from dlp_plugins.labeling.store import SKIPPED, LabelStore, check_new_class_name, default_path


@pytest.fixture
def store(tmp_path):
    store = LabelStore(tmp_path / "x.labels.sqlite", "f")
    for name in ("cat", "dog", "bird"):
        store.add_class(name)
    yield store
    store.close()


def test_an_answer_gives_many_points_one_label_and_undo_takes_it_back(store):
    first = store.answer("a", {4: 0, 7: 0}, 1)
    second = store.answer("a", {7: first.changed[7].version, 9: 0}, 2)
    assert store.labels() == {4: 1, 7: 2, 9: 2}
    assert {p: c[:2] for p, c in second.changed.items()} == {7: (1, 2), 9: (None, 2)}
    undone = store.undo("a")
    assert undone.changed == {7: (2, 1, first.changed[7].version), 9: (2, None, 0)}
    assert store.labels() == {4: 1, 7: 1}
    store.undo("a")
    assert store.labels() == {}
    assert store.undo("a").changed == {}


def test_people_do_not_overwrite_each_other(store):
    mine = store.answer("a", {1: 0, 2: 0}, 0)
    theirs = store.answer("b", {2: 0, 3: 0}, 1)  # b's page was loaded before a's answer
    assert (theirs.refused, [*theirs.changed]) == ([2], [3])
    assert store.labels() == {1: 0, 2: 0, 3: 1}
    corrected = store.answer("b", {2: mine.changed[2].version}, 1)  # b has seen it now
    undone = store.undo("a")  # takes back only what is still a's
    assert undone.refused == [2]
    assert store.labels() == {2: 1, 3: 1}
    assert store.versions()[2] == corrected.changed[2].version


def test_undo_is_each_persons_own(store):
    store.answer("a", {1: 0}, 0)
    store.answer("b", {2: 0}, 1)
    store.undo("a")
    assert store.labels() == {2: 1}


def test_a_skipped_point_is_no_label_and_the_same_answer_twice_is_one(store):
    first = store.answer("a", {1: 0}, SKIPPED)
    assert store.labels() == {1: SKIPPED}
    assert store.answer("a", {1: first.changed[1].version}, SKIPPED).changed == {}
    store.undo("a")
    assert store.labels() == {}


def test_classes_keep_their_numbers(store):
    assert store.add_class(" dog ") == 1
    assert store.add_class("fish") == 3
    assert store.classes() == ["cat", "dog", "bird", "fish"]
    for name in ("", "  ", "-1", "NaN", "two\nlines", "x" * 101):
        with pytest.raises(LabelError):
            store.add_class(name)


def opened(path, ids):
    return LabelStore(path, "-".join(ids), ids)


def test_labels_go_with_their_ids_and_those_of_absent_ones_wait(tmp_path):
    path = tmp_path / "x.labels.sqlite"
    store = opened(path, ["a", "b", "c", "d"])
    for name in ("cat", "dog"):
        store.add_class(name)
    store.answer("ann", {0: 0, 1: 0}, 1)
    store.answer("ann", {3: 0}, 0)
    store.close()

    store = opened(path, ["new", "d", "a"])  # b and c are gone, a and d lie elsewhere
    assert store.moved == (2, 1)
    assert store.labels() == {1: 0, 2: 1}
    assert store.versions().keys() == {1, 2}
    undone = store.undo("ann")
    assert undone.changed.keys() == {1}
    store.answer("ann", {0: 0}, 1)
    store.close()

    store = opened(path, ["d", "a"])  # now new is gone too
    assert store.moved == (1, 2)
    assert store.labels() == {1: 1}
    store.close()

    store = opened(path, ["b", "a", "new", "d", "c"])
    assert store.moved == (3, 0)
    assert store.labels() == {0: 1, 1: 1, 2: 1}
    store.undo("ann")
    assert store.undo("ann").changed.keys() == {0, 1}  # the first answer, of a and b
    assert store.labels() == {}
    store.close()
    again = opened(path, ["b", "a", "new", "d", "c"])
    assert again.moved is None
    again.close()
    with pytest.raises(UsageError, match="other embeddings"):
        opened(path, ["x", "y"])


def test_an_older_file_without_ids_learns_them(tmp_path):
    path = tmp_path / "x.labels.sqlite"
    store = LabelStore(path, "a-b")
    store.answer("ann", {1: 0}, store.add_class("cat"))
    store.close()
    with pytest.raises(UsageError, match="other embeddings"):
        opened(path, ["b"])
    opened(path, ["a", "b"]).close()
    store = opened(path, ["b"])
    assert store.labels() == {0: 0}
    store.close()


def test_labels_of_a_file_come_all_at_once(store):
    store.answer_each("file", {4: 1, 2: 0, 7: 1})
    assert store.labels() == {2: 0, 4: 1, 7: 1}
    assert store.undo("file").changed.keys() == {2, 4, 7}


def test_numbers_that_a_file_of_labels_cannot_hold_are_no_new_classes():
    for name in ("-2", "0.5", "inf", "1e3"):
        with pytest.raises(LabelError, match="whole ones from 0"):
            check_new_class_name(name)
    for name in ("3", "3 cats", "in"):
        assert check_new_class_name(name) == name


def test_the_file_of_a_folder_is_called_after_all_of_its_name(tmp_path, monkeypatch):
    run = tmp_path / "a0.5"
    run.mkdir()
    assert default_path(run) == tmp_path / "a0.5.labels.sqlite"
    monkeypatch.chdir(run)
    assert default_path(Path()) == tmp_path / "a0.5.labels.sqlite"
    assert default_path(Path("x.npy")) == run / "x.labels.sqlite"


def test_a_file_in_use_of_other_embeddings_or_of_another_kind_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match="in use"):
        LabelStore(store.path, "f")
    store.close()
    with pytest.raises(UsageError, match="other embeddings"):
        LabelStore(store.path, "g")
    other = tmp_path / "other.sqlite"
    other.write_text("no database" * 100)
    with pytest.raises(UsageError, match="cannot be used"):
        LabelStore(other, "f")


ANSWER_AND_DIE = """
import os, signal, sys
from pathlib import Path
from dlp_plugins.labeling.store import LabelStore
store = LabelStore(Path(sys.argv[1]), "f")
store.add_class("cat")
for point in range(5):
    store.answer("a", {point: 0}, 0)
if sys.argv[2] == "between":  # in the middle of an answer of two points
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("REPLACE INTO labels VALUES (99, 0, 99)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["after", "between"])
def test_a_killed_process_loses_no_answer_and_leaves_no_half_of_one(tmp_path, when):
    path = tmp_path / "x.sqlite"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", ANSWER_AND_DIE, path, when], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert LabelStore(path, "f").labels() == dict.fromkeys(range(5), 0)


def test_a_file_that_was_refused_is_free_again(tmp_path):
    path = tmp_path / "x.labels.sqlite"
    LabelStore(path, "f").close()
    with pytest.raises(UsageError, match="other embeddings") as held:
        LabelStore(path, "g")
    LabelStore(path, "f").close()
    assert held.value is not None  # a notebook keeps the last error


def test_the_port_of_the_page_is_taken_again_if_it_is_free(tmp_path):
    store = LabelStore(tmp_path / "x.sqlite", "f")
    with listen_again(store) as first:
        store.port = first.getsockname()[1]
        with listen_again(store) as second:  # the first still has it
            assert second.getsockname()[1] != store.port
    store.close()
    store = LabelStore(tmp_path / "x.sqlite", "f")
    with listen_again(store) as again:
        assert again.getsockname()[1] == store.port
    store.close()
