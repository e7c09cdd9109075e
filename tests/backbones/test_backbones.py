"""The paper's networks layer by layer, and what the heads add to any backbone."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from dlp_plugins.backbones.contract import normalization
from dlp_plugins.errors import ComponentError, DataError, RegistryError
from dlp_plugins.network import Network
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import backbones
from dlp_plugins.testing import check_backbone
from dlp_plugins.training.data import prepare_data
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.run import build_accelerator

# One of each sort: any size of image; a fixed one; features that are widened after the pooling; no
# batch norm.
TIMM = ["timm:resnet18", "timm:test_vit", "timm:mobilenetv3_small_050", "timm:test_convnext"]


def shapes(network: nn.Module, kinds: tuple[type, ...], image: torch.Tensor) -> list[tuple]:
    """Output shape, without the batch, of every layer of these kinds, in the order of the pass."""
    seen: list[tuple] = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape[1:])))
    network.eval()(image)
    return seen


def test_the_13_layer_network_is_the_papers_shape_by_shape():
    network = backbones.build("cnn13", input_shape=(3, 32, 32))
    found = shapes(network, (nn.Conv2d, nn.MaxPool2d), torch.rand(2, 3, 32, 32))
    assert found == [
        (128, 32, 32), (128, 32, 32), (128, 32, 32), (128, 16, 16),
        (256, 16, 16), (256, 16, 16), (256, 16, 16), (256, 8, 8),
        (512, 6, 6), (256, 6, 6), (128, 6, 6),
    ]  # fmt: skip
    assert network.num_features == 128


def test_the_13_layer_networks_parameters_layer_by_layer():
    network = backbones.build("cnn13")
    widths = [3, 128, 128, 128, 256, 256, 256, 512, 256, 128]
    kernels = [3, 3, 3, 3, 3, 3, 3, 1, 1]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for conv, i, o, k in zip(convolutions, widths[:-1], widths[1:], kernels, strict=True):
        # weight normalisation: a direction for each weight, a length for each filter; and a bias
        assert sum(p.numel() for p in conv.parameters()) == i * o * k * k + o + o
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == widths[1:]
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert sum(p.numel() for p in network.parameters()) == 3_116_416 + 4 * sum(widths[1:])


def test_weight_normalisation_holds_the_length_of_each_filter():
    conv = next(m for m in backbones.build("cnn13").modules() if isinstance(m, nn.Conv2d))
    length = conv.parametrizations.weight.original0.flatten()
    assert torch.allclose(conv.weight.flatten(1).norm(dim=1), length, rtol=1e-5)
    with torch.no_grad():
        conv.parametrizations.weight.original1.mul_(3)  # a direction has no length
    assert torch.allclose(conv.weight.flatten(1).norm(dim=1), length, rtol=1e-5)


def test_the_13_layer_network_refuses_images_it_cannot_shrink():
    with pytest.raises(DataError, match="at least 12 x 12 pixels; these are 8 x 20"):
        backbones.build("cnn13", input_shape=(3, 8, 20))


def test_resnet18_at_84_pixels():
    network = backbones.build("resnet18", input_shape=(3, 84, 84))
    found = shapes(network, (nn.Conv2d,), torch.rand(2, 3, 84, 84))
    # the main path and, at each change of width, the 1x1 convolution of the short cut
    assert found[0] == (64, 42, 42)
    assert list(dict.fromkeys(found)) == [
        (64, 42, 42), (64, 21, 21), (128, 11, 11), (256, 6, 6), (512, 3, 3),
    ]  # fmt: skip
    assert len(found) == 20
    assert sum(p.numel() for p in network.parameters()) == 11_176_512
    assert network(torch.rand(2, 3, 84, 84)).shape == (2, 512)


BUILT_IN = [n for n in backbones.names() if n not in ("timm", "usb")]


def test_the_registry_is_not_empty():
    assert {"cnn13", "mlp", "resnet18", "small_cnn"} <= set(BUILT_IN)


@pytest.mark.parametrize("name", [*BUILT_IN, *TIMM])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_backbone_trains_copies_and_saves(name, channels):
    torch.manual_seed(0)
    backbone = backbones.build(name, input_shape=(channels, 32, 32))
    network = Network(backbone, 5, heads=2)
    images = torch.rand(4, channels, 32, 32)
    output = network(images)
    assert output.logits.shape == output.consistency_logits.shape == (4, 5)
    assert output.descriptor.shape == (4, backbone.num_features)
    (output.logits.sum() + output.consistency_logits.pow(2).sum()).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    twin = copy.deepcopy(network).eval()
    other = Network(backbones.build(name, input_shape=(channels, 32, 32)), 5, heads=2).eval()
    other.load_state_dict(network.state_dict())
    expected = network.eval()(images).logits
    assert twin(images).logits.equal(expected)
    assert other(images).logits.equal(expected)


def test_the_descriptor_is_normalised_before_the_linear_layer_or_not():
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8))
    images = torch.rand(3, 1, 8, 8)
    unit, free = (
        Network(backbone, 4).eval(),
        Network(backbone, 4, normalize_descriptor=False).eval(),
    )
    out = unit(images)
    assert torch.allclose(out.descriptor.norm(dim=1), torch.ones(3))
    assert torch.allclose(out.logits, unit.head(out.descriptor))
    assert torch.allclose(free(images).descriptor, backbone.eval()(images))


def test_one_head_gives_the_same_logits_twice_and_two_heads_do_not():
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8))
    images = torch.rand(3, 1, 8, 8)
    one, two = Network(backbone, 4)(images), Network(backbone, 4, heads=2)(images)
    assert one.consistency_logits is one.logits
    assert not torch.allclose(two.consistency_logits, two.logits)


@pytest.mark.parametrize(
    ("which", "normalised"),
    [("none", []), ("second", ["consistency_head"]), ("both", ["head", "consistency_head"])],
)
def test_weight_normalised_heads_learn_length_and_direction_apart(which, normalised):
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8))
    network = Network(backbone, 4, heads=2, weight_norm_heads=which)
    for name in ("head", "consistency_head"):
        head = getattr(network, name)
        own = {key for key, _ in head.named_parameters()}
        if name not in normalised:
            assert own == {"weight", "bias"}
            continue
        length, direction = (
            head.parametrizations.weight.original0,
            head.parametrizations.weight.original1,
        )
        assert own == {
            "bias",
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
        }
        with torch.no_grad():
            length.mul_(3)
            direction.mul_(torch.rand(4, 1) + 0.5)  # its length has no effect
        unit = direction / direction.norm(dim=1, keepdim=True)
        assert length.shape == (4, 1)
        assert torch.allclose(head.weight, length * unit)


@pytest.mark.parametrize(("which", "normalised"), [("second", False), ("both", True)])
def test_with_one_head_the_second_is_not_there(which, normalised):
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8))
    network = Network(backbone, 4, heads=1, weight_norm_heads=which)
    assert torch.nn.utils.parametrize.is_parametrized(network.head) == normalised


def test_an_unknown_timm_model_names_the_nearest():
    with pytest.raises(RegistryError, match="Did you mean 'resnet18'"):
        backbones.build("timm:resnet81")


def test_pretrained_weights_without_a_network_say_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded.*weights_file=FILE"):
        backbones.build("timm:resnet18", pretrained=True)


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    source = backbones.build("timm:resnet18")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    loaded = backbones.build("timm:resnet18", weights_file=str(tmp_path / "weights.pth"))
    assert loaded.conv1.weight.equal(source.conv1.weight)
    with pytest.raises(DataError, match=r"none\.pth cannot be used"):
        backbones.build("timm:resnet18", weights_file=str(tmp_path / "none.pth"))


def test_weights_with_a_classifier_are_taken_and_another_models_refused(tmp_path):
    """Loaded without a murmur, another model's weights would leave the network untrained."""
    source = timm.create_model("test_vit", num_classes=7, img_size=32)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    loaded = backbones.build(
        "timm:test_vit", input_shape=(3, 32, 32), weights_file=str(tmp_path / "weights.pth")
    )
    assert loaded.pos_embed.equal(source.pos_embed)
    with pytest.raises(DataError, match=r"tensors are not there, conv1\.weight first"):
        backbones.build("timm:resnet18", weights_file=str(tmp_path / "weights.pth"))


