"""What a propagation from files is asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Files and choices of a propagation, as `dlp propagate` takes them.

    embeddings: .npy, .npz, .safetensors or .parquet, [points, numbers].
    labels: .csv, .npy, .npz or .parquet; see `read_labels`. Only with prototypes may there be none.
    out: the table, .csv or .parquet; None where none is written.
    settings: `key=value` as for `--set`, of the parts of a propagation.
    ids: file of what the points are called; else the embeddings' own column or array `id`.
    key: which array of the file of embeddings, where it holds several.
    classes: with it, the classes are 0..classes-1.
    class_shares: sizes of the classes among unlabelled points, as `read_class_shares` takes them;
        by default the setting pseudo_labels.class_shares.
    probabilities: write the probability of each class too.
    memory: a size such as '4GB'; by default three quarters of what is free.
    device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
    overwrite: replace the table and the index if they exist.
    prior: scores of points and classes, .npy, .npz or .parquet; see `open_prior`.
    prior_weight: beta, total of a class's prior scores beside that of its labels.
    start: a classifier to start from, an estimator or its import path (see `STARTS`); alpha is then
        0.8 unless the settings give one.
    auto: compare the default with other methods and take one that is clearly better.
    save_index: a file by which `dlp assign` labels new points, .safetensors.
    prototypes: an embedding of each class, such as its name's, in a file like embeddings; then the
        defaults are those of `prototypes.propagate_prototypes`.
    names: of the prototypes, a line each; by default their row numbers.
    robust: labels that the rest contradicts count less.
    calibrated: find the probability that each label is right, for a column `probability`.
    unknown: add a column `unknown`, how likely each point belongs to no known class.
    truth: file of true labels, as `labels`, to measure the found ones by.
    multi_label: a point may have several labels; see `propagate_multi_label`. Nothing is refined,
        calibrated or measured; `probabilities` writes scores.
    on_disk: large arrays lie in files of a folder beside the table, `OUT.work`, whatever the
        memory; without it, where they do not fit. With graph `cells`, and not with `prototypes`,
        `start`, `auto`, `robust`, `save_index` or `multi_label`.
    resume: go on with the work that an earlier call has left there; if there is none, begin.
    shard_rows: the processes share the rows of the graph, so that none holds it whole; then the
        defaults are those of `sharded.DEFAULTS`, on the CPU. Embeddings in a .npy file, and not
        with what `on_disk` does not go with, nor with `prior` or soft labels.
    """

    embeddings: Path | str
    labels: Path | str | None
    out: Path | str | None
    _: KW_ONLY
    settings: Iterable[str] = ()
    ids: Path | str | None = None
    key: str | None = None
    classes: int | None = None
    class_shares: Path | str | None = None
    probabilities: bool = False
    memory: str | None = None
    device: str = "auto"
    overwrite: bool = False
    prior: Path | str | None = None
    prior_weight: float = 1.0
    start: Any = None
    auto: bool = False
    save_index: Path | str | None = None
    prototypes: Path | str | None = None
    names: Path | str | None = None
    robust: bool = False
    calibrated: bool = True
    unknown: bool = False
    truth: Path | str | None = None
    multi_label: bool = False
    on_disk: bool = False
    resume: bool = False
    shard_rows: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", tuple(self.settings))  # of any iterable, read twice

    @property
    def table(self) -> Path | None:
        return None if self.out is None else Path(self.out)

    @property
    def index(self) -> Path | None:
        return None if self.save_index is None else Path(self.save_index)

    @property
    def inputs(self) -> dict[str, Any]:
        """Files that are read, by option."""
        read = "labels", "ids", "prior", "prototypes", "names", "truth", "class_shares"
        options = {f"--{name.replace('_', '-')}": getattr(self, name) for name in read}
        return {"EMBEDDINGS": self.embeddings, **options}

    @property
    def all_settings(self) -> list[str]:
        """Settings, with those that other options imply."""
        return [*self.settings, *(["refiner=none"] if self.multi_label else [])]

    def check(self) -> None:
        """Raise UsageError for options that do not go together, or are missing."""
        if self.robust and self.given("start", "auto", "prototypes"):
            raise UsageError("--robust goes with neither --start, --auto nor --prototypes.")
        if self.shard_rows:
            self._refuse(
                "shard-rows", "prototypes", "start", "auto", "robust", "prior", "save_index",
                "multi_label", "on_disk", "resume",
            )  # fmt: skip
        if self.multi_label:
            if self.given("unknown", "truth"):
                raise UsageError("--multi-label: --unknown and --truth need one label per point.")
            if self.given("prototypes", "start", "auto", "robust", "save_index"):
                raise UsageError(
                    "--multi-label does not go with --prototypes, --start, --auto, --robust or "
                    "--save-index."
                )
        if self.prior is None and self.prior_weight != 1.0:
            raise UsageError("--prior-weight belongs to --prior FILE, which is missing.")
        if self.prototypes is not None:
            self._refuse("prototypes", "classes", "prior", "save_index", "start", "auto")
        elif self.labels is None or self.names is not None:
            missing = "labels" if self.labels is None else "prototypes"
            other = " or --prototypes FILE" if self.labels is None else ""
            raise UsageError(f"Give --{missing} FILE{other}.")

    def given(self, *options: str) -> list[str]:
        """Those of the options that were given."""
        values = {option: getattr(self, option) for option in options}
        return [o for o, value in values.items() if value is not None and value is not False]

    def _refuse(self, other: str, *options: str) -> None:
        """Raise UsageError for the first of the options that was given beside the other."""
        for option in self.given(*options):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} does not go with --{other}; leave it out.")
