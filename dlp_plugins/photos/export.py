"""A trained classifier as a file for other programs, checked against the network before it is kept.

The pre-processing is inside: raw images go in, probabilities and descriptors come out. The file
holds the names of the classes, and how photos are cropped and resized to its input.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from dlp_plugins import registry
from dlp_plugins._files.writing import check_place, replacing, to_json
from dlp_plugins.component import install_command
from dlp_plugins.embeddings.index import Index, load_index
from dlp_plugins.embeddings.record import Record
from dlp_plugins.errors import ComponentError, MissingDependency, RunFolderError, UsageError
from dlp_plugins.photos.describer import build_describer
from dlp_plugins.photos.predict import refuse_for_index
from dlp_plugins.refiners._logistic_regression import LogisticRegression
from dlp_plugins.refiners.discriminant import FittedDiscriminant
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.load import Classifier, load
from dlp_plugins.transforms.auto import Auto, uncorrelated
from dlp_plugins.transforms.contract import mean_and_deviation
from dlp_plugins.transforms.none import NoTransform
from dlp_plugins.transforms.rescale import Rescale, divisors

Format = Literal["onnx", "torch-export", "safetensors"]
FORMATS: dict[str, Format] = {
    ".onnx": "onnx",
    ".pt2": "torch-export",
    ".safetensors": "safetensors",
}
SUFFIXES = {format: suffix for suffix, format in FORMATS.items()}
TOLERANCE = 1e-4  # largest difference of a probability from the network's
METADATA = "dlp_model"  # key of the description in the file's metadata
OUTPUTS = ("probabilities", "descriptors")


class Exported(nn.Module):
    """Raw images [b, channels, height, width] to probabilities [b, c] and descriptors [b, d]."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], dims: int, scale: float
    ) -> None:
        super().__init__()
        shape = (1, -1, *(1,) * (dims - 1))
        self.register_buffer("mean", torch.tensor(mean).view(shape))
        self.register_buffer("deviation", torch.tensor(std).view(shape))
        self.scale = scale

    def view(self, images: Tensor) -> Tensor:
        return (images.float() / self.scale - self.mean) / self.deviation


class ExportedRun(Exported):
    """A run's network."""

    def __init__(self, classifier: Classifier) -> None:
        scale = 255.0 if classifier.dtype == torch.uint8 else 1.0
        super().__init__(classifier.mean, classifier.std, len(classifier.shape), scale)
        self.network = classifier.network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(self.view(images))
        return found.logits.softmax(dim=1), found.descriptor


class ExportedIndex(Exported):
    """The backbone of an index and its discriminant; without the graph's neighbours."""

    shift: Tensor
    divisor: Tensor
    directions: Tensor
    offsets: Tensor
    prior_weights: Tensor
    prior_intercepts: Tensor
    floor: Tensor
    factors: Tensor

    def __init__(self, index: Index, network: nn.Module, record: Record, path: Path) -> None:
        super().__init__(record.mean, record.std, 3, 255.0)
        self.network, self.flips = network, record.flips
        shift, divisor = _rescaling(index, path)
        fitted = index.classifier
        if not isinstance(fitted, FittedDiscriminant):
            raise UsageError(
                f"{path}: only an index with refiner=discriminant can be exported; its classifier "
                f"is {type(fitted).__name__}."
            )
        tensors = {"shift": shift, "divisor": divisor, **fitted.tensors()}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        view = self.view(images)
        x = functional.normalize(self.network(view), dim=1)
        if self.flips:
            mirrored = functional.normalize(self.network(view.flip(3)), dim=1)
            x = functional.normalize(x + mirrored, dim=1)
        f = functional.normalize((x - self.shift) / self.divisor, dim=1)
        prior = LogisticRegression(self.prior_weights, self.prior_intercepts)
        fitted = FittedDiscriminant(self.directions, self.offsets, prior, self.floor, self.factors)
        return fitted.probabilities(f, torch.zeros(1)), x