def test_weights_that_do_not_exist():
    with pytest.raises(DataError, match=r"has no weights.*pretrained=false"):
        backbones.build("timm:botnet50ts_256", pretrained=True)


def test_a_timm_model_may_be_named_with_the_tag_of_its_weights():
    assert backbones.get("timm:resnet18.a1_in1k").name == "timm"


@pytest.mark.parametrize("name", [*BUILT_IN, *TIMM])
def test_images_need_not_be_square(name):
    channels = 3 if name == "imagenet-lite" else 2
    check_backbone(name, input_shape=(channels, 32, 48))


@pytest.mark.parametrize("name", [*(n for n in BUILT_IN if n != "mlp"), "timm:test_vit"])
def test_a_backbone_of_images_refuses_vectors(name):
    with pytest.raises(DataError, match=r"takes images; these data are vectors of 7.*mlp"):
        backbones.build(name, input_shape=(7,))


def test_a_small_cnn_refuses_images_it_cannot_halve():
    with pytest.raises(DataError, match="at least 8 x 8 pixels; these are 16 x 4"):
        backbones.build("small_cnn", input_shape=(1, 16, 4), blocks=3)


@pytest.mark.parametrize("hidden", [[], [5], [9, 4]])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_an_mlp_of_any_widths(hidden, batch_norm):
    options = {"hidden": hidden, "batch_norm": batch_norm, "dropout": 0.1}
    network = backbones.build("mlp", input_shape=(7,), **options)
    assert network.num_features == (hidden or [7])[-1]
    assert len([m for m in network.modules() if isinstance(m, nn.Linear)]) == len(hidden)
    if hidden:
        check_backbone("mlp", input_shape=(7,), **options)


