"""Which weights of a pretrained backbone are trained."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from dlp_plugins.errors import MissingDependency, UsageError
from dlp_plugins.network import Network
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import backbones
from dlp_plugins.training import finetuning
from dlp_plugins.training.load import load
from dlp_plugins.training.run import run

SHORT = (
    "dataset.num_train=120", "dataset.num_test=30", "training.stage_one_epochs=1",
    "training.stage_one_steps=2", "training.stage_two_epochs=2", "backbone=timm:test_resnet",
    "training.precision=float32",
)  # fmt: skip


def trained(*settings: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of a timm backbone that learn."""
    network = backbones.build("timm:test_resnet", input_shape=(3, 32, 32))
    finetuning.restrict(network, load_recipe("digits", [*SHORT, *settings]).backbone)
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def test_all_none_or_the_last_layers() -> None:
    every = trained()
    assert trained("backbone.trains=none") == {}
    last = trained("backbone.trains=last_layers")
    more = trained("backbone.trains=last_layers", "backbone.last_layers=2")
    assert 0 < len(last) < len(more) < len(every)
    assert last.keys() < more.keys()


def test_a_frozen_backbone_stays_as_it_is_while_the_head_learns(tmp_path: Path) -> None:
    found = []
    for epochs in (1, 2):
        settings = [*SHORT, "backbone.trains=none", f"training.stage_two_epochs={epochs}"]
        run(load_recipe("digits", settings), tmp_path / str(epochs), device="cpu")
        found.append(load(tmp_path / str(epochs), device="cpu").network)
    early, late = found
    kept = late.backbone.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in early.backbone.state_dict().items())
    assert not torch.equal(early.head.weight, late.head.weight)


def test_batch_norms_keep_their_statistics_where_anything_is_frozen() -> None:
    network = Network(backbones.build("timm:test_resnet", input_shape=(3, 32, 32)), 10)
    part = load_recipe("digits", ["backbone.trains=last_layers"]).backbone
    finetuning.restrict(network.backbone, part)
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    for one in (network, copy.deepcopy(network)):
        one.train()
        assert one.backbone.training
        one(torch.randn(8, 3, 32, 32)).logits.sum().backward()
        after = one.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items())
        norms = [m for m in one.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms
        assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_a_backbone_without_an_order_of_layers_is_refused() -> None:
    network = backbones.build("small_cnn", input_shape=(3, 32, 32))
    part = load_recipe("digits", ["backbone.trains=last_layers"]).backbone
    with pytest.raises(UsageError, match="small_cnn does not say which layers"):
        finetuning.restrict(network, part)


def test_adapters_alone_learn_and_are_loaded_again(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    names = trained("backbone.trains=adapters", "backbone.adapter_rank=2")
    assert names
    assert all(".lora_" in name for name in names)
    recipe = load_recipe("digits", [*SHORT, "backbone.trains=adapters"])
    run(recipe, tmp_path / "run", device="cpu")
    images = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
    assert len(load(tmp_path / "run", device="cpu").predict(images)) == 5


def test_adapters_fit_a_network_that_pads_by_the_size_of_the_image() -> None:
    pytest.importorskip("peft")
    network = backbones.build("timm:tf_efficientnet_lite0", input_shape=(3, 32, 32))
    part = load_recipe("digits", ["backbone.trains=adapters"]).backbone
    finetuning.restrict(network, part)
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    assert names
    assert not any("conv_stem" in name for name in names)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1280)


def test_adapters_without_the_library_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependency, match=r"needs the library peft: .*pip install"):
        trained("backbone.trains=adapters")
