"""USB's networks and data sets as this project's components."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import usb_digits  # noqa: F401 - one thread
from PIL import Image
from semilearn import nets

from dlp_plugins import _semilearn, registry
from dlp_plugins.backbones.usb import MEMBERS
from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.errors import DataError, MissingDependency, PluginError
from dlp_plugins.network import Network

pytestmark = pytest.mark.usb


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (
            ModuleNotFoundError("no", name="semilearn"),
            MissingDependency,
            r"pip install .*semilearn==0\.3\.2",
        ),
        (ModuleNotFoundError("no", name="aim"), MissingDependency, "but not aim"),
        (OSError("undefined symbol"), PluginError, "undefined symbol.*torchaudio 2.11"),
    ],
)
def test_a_usb_that_does_not_import_is_a_sentence(monkeypatch, error, kind, says):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(kind, match=says):
        _semilearn.require()


def test_members_are_usbs_image_networks():
    text_and_sound = {"bert_base_cased", "bert_base_uncased", "wave2vecv2_base", "hubert_base"}
    builders = {n for n in dir(nets) if callable(getattr(nets, n))}
    assert builders - text_and_sound == set(MEMBERS)


@pytest.mark.parametrize(
    ("name", "size"), [("wrn_28_2", 16), ("resnet50", 32), ("vit_tiny_patch2_32", 32)]
)
def test_backbone_gives_the_features_of_usbs_network(name, size):
    torch.manual_seed(0)
    backbone = registry.backbones.build(f"usb:{name}", input_shape=(1, size, size)).eval()
    network = Network(backbone, 10)
    grey = torch.rand(2, 1, size, size)
    network(grey).logits.sum().backward()
    torch.manual_seed(0)
    own = getattr(nets, name)(num_classes=2).eval()
    expected = own(grey.repeat(1, 3, 1, 1), only_feat=True)
    assert torch.allclose(backbone(grey), expected, atol=1e-5)
    # No weight is left without a use but those that USB's own wide ResNets never use.
    expected.sum().backward()
    idle = {f"backbone.net.{n}" for n, p in own.named_parameters() if p.grad is None}
    classifier = {n for n in idle if n.split(".")[2] in ("classifier", "head")}
    assert classifier
    unused = {n for n, p in network.named_parameters() if p.grad is None}
    assert unused == idle - classifier


def test_batch_norm_momentum_is_usbs_unless_set():
    def momenta(**parameters):
        net = registry.backbones.build("usb:wrn_28_2", input_shape=(3, 32, 32), **parameters)
        return {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)}

    assert momenta() == {0.001}
    assert momenta(batch_norm_momentum=0.1) == {0.1}


def test_wrong_images_are_refused():
    with pytest.raises(PluginError, match="images of 32x32; these are 28x28"):
        registry.backbones.build("usb:vit_small_patch2_32", input_shape=(3, 28, 28))
    with pytest.raises(PluginError, match="these have 4"):
        registry.backbones.build("usb:wrn_28_2", input_shape=(4, 32, 32))


def folder_of_images(root: Path, per_class: int) -> None:
    """Images whose pixels tell class and number."""
    for label in range(3):
        (root / f"class_{label}").mkdir(parents=True)
        for i in range(per_class):
            pixels = np.full((20, 20, 3), [10 * label, i, 7], dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class_{label}" / f"{i}.png")


@pytest.mark.parametrize(
    ("name", "folders", "train"), [("eurosat", ["."], 24), ("imagenet", ["train", "val"], 30)]
)
def test_folder_data_set_keeps_every_image_with_its_own_label(
    tmp_path, monkeypatch, name, folders, train
):
    monkeypatch.chdir(tmp_path)  # some of USB's readers write beside the working folder
    for folder in folders:
        folder_of_images(tmp_path / name / folder, per_class=10)
    before = np.random.get_state()[1].copy()
    data = registry.datasets.build(f"usb:{name}", root=str(tmp_path), image_size=16, num_classes=3)
    assert (np.random.get_state()[1] == before).all()
    assert data.classes == ("class_0", "class_1", "class_2")
    assert len(data.train) == train
    assert isinstance(data.train, LazyImages)
    seen = set()
    for i, label in enumerate(data.train.labels.tolist()):
        pixels = data.train.read(i)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == data.train.shape == (3, 16, 16)
        assert int(pixels[0, 0, 0]) == 10 * label
        seen.add((label, int(pixels[1, 0, 0])))
    assert len(seen) == train  # each image once
    again = registry.datasets.build(f"usb:{name}", root=str(tmp_path), image_size=16, num_classes=3)
    assert torch.equal(data.train.labels, again.train.labels)


def test_absent_data_are_a_sentence(tmp_path):
    with pytest.raises(DataError, match="usb:eurosat: USB cannot read it under"):
        registry.datasets.build("usb:eurosat", root=str(tmp_path))