def test_an_mlp_is_its_formula():
    torch.manual_seed(0)
    network = backbones.build("mlp", input_shape=(6,), hidden=[5, 4], batch_norm=False)
    first, second = (m for m in network.modules() if isinstance(m, nn.Linear))
    x = torch.randn(3, 6)
    inner = (x @ first.weight.T + first.bias).clamp(min=0)
    assert torch.allclose(network(x), (inner @ second.weight.T + second.bias).clamp(min=0))


def test_weights_bring_the_mean_and_deviation_they_were_trained_with(tmp_path):
    assert normalization(backbones.build("timm:test_vit")) is None
    for channels, expected in ((3, (0.5, 0.5, 0.5)), (1, (0.5,)), (4, None)):
        source = timm.create_model("test_vit", num_classes=0, img_size=32, in_chans=channels)
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        loaded = backbones.build(
            "timm:test_vit",
            input_shape=(channels, 32, 32),
            weights_file=str(tmp_path / "weights.pth"),
        )
        # Nothing is published for a fourth channel.
        assert normalization(loaded) == (expected and (expected, expected))


def test_a_run_normalises_by_them_instead_of_the_data_sets(tmp_path):
    settings = ["backbone=timm:test_resnet", "dataset.num_train=60", "dataset.num_test=20"]
    source = timm.create_model("test_resnet", num_classes=0, in_chans=1)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    zeros = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    found = []
    for weights in ([], [f"backbone.weights_file={tmp_path / 'weights.pth'}"]):
        recipe = load_recipe("digits", [*settings, *weights])
        data = prepare_data(recipe, torch.device("cpu"))
        learner = Learner(recipe, data, build_accelerator("cpu", "float32"))
        found.append(float(learner.plain(zeros)[0, 0, 0, 0]))
    assert found[0] == pytest.approx(-data.dataset.mean[0] / data.dataset.std[0])
    config = source.pretrained_cfg
    assert found[1] == pytest.approx(-sum(config["mean"]) / sum(config["std"]))


@pytest.mark.parametrize(("name", "side"), [("test_vit", 8), ("test_convnext", 4)])
def test_images_that_a_timm_model_does_not_take(name, side):
    with pytest.raises(DataError, match=f"does not take images of {side} x {side} pixels"):
        backbones.build(f"timm:{name}", input_shape=(3, side, side))


@pytest.mark.parametrize(
    ("features", "output", "sentence"),
    [
        (
            None,
            torch.zeros(2, 3),
            "num_features must be the length of a feature vector; found None",
        ),
        (4, torch.zeros(2, 3), r"must return features \[2, 4\] .*found \[2, 3\] torch.float32"),
        (3, torch.zeros(2, 3, 1, 1), r"found \[2, 3, 1, 1\]"),
        (3, torch.zeros(2, 3).long(), "found .* torch.int64"),
        (3, (torch.zeros(2, 3),), "found tuple"),
    ],
)
def test_a_backbone_that_breaks_its_contract_is_named(features, output, sentence):
    class Mine(torch.nn.Module):
        num_features = features

        def forward(self, images):
            return output

    with pytest.raises(ComponentError, match=f"backbone Mine: .*{sentence}"):
        Network(Mine(), 2)(torch.zeros(2, 3, 8, 8))
