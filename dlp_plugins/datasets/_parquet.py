"""Parquet files of encoded images, read by pyarrow alone."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dlp_plugins.component import install_command
from dlp_plugins.errors import DataError, MissingDependency, did_you_mean

LAYOUT = "Expected FOLDER/train-*.parquet and FOLDER/test-*.parquet."


@dataclass(frozen=True)
class Columns:
    """Which columns of the files are used, and the classes' names where the files hold them."""

    image: str
    label: str
    classes: list[str] | None


def read(
    name: str,
    path: str,
    splits: Sequence[str],
    image_column: str | None = None,
    label_column: str | None = None,
) -> tuple[dict[str, tuple[Any, list[Any]]], list[str] | None]:
    """Images (still encoded, in memory) and labels of each split, and the classes' names or None.

    Raises:
        DataError: no such folder, split or column, a damaged file, or more than memory holds.
        MissingDependency: pyarrow is not installed.
    """
    _need_pyarrow(f"dataset {name}")
    files = _find_splits(name, path)
    for split in splits:
        if split not in files:
            raise DataError(
                f"dataset {name}: {path} has no split '{split}'; it has {', '.join(files)}. "
                f"{LAYOUT}"
            )
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, tuple[Any, list[Any]]] = {}
    classes = None
    for split in splits:
        try:
            parts = [pq.ParquetFile(file) for file in files[split]]
            columns = _choose(parts[0].schema_arrow, name, path, image_column, label_column)
            _check_memory(parts, columns.image, name, path)
            table = pa.concat_tables([p.read([columns.image, columns.label]) for p in parts])
            labels = table.column(columns.label).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"dataset {name}: the files of split '{split}' in {path} cannot be read: {error}. "
                "Are they whole?"
            ) from error
        found[split] = (table.column(columns.image), labels)
        classes = classes or columns.classes
    return found, classes


def read_images(files: Sequence[Path], image_column: str | None = None) -> Any:
    """The column of encoded images of Parquet files, in memory.

    Raises:
        DataError: no such column, damaged files, or more than memory holds.
        MissingDependency: pyarrow is not installed.
    """
    _need_pyarrow(str(files[0]))
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = str(files[0])
    try:
        parts = [pq.ParquetFile(file) for file in files]
        column = image_column or _image_column(parts[0].schema_arrow, where)
        if column not in parts[0].schema_arrow.names:
            raise DataError(f"{where} has no column '{column}'.")
        _check_memory(parts, column, "parquet", where)
        return pa.concat_tables([p.read([column]) for p in parts]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where} cannot be read: {error}. Is it whole?") from error


def image_names(column: Any) -> list[str]:
    """Names of a column's images: the paths that it holds, where all differ; else positions."""
    from pyarrow import types

    if types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        import pyarrow.compute as pc

        paths = pc.struct_field(column, "path").to_pylist()
        if all(isinstance(p, str) and p for p in paths) and len(set(paths)) == len(paths):
            return paths
    return [str(i) for i in range(len(column))]


def find_files(path: str, split: str) -> list[Path]:
    """Parquet files of a folder's split; its only one, whatever it is called.

    Raises:
        DataError: it has several splits, and none of that name.
    """
    splits = _find_splits("parquet", path)
    if split not in splits and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        raise DataError(f"{path} has no split '{split}'; it has {', '.join(splits)}.")
    return splits[split]


def _image_column(schema: Any, where: str) -> str:
    return _only([f.name for f in schema if _holds_bytes(f.type)], "image", schema, where)


def _need_pyarrow(where: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingDependency(
            f"{where}: Parquet files need pyarrow, which is not installed. "
            f"Run: {install_command('parquet')}"
        )


def _find_splits(name: str, path: str) -> dict[str, list[Path]]:
    """Files by split; they lie in the folder, or in its only sub-folder that holds any."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"dataset {name}: there is no folder {path}. {LAYOUT}")
    files = _parquet_files(folder, "*.parquet")
    if not files:
        files = _parquet_files(folder, "*/*.parquet")
        if len(folders := sorted({str(f.parent) for f in files})) > 1:
            raise DataError(
                f"dataset {name}: {path} has {len(folders)} folders with Parquet files, "
                f"{', '.join(folders[:5])}. Set dataset.path to one of them."
            )
    if not files:
        raise DataError(f"dataset {name}: {path} holds no Parquet file. {LAYOUT}")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(re.split(r"[-.]", file.name)[0], []).append(file)
    return splits


def _parquet_files(folder: Path, pattern: str) -> list[Path]:
    return sorted(p for p in folder.glob(pattern) if p.is_file())


def _choose(schema: Any, name: str, path: str, image: str | None, label: str | None) -> Columns:
    declared = _class_labels(schema)
    where = f"dataset {name}: {path}"
    for column in filter(None, (image, label)):
        if column not in schema.names:
            raise DataError(
                f"{where} has no column '{column}'.{did_you_mean(column, schema.names)} It has "
                f"{', '.join(schema.names)}."
            )
    if image is None:
        image = _image_column(schema, where)
    elif not _holds_bytes(schema.field(image).type):
        raise DataError(
            f"{where}: column '{image}' holds {schema.field(image).type}, not encoded images. Set "
            "dataset.image_column."
        )
    if label is None:
        plain = [f.name for f in schema if _may_be_label(f.type)]
        named = [c for c in declared or plain if c == "label"]
        label = _only(named or list(declared) or plain, "label", schema, where)
    return Columns(image, label, declared.get(label))


def _only(found: list[str], what: str, schema: Any, where: str) -> str:
    if len(found) != 1:
        raise DataError(
            f"{where} has {len(found)} columns that may hold the {what}s among "
            f"{', '.join(schema.names)}. Set dataset.{what}_column."
        )
    return found[0]


def _holds_bytes(kind: Any) -> bool:
    """Bytes, or the struct of bytes and path that the library `datasets` writes."""
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _may_be_label(kind: Any) -> bool:
    from pyarrow import types

    return any(
        test(kind)
        for test in (types.is_integer, types.is_string, types.is_large_string, types.is_dictionary)
    )


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Columns that the library `datasets` declares as classes, and the classes' names."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(n) for n in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature.get("names"), list)
            and column in schema.names
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # no such metadata, or of another layout


def _check_memory(parts: Sequence[Any], image: str, name: str, path: str) -> None:
    """The encoded images are held in memory: a compressed file allows no reading of single rows."""
    size = 0
    for part in parts:
        for group in map(part.metadata.row_group, range(part.metadata.num_row_groups)):
            chunks = map(group.column, range(group.num_columns))
            size += sum(
                c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == image
            )
    free = psutil.virtual_memory().available
    if size > free:
        raise DataError(
            f"dataset {name}: the images of {path} take {size / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free. Save them as files and use dataset imagefolder."
        )
