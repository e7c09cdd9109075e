"""Optimizers by name, parameter groups, and that any of them resumes as uninterrupted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlp_plugins.errors import UsageError
from dlp_plugins.network import Network
from dlp_plugins.recipe.model import OptimizerPart
from dlp_plugins.registry import backbones, optimizers
from dlp_plugins.training.parameters import parameter_groups

# A learning rate and arguments where torch's defaults do not do.
MUON = {"torch:Muon"}  # takes matrices alone
NAMES = ["sgd", "adamw", *(f"torch:{m}" for m in optimizers.get("torch:SGD").members() or [])]


@pytest.mark.parametrize("name", sorted(set(NAMES) - MUON))
def test_every_optimizer_descends(name):
    torch.manual_seed(0)
    layer = nn.Linear(4, 2)
    x, y = torch.randn(32, 4), torch.randn(32, 2)
    optimizer = optimizers.build(name, params=[{"params": list(layer.parameters())}],
                                 learning_rate=0.01)  # fmt: skip
    losses = []
    for _ in range(30):
        loss = (layer(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    slots = optimizer.state_dict()["state"].values()
    assert all(torch.is_tensor(v) or v is None for slot in slots for v in slot.values())


def test_sgd_and_adamw_are_torchs():
    weight = nn.Parameter(torch.ones(3))
    sgd = optimizers.build("sgd", params=[{"params": [weight]}])
    assert sgd.defaults["nesterov"] is True
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.9, 2e-4)
    adamw = optimizers.build("adamw", params=[{"params": [weight]}], beta2=0.95)
    assert adamw.defaults["betas"] == (0.9, 0.95)


def test_an_argument_that_torch_does_not_know_is_a_sentence():
    params = [{"params": [nn.Parameter(torch.ones(3))]}]
    with pytest.raises(UsageError, match=r"optimizer torch:NAdam: .*momentun"):
        optimizers.build("torch:NAdam", params=params, arguments={"momentun": 1})
    with pytest.raises(UsageError, match="optimizer torch:Adam: Invalid beta"):
        optimizers.build("torch:Adam", params=params, arguments={"betas": [2.0, 0.9]})


def network(backbone: nn.Module) -> Network:
    return Network(backbone, num_classes=3)


def small() -> nn.Module:
    return backbones.build("small_cnn", input_shape=(1, 8, 8), width=4)


def test_by_default_all_parameters_are_one_group():
    net = network(small())
    (group,) = parameter_groups(net, OptimizerPart(name="sgd"))
    assert group["rate"] == 1.0
    assert "weight_decay" not in group
    assert len(group["params"]) == len(list(net.parameters()))


def test_norms_and_biases_can_be_spared_from_decay_and_the_backbone_slowed():
    net = network(small())
    part = OptimizerPart(name="sgd", decay_norms_and_biases=False, backbone_rate=0.1)
    groups = parameter_groups(net, part)
    for group in groups:
        spared = group.get("weight_decay") == 0.0
        assert all((p.ndim <= 1) == spared for p in group["params"])
    heads = {id(p) for n, p in net.named_parameters() if n.startswith("head.")}
    rates = {g["rate"] for g in groups for p in g["params"] if id(p) in heads}
    assert rates == {1.0}
    assert {g["rate"] for g in groups} == {1.0, 0.1}
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


def test_layer_decay_falls_by_the_same_factor_from_layer_to_layer_of_a_timm_model():
    net = network(backbones.build("timm:vit_tiny_patch16_224", input_shape=(3, 32, 32)))
    groups = parameter_groups(net, OptimizerPart(name="adamw", layer_decay=0.5))
    rate = {id(p): g["rate"] for g in groups for p in g["params"]}
    named = dict(net.named_parameters())
    of = lambda name: rate[id(named[name])]  # noqa: E731
    assert of("head.weight") == 1.0
    assert of("backbone.blocks.11.mlp.fc1.weight") / of("backbone.blocks.10.mlp.fc1.weight") == 2
    assert of("backbone.patch_embed.proj.weight") < of("backbone.blocks.0.mlp.fc1.weight")


def test_layer_decay_of_a_backbone_without_layers_is_refused():
    part = OptimizerPart(name="sgd", layer_decay=0.5)
    with pytest.raises(UsageError, match=r"backbone_rate instead"):
        parameter_groups(network(small()), part)
