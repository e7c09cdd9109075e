"""Labels given by people, in an SQLite file: one transaction for each answer.

An answer is whole on the disk before the page hears of it, so a killed process loses none. Every
point carries the number of the answer that last changed it, its *version*. An answer names the
version that its person saw, and leaves alone a point that somebody else has changed since.

Points are numbers. Where they have ids, the file holds these too: after photos have come, gone or
been sorted otherwise, every label goes with its id. Labels of ids that are gone stay in the file,
under numbers below 0, and count again once these are back.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dlp_plugins.errors import LabelError, SaveError, UsageError

SKIPPED = -2  # a person looked at the point and gave it no class
LONGEST_NAME = 100  # characters of a class
UNUSABLE = ("-1", "nan")  # read as 'no label' from a file of labels
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person TEXT NOT NULL,
    time TEXT NOT NULL,
    undoes INTEGER UNIQUE REFERENCES answers
);
CREATE TABLE changes (
    answer INTEGER NOT NULL REFERENCES answers,
    point INTEGER NOT NULL,
    before INTEGER,
    after INTEGER,
    version INTEGER NOT NULL,  -- of the point before
    PRIMARY KEY (answer, point)
) WITHOUT ROWID;
CREATE TABLE labels (point INTEGER PRIMARY KEY, class INTEGER, answer INTEGER NOT NULL);
"""
POINTS = "CREATE TABLE IF NOT EXISTS points (point INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)"
FAR = 2**40  # more than there are points


class Change(NamedTuple):
    """Of one point: its label before and after (a class, SKIPPED, or None), and its version now."""

    before: int | None
    after: int | None
    version: int


@dataclass(frozen=True)
class Answer:
    """What an answer did.

    changed: by point.
    refused: points that somebody else had changed since this person saw them; they stay so.
    """

    changed: dict[int, Change] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)


