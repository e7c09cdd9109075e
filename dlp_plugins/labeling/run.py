"""From files to a page: what `dlp label` does."""

from __future__ import annotations

import hashlib
import secrets
import socket
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.component import install_command
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import Ids, read_ids
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.embeddings.suggest import build_selector
from dlp_plugins.errors import MissingDependency, UsageError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.images import ImageFolder, open_images
from dlp_plugins.labeling.live import Space
from dlp_plugins.labeling.session import Session, Truth
from dlp_plugins.labeling.store import (
    LabelStore,
    check_class_name,
    check_new_class_name,
    default_path,
)
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import check_dependencies
from dlp_plugins.selectors.contract import Selector

if TYPE_CHECKING:  # what trains is not needed for embeddings
    from dlp_plugins.labeling.from_run import RunDescriptors, RunPictures

HOST = "127.0.0.1"
FROM_FILE = "file"  # who gave the labels of --labels
SAMPLED_ROWS = 64  # of embeddings without ids, to recognise them by


@dataclass(frozen=True)
class LabelingJob:
    """A page to be opened, its files checked.

    known: labels to start from, if any.
    truth: labels to measure accuracy by, if any.
    labels: file that `known` was read from, if a file was given.
    """

    propagator: Propagator
    selector: Selector
    source: EmbeddingFile | RunDescriptors
    ids: Ids | None
    images: ImageFolder | RunPictures | None
    classes: list[str]
    known: LabelFile | None
    truth: LabelFile | None
    state: Path
    labels: Path | None = None

    def open(self, progress: Progress = silent) -> Session:
        """Read the embeddings, build the graph and spread the labels that are there.

        Raises:
            UsageError: the file of labels is in use, or belongs to other embeddings.
        """
        clock = Clock(progress)
        with clock.phase("read", self.source.points) as tick:
            descriptors = self.source.load(tick)
        names = None if self.ids is None else [str(value) for value in self.ids.values]
        store = LabelStore(self.state, fingerprint(descriptors, self.ids), names)
        try:
            if store.moved is not None:
                warn_of_moved(self.state, *store.moved)
            for name in self.classes:
                store.add_class(name)
            if self.known is not None and not store.answered:
                take_over(store, self.known)
            elif self.labels is not None:
                warnings.warn(
                    f"{self.labels} is not read: {self.state} holds labels already, which count. "
                    "To start from the file, give another --state.",
                    stacklevel=2,
                )
            space = Space.of(self.propagator, descriptors, clock)
            truth = None
            if self.truth is not None:
                truth = Truth(self.truth.labels, [str(c) for c in self.truth.classes])
            with clock.phase("spread"):
                return Session(
                    space, store, self.selector, ids=self.ids, images=self.images, truth=truth
                )
        except BaseException:
            store.close()
            raise


def prepare_labeling(
    embeddings: Path | str,
    *,
    images: Path | str | None = None,
    classes: Iterable[str] = (),
    labels: Path | str | None = None,
    truth: Path | str | None = None,
    state: Path | str | None = None,
    selector: str | None = None,
    settings: Iterable[str] = (),
    ids: Path | str | None = None,
    key: str | None = None,
) -> LabelingJob:
    """Check everything that can be checked before the embeddings are read.

    Args:
        embeddings: a file, or the folder of a finished run: its images that have a pseudo-label,
            described by its network, with the labels and the classes that it was given.
        images: folder of the images, whose paths below it the ids are; without ids its images in
            the order of their names.
        classes: names; those that occur in `labels` and in the file of labels are there besides.
        labels: known labels to start from, if the file of labels is new.
        truth: labels that are not shown, to measure accuracy by.
        state: SQLite file of the labels people give; by default beside the embeddings.
        selector, settings, ids, key: as `prepare_suggestion` takes them.

    Raises:
        MissingDependency: the packages of the extra `label` are not installed.
        UsageError, DataError, FeatureError, LabelError: something given cannot be used as it is.
    """
    check_web_packages()
    settings = list(settings)
    names = [check_new_class_name(name) for name in classes]
    check_dependencies(propagation_recipe(settings), registry.EMBEDDINGS)
    source, own, pictures, given = _open_points(Path(embeddings), images, ids, key)
    known, right = (
        None if file is None else read_labels(Path(file), source.points, ids=own)
        for file in (labels, truth)
    )
    path = default_path(Path(embeddings)) if state is None else Path(state)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path}: is a folder, or lies in none; --state needs a file.")
    known = given if known is None else known
    if known is not None:
        names += [check_class_name(str(c)) for c in known.classes]
    if not names and not path.exists():
        raise UsageError(
            "Name at least one class: --classes cat,dog. More can be added in the page."
        )
    return LabelingJob(
        build_propagator(propagation_recipe(settings, source.points)),
        build_selector(selector),
        source,
        own,
        pictures,
        names,
        known,
        right,
        path,
        None if labels is None else Path(labels),
    )


