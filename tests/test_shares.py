"""Tests of the figure of a partition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fl_backdoor.measure.figures import turned
from fl_backdoor.measure.shares import MOST, draw_shares, grouped


@given(st.integers(1, 5_000))
def test_groups_share_out_the_clients_in_order(count: int) -> None:
    groups = grouped(count)
    assert [row for first, end in groups for row in range(first, end)] == list(range(count))
    assert len(groups) == min(count, MOST)
    sizes = [end - first for first, end in groups]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shape", [(1, 2), (300, 62)])
def test_the_figure_is_grey_and_of_bounded_size(shape: tuple[int, int], tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 50, shape)
    draw_shares(counts, [f"c{k}" for k in range(shape[1])], tmp_path / "partition.png")
    with Image.open(tmp_path / "partition.png") as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    assert np.ptp(pixels, axis=2).max() == 0
    assert max(pixels.shape) < 4_000


def test_names_longer_than_their_column_are_turned() -> None:
    assert turned(["0", "1"], 0.5) == (0, 0)
    degrees, height = turned(["airplane", "automobile"], 0.5)
    assert (degrees, round(height, 2)) == (90, 0.9)
    assert turned(["airplane", "automobile"], 1.5)[0] == 0
    assert turned(list(map(str, range(11))), 0.5)[0] == 90
