"""`PairwiseDistances` against the float64 differences that define it."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from strategies.graph import distances as module
from strategies.graph.distances import PairwiseDistances


def distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return np.sqrt(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def distance_matrix(models: NDArray[np.floating]) -> NDArray[np.float64]:
    n = len(models)
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            result[i, j] = result[j, i] = distance(models[i], models[j])
    return result


def edges(distances: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    return (distances < threshold) & ~np.eye(len(distances), dtype=bool)


def check(models: NDArray[np.floating], thresholds: list[float] | None = None) -> None:
    """Compare everything with the twin; by default at and around thresholds that exist."""
    expected = distance_matrix(models)
    if thresholds is None:
        thresholds = [0.0, *np.quantile(expected, [0.1, 0.3, 0.5, 0.8, 1.0], method="lower")]
    before = models.copy()
    result = PairwiseDistances(models)
    check_matrix(result.matrix, expected)
    for threshold in thresholds:
        for probe in (threshold, np.nextafter(threshold, -1), np.nextafter(threshold, np.inf)):
            np.testing.assert_array_equal(result.below(probe), edges(expected, probe))
    check_matrix(result.matrix, expected)
    np.testing.assert_array_equal(models, before)


def check_matrix(matrix: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(matrix, expected, rtol=1e-7, atol=0)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not np.diagonal(matrix).any()


class CountedDistances(PairwiseDistances):
    """Records the size of every pass, and how many pairs fell back to differences."""

    def __init__(self, models: NDArray[np.floating]) -> None:
        self.passes: list[int] = []
        self.direct = 0
        super().__init__(models)

    def _measure(self, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        self.passes.append(len(rows))
        return super()._measure(rows)

    def _measure_directly(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> None:
        self.direct += len(first)
        super()._measure_directly(first, second)


@st.composite
def model_matrices(draw: st.DrawFn) -> NDArray[np.floating]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 14))
    d = draw(st.sampled_from([1, 2, 7, 100, 2048, 2049, 5000]))
    models = rng.standard_normal((n, d))
    models += draw(st.sampled_from([0, 1, 1e3, 1e6])) * rng.standard_normal(d)
    for copy in range(draw(st.integers(0, n - 1))):
        original = rng.integers(n)
        noise = draw(st.sampled_from([0, 1e-12, 1e-6, 1e-3]))
        models[copy] = models[original] + noise * rng.standard_normal(d)
    models *= 10.0 ** draw(st.integers(-20, 20))
    return models.astype(draw(st.sampled_from([np.float32, np.float64])))


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Make small models span several blocks of columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_SIZE", 2**16)
        yield


@settings(max_examples=150)
@given(models=model_matrices(), data=st.data())
def test_matches_float64_differences(models: NDArray[np.floating], data: st.DataObject) -> None:
    pair = st.tuples(*[st.integers(0, len(models) - 1)] * 2)
    thresholds = [distance(models[i], models[j]) for i, j in data.draw(st.lists(pair, max_size=4))]
    thresholds.append(data.draw(st.floats(0, 1e30)))
    check(models, thresholds)


@settings(max_examples=30)
@given(models=model_matrices(), data=st.data())
def test_permuted_rows_permute_the_result(
    models: NDArray[np.floating], data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(models)))))
    result, permuted = PairwiseDistances(models), PairwiseDistances(models[order])
    threshold = float(np.median(result.matrix))
    np.testing.assert_array_equal(
        permuted.below(threshold), result.below(threshold)[np.ix_(order, order)]
    )
    np.testing.assert_allclose(permuted.matrix, result.matrix[np.ix_(order, order)], rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("majority", [True, False])
def test_sybils(dtype: type[np.floating], majority: bool) -> None:
    rng = np.random.default_rng(0)
    n = 160 if majority else 250
    models = rng.standard_normal((n, 2500)) * 20  # norm 1e3
    models[:110] = 1.1 * models[0] + 1e-6 * rng.standard_normal((110, 2500))
    models = models.astype(dtype)
    counted = CountedDistances(models)
    assert counted.passes == ([n] if majority else [n, 110])
    assert counted.direct == 0
    check(models)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_common_offset(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(1)
    models = (1e6 + rng.standard_normal((60, 3000))).astype(dtype)
    assert CountedDistances(models).passes == [60]
    check(models)


def test_duplicates_are_exactly_zero_apart() -> None:
    rng = np.random.default_rng(2)
    models = rng.standard_normal((200, 3000), dtype=np.float32)
    models[50:150] = models[7]  # one large cluster
    models[150:] = models[:50]  # and pairs
    result = CountedDistances(models)
    assert not result.matrix[50:150, 50:150].any()
    assert result.matrix[150, 0] == 0
    assert (result.passes, result.direct) == ([200], 49)
    check(models)


def test_points_exactly_at_the_threshold() -> None:
    # The vertices p + gamma / 2 (e_1k +- ...) of a simplex: every pair is exactly gamma apart.
    rng = np.random.default_rng(3)
    gamma = 0.5
    models = np.tile(rng.integers(-8, 8, 3000) / 8, (40, 1)).astype(np.float32)
    for k, model in enumerate(models):
        model[2 * k : 2 * k + 2] += gamma / 2
    assert set(distance_matrix(models)[np.triu_indices(40, 1)]) == {gamma}
    check(models, [gamma])
    assert not PairwiseDistances(models).below(gamma).any()


def test_points_within_rounding_of_the_threshold() -> None:
    rng = np.random.default_rng(4)
    directions = rng.standard_normal((60, 2000))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    models = rng.standard_normal(2000) + 0.5 * directions * (1 + 1e-15 * rng.integers(-9, 9))
    models[0] -= 0.5 * directions[0]
    check(models, [0.5, *distance_matrix(models)[0, 1:5]])


def test_clusters_nested_in_clusters() -> None:
    rng = np.random.default_rng(5)
    scales = 10.0 ** -np.repeat(np.arange(0, 40, 4), 8)
    models = scales[:, None] * rng.standard_normal((80, 300))
    check(models)
    check(models.astype(np.float32))
    check(models + np.where(np.arange(300) < 150, 1e3, 0))


@pytest.mark.parametrize("closed", [True, False])
def test_chain_of_near_neighbours(closed: bool) -> None:
    # Each is close to the next only, so that no single centre serves the whole cluster.
    angle = np.linspace(0, 2 * np.pi, 450, endpoint=False)[: 450 if closed else 150]
    models = np.column_stack([np.cos(angle), np.sin(angle)])
    check(models, [distance(models[0], models[k]) for k in (1, 2, 70)])


def test_a_few_huge_models_do_not_slow_the_others() -> None:
    rng = np.random.default_rng(6)
    models = rng.standard_normal((50, 500), dtype=np.float32)
    models[:20] *= np.logspace(10, 30, 20, dtype=np.float32)[:, None]
    assert CountedDistances(models).passes == [50]
    check(models)


def test_extreme_float64_values() -> None:
    rng = np.random.default_rng(7)
    models = rng.standard_normal((20, 50))
    models[:8] *= 1e147
    models[8:12] *= 1e-120
    check(models)
    # Differences whose squares underflow: still the decisions of the float64 differences.
    models = 1e-159 * rng.standard_normal((20, 50))
    result, expected = PairwiseDistances(models), distance_matrix(models)
    for threshold in (*expected[0, 1:], 1e-150):
        np.testing.assert_array_equal(result.below(threshold), edges(expected, threshold))


@pytest.mark.parametrize("layout", ["fortran", "strided"])
def test_memory_layout_is_free(layout: str) -> None:
    models = np.random.default_rng(8).standard_normal((30, 4200), dtype=np.float32)
    models[:10] = models[0] + np.float32(1e-4) * models[:10]
    check(np.asfortranarray(models) if layout == "fortran" else models[::-2, ::3])


def test_same_input_same_output() -> None:
    models = np.random.default_rng(9).standard_normal((100, 5000), dtype=np.float32)
    models[:50] = models[0] + np.float32(1e-5) * models[:50]
    np.testing.assert_array_equal(
        PairwiseDistances(models).matrix, PairwiseDistances(models.copy()).matrix
    )


def test_input_may_be_read_only_and_matrix_is_a_copy() -> None:
    models = np.random.default_rng(10).standard_normal((5, 20))
    models.flags.writeable = False
    result = PairwiseDistances(models)
    result.matrix[:] = 0
    check_matrix(result.matrix, distance_matrix(models))


def test_one_model() -> None:
    result = PairwiseDistances(np.ones((1, 3), dtype=np.float32))
    assert result.matrix.tolist() == [[0.0]]
    assert result.below(1.0).tolist() == [[False]]


def test_thresholds_without_edges() -> None:
    result = PairwiseDistances(np.zeros((3, 4)))
    for threshold in (0.0, -1.0, -np.inf, np.nan):
        assert not result.below(threshold).any()
    assert result.below(np.inf).sum() == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_rejects_a_row_it_cannot_measure(value: float) -> None:
    models = np.zeros((4, 5))
    models[2, 3] = value
    with pytest.raises(ValueError, match="row 2"):
        PairwiseDistances(models)


@pytest.mark.parametrize(
    "models",
    [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2), int)],
)
def test_rejects_what_is_no_matrix_of_models(models: NDArray[np.floating]) -> None:
    with pytest.raises(ValueError, match="models must be"):
        PairwiseDistances(models)


def test_columns_of_a_wider_matrix_are_measured_where_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BLOCK_SIZE", 2**18)
    whole = np.random.default_rng(12).standard_normal((60, 50_100), dtype=np.float32)
    models = whole[:, :50_000]
    expected = PairwiseDistances(models.copy())
    tracemalloc.start()
    try:
        result = PairwiseDistances(models)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(result.squared, expected.squared)
    np.testing.assert_array_equal(result.matrix, np.sqrt(result.squared))
    assert peak < 0.5 * models.nbytes


def test_memory_stays_under_half_a_matrix_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_SIZE", 2**20)
    models = np.random.default_rng(11).standard_normal((200, 100_000), dtype=np.float32)
    models[:100] = models[0] + np.float32(1e-5) * models[:100]
    tracemalloc.start()
    try:
        PairwiseDistances(models).below(0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * models.nbytes