class LabelStore:
    """Classes, labels and the answers that gave them. May be used from several threads.

    Args:
        path: made if it does not exist.
        fingerprint: of the embeddings; a file made for others is refused, unless some of its ids
            are among the present ones.
        ids: of the points in their order, all different, if they have any.

    Attributes:
        moved: how many labelled points were found by their ids and how many were not, where the
            file was made for other embeddings; else None.

    Raises:
        UsageError: the file is in use, is something else, or belongs to other embeddings.
        SaveError: it cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str, ids: Sequence[str] | None = None) -> None:
        self.path = path
        self.moved: tuple[int, int] | None = None
        self._lock = threading.Lock()
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}.")
        try:
            self._db = sqlite3.connect(
                path, timeout=1, isolation_level=None, check_same_thread=False
            )
            self._db.execute(
                "PRAGMA locking_mode = EXCLUSIVE"
            )  # a second server would see old labels
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in TABLES.split(";"):
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO facts VALUES ('fingerprint', ?)", [fingerprint])
                found = self._db.execute("SELECT value FROM facts WHERE name = 'fingerprint'")
                known = found.fetchone() == (fingerprint,)
                if ids is not None:
                    known = self._keep_ids(ids, fingerprint, known)
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise UsageError(
                    f"{path} is in use: another `dlp label` has it open. Open that one's page, or "
                    "give this one a file of its own with --state."
                ) from None
            raise UsageError(f"{path} cannot be used for labels: {error}.") from None
        if not known:
            self.close()  # else it stays locked while anything holds the error
            raise UsageError(
                f"{path} holds labels of other embeddings, or of these in another order. Give "
                "another file with --state."
            )

    def close(self) -> None:
        self._db.close()

    def _keep_ids(self, ids: Sequence[str], fingerprint: str, same: bool) -> bool:
        """Hold the present ids; of other ones, move what is known to where it is now.

        same: the file was made for these embeddings.

        Returns:
            whether the file is of these embeddings now.
        """
        self._db.execute(POINTS)
        old = dict(self._db.execute("SELECT point, id FROM points").fetchall())
        if not same:
            place = {name: point for point, name in enumerate(ids)}
            if not any(name in place for name in old.values()):
                return False
            gone = min(0, *old) - 1  # below every number that is taken
            to = {p: p if p < 0 else gone - p for p in old}
            to |= {p: place[name] for p, name in old.items() if name in place}
            for table in ("labels", "changes"):  # by way of far numbers, as points must differ
                used = self._db.execute(f"SELECT DISTINCT point FROM {table}").fetchall()
                self._db.execute(f"UPDATE {table} SET point = point + {FAR}")
                self._db.executemany(
                    f"UPDATE {table} SET point = ? WHERE point = ?",
                    [(to[p], p + FAR) for (p,) in used],
                )
            self._db.execute("UPDATE facts SET value = ? WHERE name = 'fingerprint'", [fingerprint])
            self._db.execute("DELETE FROM points")
            self._db.executemany(
                "INSERT INTO points VALUES (?, ?)",
                [(new, old[p]) for p, new in to.items() if new < 0],
            )
            labelled = self._db.execute(
                "SELECT point FROM labels WHERE class IS NOT NULL"
            ).fetchall()
            here = sum(point >= 0 for (point,) in labelled)
            self.moved = (here, len(labelled) - here)
        if not same or not old:
            self._db.executemany("INSERT INTO points VALUES (?, ?)", enumerate(ids))
        return True

    @property
    def port(self) -> int:
        """Where the page was the last time; 0 if never. A browser keeps who a person is by it."""
        with self._lock:
            found = self._db.execute("SELECT value FROM facts WHERE name = 'port'").fetchone()
        return int(found[0]) if found else 0

    @port.setter
    def port(self, port: int) -> None:
        if port != self.port:
            with self._transaction():
                self._db.execute("REPLACE INTO facts VALUES ('port', ?)", [str(port)])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All statements within it, or none; committed, it is on the disk."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and "locked" not in str(error):
                    raise SaveError(f"{self.path} could not be written: {error}.") from error
                raise

    def classes(self) -> list[str]:
        """Names; a class's number is its place."""
        with self._lock:
            rows = self._db.execute("SELECT name FROM classes ORDER BY id").fetchall()
        return [name for (name,) in rows]

    def add_class(self, name: str) -> int:
        """The number of a class, a new one where there is none of that name.

        Raises:
            LabelError: as `check_class_name`.
        """
        name = check_class_name(name)
        with self._transaction():
            found = self._db.execute("SELECT id FROM classes WHERE name = ?", [name]).fetchone()
            if found:
                return int(found[0])
            (count,) = self._db.execute("SELECT count(*) FROM classes").fetchone()
            self._db.execute("INSERT INTO classes VALUES (?, ?)", [count, name])
            return int(count)

    def labels(self) -> dict[int, int]:
        """Points with a class, or SKIPPED."""
        with self._lock:
            rows = self._db.execute(
                "SELECT point, class FROM labels WHERE class IS NOT NULL AND point >= 0"
            )
            return dict(rows.fetchall())

    def versions(self) -> dict[int, int]:
        """Points that an answer ever changed, with the last such answer."""
        with self._lock:
            rows = self._db.execute("SELECT point, answer FROM labels WHERE point >= 0")
            return dict(rows.fetchall())

    @property
    def answered(self) -> bool:
        """Whether there is any answer."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM answers").fetchone() is not None

    def answer(self, person: str, seen: dict[int, int], label: int | None) -> Answer:
        """Give points one label.

        Args:
            person: who answers, for `undo`.
            seen: the points, each with the version of it that the person saw (0 for none).
            label: a class, SKIPPED, or None to take labels away.
        """
        return self._change(person, {p: (version, label, None) for p, version in seen.items()})

    def answer_each(self, person: str, labels: dict[int, int]) -> Answer:
        """Give each of some points that nobody has looked at a class of its own, all at once."""
        return self._change(person, {p: (0, label, None) for p, label in labels.items()})

    def undo(self, person: str) -> Answer:
        """Take back the person's last answer that still stands; points changed since stay."""
        with self._lock:
            found = self._db.execute(
                "SELECT max(id) FROM answers WHERE person = ? AND undoes IS NULL AND id NOT IN "
                "(SELECT undoes FROM answers WHERE undoes IS NOT NULL)",
                [person],
            ).fetchone()[0]
            rows = self._db.execute(
                "SELECT point, before, version FROM changes WHERE answer = ?", [found]
            )
            back = {point: (found, before, version) for point, before, version in rows.fetchall()}
        return self._change(person, back, undoes=found) if found else Answer()

    def _change(
        self,
        person: str,
        wanted: dict[int, tuple[int, int | None, int | None]],
        undoes: int | None = None,
    ) -> Answer:
        """One transaction.

        Args:
            wanted: points, each with the version it must still have, its new label and its new
                version, None for this answer's number; an undo restores the earlier one.
        """
        found: dict[int, tuple[int | None, int | None, int, int | None]] = {}
        refused = []
        with self._transaction():
            for point, (seen, after, restored) in wanted.items():
                before, version = self._db.execute(
                    "SELECT class, answer FROM labels WHERE point = ?", [point]
                ).fetchone() or (None, 0)
                if version != seen:
                    refused.append(point)
                elif before != after:
                    found[point] = (before, after, version, restored)
            if not found and undoes is None:
                return Answer(refused=refused)
            number = self._db.execute(
                "INSERT INTO answers (person, time, undoes) VALUES (?, ?, ?)",
                [person, datetime.now(UTC).isoformat(timespec="seconds"), undoes],
            ).lastrowid
            assert number is not None
            changed = {}
            for point, (before, after, version, restored) in found.items():
                now = number if restored is None else restored
                self._db.execute(
                    "INSERT INTO changes VALUES (?, ?, ?, ?, ?)",
                    [number, point, before, after, version],
                )
                self._db.execute("REPLACE INTO labels VALUES (?, ?, ?)", [point, after, now])
                if point >= 0:
                    changed[point] = Change(before, after, now)
        return Answer(changed, refused)


def check_class_name(name: str) -> str:
    """The name without blanks around it.

    Raises:
        LabelError: it is blank, too long, or means 'no label' in a file of labels.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise LabelError(f"A class needs a name of 1 to {LONGEST_NAME} characters on one line.")
    if name.lower() in UNUSABLE:
        raise LabelError(f"A class cannot be called '{name}': in a file that means no label.")
    return name


def check_new_class_name(name: str) -> str:
    """As `check_class_name`, of a name that somebody makes up; no number but whole ones from 0."""
    name = check_class_name(name)
    if _is_number(name) and not name.isdecimal():
        raise LabelError(
            f"A class cannot be called '{name}': of numbers a file of labels takes whole ones from "
            f"0. Call it 'class {name}'."
        )
    return name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def default_path(embeddings: Path) -> Path:
    """`x.labels.sqlite` beside `x.npy`; of a run `runs/a` `runs/a.labels.sqlite`."""
    path = embeddings.resolve()
    name = path.name if path.is_dir() else path.stem
    return path.with_name(f"{name}.labels.sqlite")