def _rescaling(index: Index, path: Path) -> tuple[Tensor, Tensor]:
    """What unit rows are less and over before they are made unit rows again."""
    transform, total, dim = index.propagator.transform, index.total, index.dim
    if isinstance(transform, Auto) and total is not None:
        if uncorrelated(total, dim):
            transform = NoTransform()
        else:
            transform, total = Rescale(), total[: 3 * dim].view(3, dim)
    if isinstance(transform, NoTransform):
        return torch.zeros(dim), torch.ones(dim)
    if isinstance(transform, Rescale) and total is not None:
        mean, deviation = mean_and_deviation(total)
        return mean, divisors(deviation)
    raise UsageError(
        f"{path}: an index with transform={type(transform).__name__} cannot be exported; save it "
        "with transform=auto, rescale or none."
    )


def export(
    model: str | Path,
    out: str | Path,
    format: Format | None = None,
    *,
    network: Literal["student", "teacher"] = "student",
    weights: Literal["last", "best"] = "last",
    overwrite: bool = False,
    plugins: Sequence[Path] = (),
) -> float:
    """Write a run's network, or an index's backbone with its discriminant.

    Args:
        model: the folder of a finished run, or what `dlp propagate --save-index` wrote.
        format: by default what `out` ends in says. 'onnx' (.onnx) and 'torch-export' (.pt2) hold
            the computation; 'safetensors' the weights, and all that is needed to build the network
            in its metadata. Weight normalisation is worked into the weights: remove it from a
            network that is to load them (torch's `remove_parametrizations`), or set
            backbone.weight_norm_heads=none.
        network, weights: of a run, as `load` takes them.

    Returns:
        The largest difference from the network's own probabilities, on random images.

    Raises:
        UsageError: a path or a component that cannot be exported.
        MissingDependency: ONNX is not installed.
        ComponentError: the file computes something else; it is not kept.
        As `load` and `load_index`.
    """
    out, path = Path(out), Path(model)
    suffixes = tuple(SUFFIXES.values()) if format is None else (SUFFIXES[format],)
    what = "the classifier" if format is None else f"format {format}"
    check_place(out, suffixes, what, overwrite, {"MODEL": model})
    format = format or FORMATS[out.suffix]
    if format == "onnx":
        _need_onnx()
    if path.is_dir():
        module, about, expected = _run(path, network, weights, plugins)
    elif path.exists():
        module, about, expected = _index(path, network, weights, plugins)
    else:
        raise RunFolderError(f"{path}: there is no such run folder or index.")
    for part in module.modules():  # weight normalisation, once and for all
        for name in list(getattr(part, "parametrizations", ())):
            parametrize.remove_parametrizations(part, name)
    module.eval()
    images = _examples(about["input"], 3)
    write = {"onnx": _to_onnx, "torch-export": _to_torch, "safetensors": _to_safetensors}[format]
    raw, compute = write(module, images, about)
    with torch.no_grad():
        wanted = expected(images)
    found = compute(images)
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE:
        raise ComponentError(
            f"The {format} file gives other probabilities than the network, by {difference:.2g}, "
            "so it was not kept. Does a plug-in normalise the images in a way of its own?"
        )
    with replacing(out) as temporary:
        temporary.write_bytes(raw)
    return difference


def _run(path: Path, network: Any, weights: Any, plugins: Sequence[Path]) -> tuple[Any, ...]:
    classifier = load(path, network=network, weights=weights, device="cpu", plugins=plugins)
    recipe = RunFolder(path).read_recipe()
    about = {
        **_description(classifier.classes, classifier.shape, classifier.dtype, "bilinear"),
        "mean": list(classifier.mean), "std": list(classifier.std), "recipe": recipe.as_dict(),
    }  # fmt: skip
    return ExportedRun(classifier), about, classifier.predict_proba


