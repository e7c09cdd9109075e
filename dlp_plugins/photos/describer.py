"""A network that turns photos into embeddings, and the record from which it is built again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlp_plugins.augmentations._normalize import Normalizer
from dlp_plugins.backbones.contract import View, normalization
from dlp_plugins.embeddings.record import Record
from dlp_plugins.environment import has_bfloat16
from dlp_plugins.errors import DataError, UsageError
from dlp_plugins.photos.gray import to_gray
from dlp_plugins.photos.rounding import round_to_bfloat16
from dlp_plugins.registry import backbones

DEFAULT = "imagenet-lite"
WITH_WEIGHTS = f"{DEFAULT}, timm:NAME, or the folder of a run"
PRECISIONS = ("float32", "bfloat16")
LARGEST_SIDE = 1024


class Describer:
    """Embeds batches of photos.

    Args:
        network: view [b, channels, height, width] to features [b, dim].
        view: raw images to normalised ones; by default with mean and deviation of the record.

    Attributes:
        dim: numbers in an embedding.
    """

    def __init__(
        self,
        network: nn.Module,
        record: Record,
        device: torch.device,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.record, self.device = record, device
        self.network = network.eval()
        low = record.precision == "bfloat16"
        self._autocast = low and has_bfloat16(device)
        if low and not self._autocast:
            round_to_bfloat16(self.network)
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        normalizer = Normalizer(record.mean, record.std)
        self._view = view or (lambda images: normalizer(images, images))
        self.dim = len(self(torch.zeros(1, 3, *record.size, dtype=torch.uint8))[0])

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embeddings [b, dim] float32 on the CPU, L2-normalised, of [b, 3, height, width] uint8."""
        pixels = images.to(self.device).contiguous(memory_format=torch.channels_last)
        if len(self.record.mean) == 1:
            pixels = to_gray(pixels)
        found = self._embed(pixels)
        if self.record.flips:
            found = found + self._embed(pixels.flip(3))
        return functional.normalize(found, dim=1).cpu()

    def _embed(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            return functional.normalize(self.network(self._view(images)).float(), dim=1)


def new_describer(
    backbone: str | Path = DEFAULT,
    *,
    size: int | None = None,
    flips: bool = False,
    precision: str = "auto",
    weights_file: Path | None = None,
    network: Literal["student", "teacher"] = "student",
    device: torch.device,
) -> Describer:
    """A network with trained weights, by the name of a backbone or the folder of a run.

    Args:
        size: side in pixels; by default the backbone's own, and always that of a run.
        precision: 'auto' is float32 for a run's network, which was trained with it, else bfloat16,
            which is rounded for where the device has no instructions for it.
        weights_file: of a timm model, instead of a download.
        network: of a run.

    Raises:
        UsageError: an unknown backbone, one without trained weights, or an option that it has not.
        DataError: the weights are not to be had; or a run's network takes no photos.
        RunFolderError: not a finished run.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision {precision}: allowed: auto, {', '.join(PRECISIONS)}.")
    is_run = Path(backbone).is_dir()
    if precision == "auto":
        precision = "float32" if is_run else "bfloat16"
    if is_run:
        if size is not None or weights_file is not None:
            raise UsageError(
                f"--backbone {backbone}: a run's network comes with its size and weights."
            )
        return _of_run(Path(backbone), network, flips, precision, device)
    if network != "student":
        raise UsageError(f"--network {network}: only the folder of a run has several networks.")
    name = str(backbone)
    component = backbones.get(name)
    view = _view(name)
    if view is None:
        raise UsageError(
            f"--backbone {name}: has no trained weights. Take {WITH_WEIGHTS}; or train it first "
            "with `dlp run`."
        )
    params: dict[str, Any] = {}
    declared = {p.name for p in component.parameters}
    if weights_file is not None:
        if "weights_file" not in declared:
            raise UsageError(f"--weights {weights_file}: backbone {name} has weights of its own.")
        params["weights_file"] = str(weights_file.resolve())
    elif "pretrained" in declared:
        params["pretrained"] = True
    side = size or view.size
    if not 8 <= side <= LARGEST_SIDE:
        raise UsageError(f"--size {side}: allowed: 8 to {LARGEST_SIDE}.")
    built = backbones.build(name, input_shape=(3, side, side), **params)
    mean, std = normalization(built) or ((0.5,) * 3, (0.5,) * 3)
    record = Record(
        (side, side), view.interpolation, mean, std, flips, precision, backbone=name, params=params,
        weights="" if weights_file is None else _digest(weights_file),
    )  # fmt: skip
    return Describer(built, record, device)


def build_describer(
    record: Record, device: torch.device, plugins: Sequence[str | Path] = ()
) -> Describer:
    """The network of a record, for further photos; plugins as for `load`.

    Raises:
        DataError: its run has other weights by now, or its weights are not to be had.
        RunFolderError, UsageError: as `new_describer`.
    """
    if record.run:
        built = _of_run(
            Path(record.run), record.network, record.flips, record.precision, device, plugins
        )
        _check_weights(record.run, built.record.weights, record)
        return built
    file = record.params.get("weights_file")
    if file is not None and record.weights:  # records of older versions do not say
        _check_weights(file, _digest(Path(file)), record)
    network = backbones.build(record.backbone, input_shape=(3, *record.size), **record.params)
    return Describer(network, record, device)


def _check_weights(where: str, found: str, record: Record) -> None:
    if found != record.weights:
        raise DataError(
            f"{where}: its weights are not those that the embeddings were made with. Embed the "
            "photos again."
        )


def _digest(file: Path) -> str:
    """SHA-256 of a file of weights."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _view(name: str) -> View | None:
    stem, _, member = name.partition(":")
    view = getattr(backbones.find(stem).factory, "view", None)
    return None if view is None else view(*([member] if member else []))


def _of_run(
    folder: Path,
    network: Literal["", "student", "teacher"],
    flips: bool,
    precision: str,
    device: torch.device,
    plugins: Iterable[str | Path] = (),
) -> Describer:
    from dlp_plugins.training.folder import RunFolder
    from dlp_plugins.training.load import load

    which = network or "student"
    classifier = load(folder, network=which, device=device.type, plugins=tuple(plugins))
    classifier.check_photos()
    weights = _digest(RunFolder(folder).weights(which))
    height, width = classifier.shape[1:]
    record = Record(
        (height, width), "bilinear", classifier.mean, classifier.std, flips, precision,
        run=str(folder.resolve()), weights=weights, network=which,
    )  # fmt: skip
    return Describer(_Describing(classifier.network), record, device, classifier.augmentation.plain)


class _Describing(nn.Module):
    """A run's network as a function to descriptors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.describe(images)  # type: ignore[operator]
