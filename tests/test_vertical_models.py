"""Tests of `fl_backdoor.models.dense`: section 7.1 of Liu, Yi, Chen 2020."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fl_backdoor.models.dense import DenseBottom

sizes = st.integers(1, 8)


def dense_layers(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


@settings(max_examples=30)
@given(sizes, sizes, sizes, st.booleans(), st.booleans(), sizes)
def test_rows_become_activations_or_scores(
    features: int, classes: int, hidden: int, projection: bool, relu: bool, rows: int
) -> None:
    model = DenseBottom(features, classes, hidden=hidden, projection=projection, relu=relu, seed=3)
    inputs = torch.randn(rows, features, generator=torch.Generator().manual_seed(1))
    first, *rest = dense_layers(model)
    expected = inputs @ first.weight.T + first.bias
    if relu:
        expected = expected.clamp(min=0)
    for layer in rest:
        expected = expected @ layer.weight.T + layer.bias
    assert len(rest) == projection
    assert expected.shape == (rows, classes if projection else hidden)
    torch.testing.assert_close(model(inputs), expected)


@settings(max_examples=30)
@given(features=sizes, classes=sizes, hidden=sizes, seed=st.integers(0, 2**62))
def test_weights_are_glorot_uniform_and_biases_zero(
    features: int, classes: int, hidden: int, seed: int
) -> None:
    model = DenseBottom(features, classes, hidden=hidden, projection=True, seed=seed)
    for layer in dense_layers(model):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert float(layer.weight.detach().abs().max()) <= bound * (1 + 1e-6)
        assert (layer.bias == 0).all()


def test_weights_fill_their_range() -> None:
    (layer,) = dense_layers(DenseBottom(634, 5))
    bound = (6 / (634 + 32)) ** 0.5
    assert layer.weight.shape == (32, 634)
    assert 0.99 * bound < float(layer.weight.detach().max()) <= bound
    assert abs(float(layer.weight.detach().std()) - bound / 3**0.5) < 0.02 * bound
    assert abs(float(layer.weight.detach().mean())) < 0.02 * bound


def test_golden_number_of_parameters() -> None:
    counts = [
        sum(p.numel() for p in DenseBottom(392, 10, projection=projection).parameters())
        for projection in (False, True)
    ]
    assert counts == [12_576, 12_906]


def test_the_seed_alone_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = DenseBottom(6, 3, hidden=4, projection=True, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters())

    first = weights(5)
    torch.manual_seed(1)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden", 0), ("hidden", -1), ("hidden", 2.5), ("relu", 1), ("projection", "no")],
)
def test_bad_arguments_are_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{key} = {value!r}")):
        DenseBottom(3, 2, **{key: value})