class _Points(NamedTuple):
    source: EmbeddingFile | RunDescriptors
    ids: Ids | None
    images: ImageFolder | RunPictures | None
    known: LabelFile | None


def _open_points(
    path: Path, images: Path | str | None, ids: Path | str | None, key: str | None
) -> _Points:
    """The points of a file of embeddings, or of a run, which has images and labels of its own."""
    if path.is_dir():
        if images is not None or ids is not None or key is not None:
            raise UsageError(
                f"{path} is a run, which knows its images: leave out --images, --ids and --key."
            )
        from dlp_plugins.labeling.from_run import open_run

        run = open_run(path)
        return _Points(run.descriptors, run.ids, run.pictures, run.known)
    source = open_embeddings(path, key)
    own = source.ids if ids is None else read_ids(Path(ids), source.points)
    folder = None if images is None else open_images(Path(images), source.points, own)
    return _Points(source, own, folder, None)


def check_web_packages() -> None:
    """Raise MissingDependency unless FastAPI and uvicorn are installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"`dlp label` needs {error.name}, which is not installed. Run: "
            f"{install_command('label')}"
        ) from None


def take_over(store: LabelStore, known: LabelFile) -> None:
    """Labels of a file as the first answer, all of them or, if that is broken off, none."""
    classes = [store.add_class(str(name)) for name in known.classes]
    points = (known.labels != UNLABELED).nonzero().squeeze(1)
    labels = [classes[i] for i in known.labels[points].tolist()]
    store.answer_each(FROM_FILE, dict(zip(points.tolist(), labels, strict=True)))


def warn_of_moved(state: Path, here: int, away: int) -> None:
    text = f"{state} was made for other embeddings: labels go with the ids, {here:,} of them."
    if away:
        text += f" {away:,} are of ids that are not there now; they are kept in the file."
    warnings.warn(text, stacklevel=3)


def fingerprint(descriptors: Tensor, ids: Ids | None) -> str:
    """What a file of labels belongs to: the ids in their order, or else some of the rows."""
    found = hashlib.sha256(str(len(descriptors)).encode())
    if ids is not None:
        found.update("\n".join(map(str, ids.values)).encode())
    else:
        rows = torch.linspace(0, len(descriptors) - 1, SAMPLED_ROWS).long()
        found.update(descriptors[rows].numpy().tobytes())
    return found.hexdigest()


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address, which other machines cannot reach; 0: a free port.

    What connects before `serve` waits for it.

    Raises:
        UsageError: the port is taken.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(128)  # else another could bind the same; the page is asked for at once
    except (OSError, OverflowError) as error:
        found.close()
        raise UsageError(f"--port {port}: {error}. Give another, or leave it out.") from None
    return found


def listen_again(store: LabelStore) -> socket.socket:
    """A socket as `listen` gives it, at the port of the last time if that is free.

    A browser keeps who a person is by the page's host and port, and undo is each person's own.
    """
    try:
        return listen(store.port)
    except UsageError:
        return listen(0)


def serve(
    session: Session, listener: socket.socket, title: str, ready: Callable[[str], None]
) -> None:
    """Serve a session until the process is interrupted.

    Args:
        ready: called with the page's address, in which a new secret token stands.
    """
    import uvicorn

    from dlp_plugins.labeling.app import create_app

    token = secrets.token_urlsafe(16)
    app = create_app(session, token, title=title)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        session.store.port = listener.getsockname()[1]
        ready(f"http://{HOST}:{session.store.port}/{token}/")
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has closed what was open
        pass
    finally:
        session.close()
