"""What a resumed run continues from, and whether its data are still the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dlp_plugins._files.reading import read_json
from dlp_plugins.errors import DataError, RunFolderError
from dlp_plugins.training import checkpoint
from dlp_plugins.training.folder import RunFolder


@dataclass(frozen=True)
class Saved:
    """note: a sentence where this is not the newest checkpoint, else empty."""

    tensors: checkpoint.State
    numbers: dict[str, Any]
    note: str = ""


def last_saved(folder: RunFolder) -> Saved | None:
    """The newest state that can be used: the checkpoint, the one before it, the end of stage one.

    None where nothing was saved. A damaged checkpoint is passed over only for the one before it.

    Raises:
        DataError: what was saved is damaged; the message names what can still be used.
    """
    newest, previous, stage_one = folder.training, folder.training_previous, folder.stage_one
    problems = []
    for path in (newest, previous):
        if not path.exists():
            continue
        try:
            tensors, numbers = checkpoint.load(path)
        except DataError as error:
            problems.append(str(error))
            continue
        missing = "" if newest.exists() else f"{newest} is missing."
        reason = " ".join(problems) or missing
        note = f"{reason} The run continues from the checkpoint before it." if reason else ""
        return Saved(tensors, numbers, note)
    if problems:
        raise DataError(" ".join([*problems, _way_out(folder)]))
    if not stage_one.exists():
        return None
    note = f"{newest} is missing. The run continues from the end of stage one, {stage_one}."
    try:
        return Saved(*checkpoint.load(stage_one), note)
    except DataError as error:
        raise DataError(f"{newest} is missing and {error} {_way_out(folder)}") from error


def _way_out(folder: RunFolder) -> str:
    """What to do where neither checkpoint can be read."""
    again = "put an intact copy in its place, or start again in another folder with --out."
    try:
        checkpoint.load(folder.stage_one)
    except DataError:
        return f"Nothing else in {folder.checkpoint} can be continued: {again}"
    return (
        f"{folder.stage_one} is intact: remove the damaged files, and --resume continues from the "
        f"end of stage one. Or {again}"
    )


def check_same_data(folder: RunFolder, record: dict[str, Any]) -> None:
    """Refuse to go on with other data than the run was started with: labels would be shifted.

    Raises:
        DataError: the record of the start is missing or damaged.
        RunFolderError: images, labels or choices of examples differ.
    """
    path = folder.labeled_indices
    try:
        if not path.is_file():
            raise DataError(
                f"{path} is missing, so nothing shows that the data are those of the start. Put it "
                "back, or start again in another folder with --out."
            )
        started = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Put an intact copy in its place, or start again in "
            "another folder with --out."
        ) from error
    ours = json.loads(json.dumps(record))
    if started == ours:
        return
    theirs = started if isinstance(started, dict) else {}
    differ = [name for name, value in ours["data"].items() if _hash(theirs, name) != value]
    differ += [k.replace("_", " ") for k, v in ours.items() if k != "data" and theirs.get(k) != v]
    raise RunFolderError(
        f"{folder.path} was started with other data; changed since then: {', '.join(differ)}. "
        "Put the data back as they were, or start again in another folder with --out."
    )


def _hash(record: dict[str, Any], name: str) -> Any:
    data = record.get("data")
    return data.get(name) if isinstance(data, dict) else None
