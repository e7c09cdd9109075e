"""Labels given by people, in an SQLite file: one transaction for each answer.

An answer is whole on the disk before the page hears of it, so a killed process loses none. Every
point carries the number of the answer that last changed it, its *version*. An answer names the
version that its person saw, and leaves alone a point that somebody else has changed since.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
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
        fingerprint: of the embeddings; a file made for others is refused.

    Raises:
        UsageError: the file is in use, is something else, or belongs to other embeddings.
        SaveError: it cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
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
                known = found.fetchone()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise UsageError(
                    f"{path} is in use: another `dlp label` has it open. Open that one's page, or "
                    "give this one a file of its own with --state."
                ) from None
            raise UsageError(f"{path} cannot be used for labels: {error}.") from None
        if known != (fingerprint,):
            self.close()  # else it stays locked while anything holds the error
            raise UsageError(
                f"{path} holds labels of other embeddings, or of these in another order. Give "
                "another file with --state."
            )

    def close(self) -> None:
        self._db.close()

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
            LabelError: the name is blank, too long, or means 'no label' in a file of labels.
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
            rows = self._db.execute("SELECT point, class FROM labels WHERE class IS NOT NULL")
            return dict(rows.fetchall())

    def versions(self) -> dict[int, int]:
        """Points that an answer ever changed, with the last such answer."""
        with self._lock:
            return dict(self._db.execute("SELECT point, answer FROM labels").fetchall())

    def answer(self, person: str, seen: dict[int, int], label: int | None) -> Answer:
        """Give points one label.

        Args:
            person: who answers, for `undo`.
            seen: the points, each with the version of it that the person saw (0 for none).
            label: a class, SKIPPED, or None to take labels away.
        """
        return self._change(person, {p: (version, label, None) for p, version in seen.items()})

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
                changed[point] = Change(before, after, now)
        return Answer(changed, refused)


def check_class_name(name: str) -> str:
    """The name without blanks around it; LabelError if it cannot name a class."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise LabelError(f"A class needs a name of 1 to {LONGEST_NAME} characters on one line.")
    if name.lower() in UNUSABLE:
        raise LabelError(f"A class cannot be called '{name}': in a file that means no label.")
    return name


def default_path(embeddings: Path) -> Path:
    """`x.labels.sqlite` beside `x.npy`."""
    return embeddings.with_name(f"{embeddings.stem}.labels.sqlite")
