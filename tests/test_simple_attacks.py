"""Tests of `clients.SignFlip` and `Gaussian`."""

import numpy as np
import pytest

from clients import Attack, Gaussian, Seat, SignFlip

UPDATE = {"a": np.array([[1.0, -2.0]]), "b": np.array(3.0)}


def test_a_flipped_update_points_the_other_way() -> None:
    crafted = SignFlip(factor=2.0).craft(UPDATE, Seat())
    assert {name: array.tolist() for name, array in crafted.items()} == {"a": [[-2, 4]], "b": -6}


def test_noise_is_of_its_standard_deviation_and_of_the_seat() -> None:
    update = {"a": np.zeros((200, 100)), "b": np.zeros(20_000)}
    crafted = Gaussian(std=3.0).craft(update, Seat(client=1, round=2))
    for name, array in crafted.items():
        assert array.shape == update[name].shape
        assert array.std() == pytest.approx(3.0, rel=0.02)
        assert array.mean() == pytest.approx(0.0, abs=0.1)
    again = Gaussian(std=3.0).craft(update, Seat(client=1, round=2))
    assert all((again[name] == crafted[name]).all() for name in update)
    for other in (Seat(client=2, round=2), Seat(client=1, round=3), Seat(1, round=2, seed=1)):
        assert (Gaussian(std=3.0).craft(update, other)["a"] != crafted["a"]).any()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(("kind", "name"), [(SignFlip, "factor"), (Gaussian, "std")])
def test_values_out_of_range(kind: type[Attack], name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: allowed is a finite number > 0"):
        kind(**{name: value})
