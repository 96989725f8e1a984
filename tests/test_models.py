"""Tests of `fl_backdoor.models`: their papers' sizes, and the initial weights."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fl_backdoor.errors import UserError
from fl_backdoor.federation.model import new_model
from fl_backdoor.models import MLP, LeNet5, ResNet18, TextClassifier
from fl_backdoor.models.cao2019 import Cao2019CNN

# Weights and biases of the four 5x5 convolutions: 25 * in * out + out.
CONVOLUTIONS = 832 + 51_264 + 204_928 + 819_456


@settings(max_examples=20)
@given(
    classes=st.integers(1, 10),
    channels=st.lists(st.integers(1, 5), max_size=4),
    size=st.integers(16, 33),
    shrink=st.sampled_from(["stride", "max_pool"]),
)
def test_images_become_one_logit_a_class(
    classes: int, channels: list[int], size: int, shrink: Any
) -> None:
    model = Cao2019CNN(classes, shrink=shrink, channels=channels, input_shape=(1, size, size))
    assert model(torch.zeros(3, 1, size, size)).shape == (3, classes)


@pytest.mark.parametrize(
    ("shrink", "pixels"),
    [("stride", 2 * 2), ("max_pool", 1)],  # 28, 14, 7, 4, 2 and 28, 14, 7, 3, 1
)
@pytest.mark.parametrize("classes", [2, 10])
def test_table_1(shrink: Any, pixels: int, classes: int) -> None:
    model = Cao2019CNN(classes, shrink=shrink)
    kinds = {"stride": [nn.Conv2d, nn.ReLU], "max_pool": [nn.Conv2d, nn.ReLU, nn.MaxPool2d]}
    assert [type(layer) for layer in model.layers] == [*4 * kinds[shrink], nn.Flatten, nn.Linear]
    convolutions = [layer for layer in model.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256]
    assert [layer.in_channels for layer in convolutions] == [1, 32, 64, 128]
    assert {layer.kernel_size for layer in convolutions} == {(5, 5)}
    assert {layer.stride for layer in convolutions} == {(2, 2) if shrink == "stride" else (1, 1)}
    dense = classes * (256 * pixels + 1)
    assert sum(p.numel() for p in model.parameters()) == CONVOLUTIONS + dense
    assert model(torch.zeros(5, 1, 28, 28)).shape == (5, classes)


def test_golden_number_of_parameters() -> None:
    counts = [
        sum(p.numel() for p in Cao2019CNN(2, shrink=shrink).parameters())
        for shrink in ("stride", "max_pool")  # type: ignore[assignment]
    ]
    assert counts == [1_078_530, 1_076_994]


def test_initial_weights_are_those_of_section_3a() -> None:
    for name, values in Cao2019CNN(2).state_dict().items():
        if name.endswith("bias"):
            assert (values == 0).all()
        else:
            error = 4 * 0.02 / values.numel() ** 0.5
            assert abs(float(values.mean())) < error
            assert abs(float(values.std()) - 0.02) < error


def test_the_seed_alone_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(Cao2019CNN(2, channels=[3, 4], seed=seed).parameters())

    first = weights(5)
    torch.manual_seed(1)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrink": "pool"}, "shrink = 'pool' must be 'stride' or 'max_pool'"),
        ({"channels": [4, 0]}, r"channels = \[4, 0\] must be 1 or more each"),
        (
            {"channels": [4] * 5, "shrink": "max_pool"},
            r"channels = \[4, 4, 4, 4, 4\]: 5 times max_pool leave nothing of 28 pixels",
        ),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cao2019CNN(2, **options)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_colour_images_that_are_no_squares_fit() -> None:
    model = Cao2019CNN(3, channels=[2, 4], input_shape=(3, 20, 33))
    assert model(torch.zeros(2, 3, 20, 33)).shape == (2, 3)


def test_lenet_5_has_the_sizes_of_its_paper() -> None:
    """C1 156, S2 to C3 full, C5 48,120, F6 10,164, and a dense layer of 84 for each class."""
    for shape in ((1, 28, 28), (1, 32, 32)):
        model = LeNet5(10, input_shape=shape)
        assert size(model) == 156 + (16 * 6 * 25 + 16) + 48_120 + 10_164 + 850
        assert model(torch.zeros(2, *shape)).shape == (2, 10)


BLOCKS = [
    f"layer{stage}.{block}.{part}"
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for part in ("conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1")
    if part[0] != "d" or (stage > 1 and block == 0)
]


def test_resnet_18_has_the_names_and_the_size_of_torchvisions() -> None:
    model = ResNet18(1000, input_shape=(3, 224, 224))
    assert size(model) == 11_689_512
    owners = dict.fromkeys(name.rpartition(".")[0] for name in model.state_dict())
    assert list(owners) == ["conv1", "bn1", *BLOCKS, "fc"]
    assert tuple(model.conv1.weight.shape) == (64, 3, 7, 7)


@pytest.mark.parametrize(("side", "left"), [(28, 4), (32, 4), (63, 8), (64, 2)])
def test_small_images_keep_their_pixels(side: int, left: int) -> None:
    """Section 4.2: three halvings of 32 pixels; with ImageNet's stem it would be five."""
    model = ResNet18(2, input_shape=(1, side, side)).eval()
    shapes = []
    model.layer4.register_forward_hook(lambda _, __, output: shapes.append(output.shape))
    model(torch.zeros(1, 1, side, side))
    assert shapes == [(1, 512, left, left)]