def _index(path: Path, network: str, weights: str, plugins: Sequence[Path]) -> tuple[Any, ...]:
    for file in plugins:
        registry.load_plugin_file(file)
    refuse_for_index(path, network, weights)
    index = load_index(path)
    if index.embedding is None:
        raise UsageError(
            f"{path}: does not say which network made its embeddings. Make them with `dlp embed` "
            "and save the index again."
        )
    record = Record.from_dict({**index.embedding, "precision": "float32"}, str(path))
    describer = build_describer(record, torch.device("cpu"), plugins)
    channels = len(record.mean)
    about = {
        **_description(index.classes, (channels, *record.size), torch.uint8, record.interpolation),
        "mean": list(record.mean), "std": list(record.std), "embedding": record.as_dict(),
    }  # fmt: skip
    module = ExportedIndex(index, describer.network, record, path)

    def expected(images: Tensor) -> np.ndarray:
        rows = index.propagator.transform_rows(describer(images), index.total).double()
        assert index.classifier is not None
        none = torch.zeros(len(rows), len(index.classes), dtype=torch.float64)
        return index.classifier.probabilities(rows, none).numpy()

    return module, about, expected


def _description(
    classes: Sequence[Any], shape: Sequence[int], dtype: torch.dtype, interpolation: str
) -> dict[str, Any]:
    colors = "gray" if shape[0] == 1 else "RGB"
    return {
        "classes": [str(name) for name in classes],
        "input": {
            "name": "images", "shape": ["batch", *shape],
            "dtype": str(dtype).removeprefix("torch."),
            "photos": f"upright {colors}; the largest middle part of these proportions; resized",
            "interpolation": interpolation, "antialias": True,
        },
        "outputs": list(OUTPUTS),
    }  # fmt: skip


def _examples(described: dict[str, Any], count: int) -> Tensor:
    generator, shape = torch.Generator().manual_seed(0), (count, *described["shape"][1:])
    if described["dtype"] == "uint8":
        return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    return torch.rand(shape, generator=generator)


def _traced(module: nn.Module, images: Tensor) -> Any:
    batch = {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (images,), dynamic_shapes=(batch,))


def _to_torch(module: nn.Module, images: Tensor, about: dict[str, Any]) -> tuple[bytes, Any]:
    buffer = io.BytesIO()
    extra = {f"{METADATA}.json": to_json(about, indent=2)}
    torch.export.save(_traced(module, images), buffer, extra_files=extra)
    raw = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(raw)).module()
    return raw, lambda given: loaded(given)[0].detach().numpy()


def _to_onnx(module: nn.Module, images: Tensor, about: dict[str, Any]) -> tuple[bytes, Any]:
    import onnx
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _traced(module, images), (images,), dynamo=True, verbose=False,
            input_names=["images"], output_names=list(OUTPUTS),
        )  # fmt: skip
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA: to_json(about)})
    raw = proto.SerializeToString()
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    return raw, lambda given: session.run(["probabilities"], {"images": given.numpy()})[0]


def _to_safetensors(module: nn.Module, images: Tensor, about: dict[str, Any]) -> tuple[bytes, Any]:
    plain = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
    raw = safetensors.torch.save(plain, {METADATA: to_json(about)})

    def compute(given: Tensor) -> np.ndarray:
        module.load_state_dict(safetensors.torch.load(raw))
        with torch.no_grad():
            return module(given)[0].numpy()

    return raw, compute


def read_description(path: Path) -> dict[str, Any]:
    """What an exported file says of itself: classes, input, outputs."""
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()[METADATA])
    if path.suffix == ".pt2":  # torch's own reader unpickles, which runs what it finds
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(f"/extra/{METADATA}.json"))
            return json.loads(archive.read(name))
    import onnx

    return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}[METADATA])


def _need_onnx() -> None:
    packages = ("onnx", "onnxruntime", "onnxscript")
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise MissingDependency(
            f"ONNX files need {', '.join(missing)}: not installed. Run: {install_command('export')}"
        )
