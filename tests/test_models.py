"""Tests of `fl_backdoor.models`: Table I of Cao et al. 2019, and the initial weights."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