def test_a_model_without_hidden_layers_is_regression() -> None:
    model = MLP(3, input_shape=(1, 4, 5), hidden=[])
    assert size(model) == 3 * 20 + 3
    assert size(MLP(10, input_shape=(1, 28, 28), hidden=[64])) == 784 * 64 + 64 + 64 * 10 + 10


@pytest.mark.parametrize("pool", ["mean", "gru"])
def test_padding_says_nothing(pool: Any) -> None:
    torch.manual_seed(0)
    model = TextClassifier(3, vocabulary=9, embedding=4, pool=pool)
    text = torch.tensor([[3, 5, 8]])
    padded = torch.tensor([[3, 5, 8, 0, 0]])
    torch.testing.assert_close(model(text), model(padded))
    assert torch.isfinite(model(torch.zeros(2, 3, dtype=torch.int64))).all()
    assert not torch.allclose(model(text), model(torch.tensor([[3, 5, 7]])))


def test_a_class_gets_what_it_takes_and_the_node_does_not_give() -> None:
    node = {"_target_": "fl_backdoor.models.MLP", "hidden": [3], "num_classes": 7}
    offered: dict[str, Any] = {"num_classes": 2, "input_shape": (5,), "vocabulary": None}
    assert new_model(node, 0, **offered)(torch.zeros(1, 5)).shape == (1, 7)
    linear = {"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 2}
    assert new_model(linear, 0, **offered)(torch.zeros(1, 5)).shape == (1, 2)


def made(num_classes: int, width: int = 5) -> nn.Module:
    return nn.Linear(width, num_classes)


def text(num_classes: int) -> str:
    return str(num_classes)


def test_a_function_may_return_the_model() -> None:
    offered: dict[str, Any] = {"num_classes": 2, "input_shape": (5,)}
    node = {"_target_": f"{__name__}.made", "width": 3}
    assert new_model(node, 0, **offered)(torch.zeros(1, 3)).shape == (1, 2)
    twice = [new_model(node, seed, **offered).state_dict()["weight"] for seed in (4, 4)]
    assert torch.equal(*twice)
    for wrong in (f"{__name__}.text", "builtins.str", f"{__name__}.CONVOLUTIONS"):
        with pytest.raises(UserError, match=f"^model._target_={wrong}: allowed are Module classes"):
            new_model({"_target_": wrong}, 0, **offered)
    with pytest.raises(UserError, match="allowed are Module classes, and functions that return"):
        new_model(node | {"_partial_": True}, 0, **offered)
