"""The agreement graph: its edges, its files, its drawing."""

import doctest
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fl_backdoor.measure import graph as module
from fl_backdoor.measure.graph import agreement, draw_agreement, write_graphml
from strategies import agreement_graph
from strategies.graph import agreement as public
from strategies.graph.distances import PairwiseDistances, distance

quick = settings(max_examples=50)


@st.composite
def federations(draw):
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    models = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal((n, d))
    return (models + draw(st.sampled_from([0, 1e4]))).astype(
        draw(st.sampled_from([np.float32, np.float64]))
    )


@quick
@given(models=federations(), data=st.data())
def test_edges_are_the_pairs_closer_than_the_threshold(models, data):
    n = len(models)
    pair = data.draw(st.tuples(*[st.integers(0, n - 1)] * 2))
    threshold = distance(*models[list(pair)]) or 1.0  # some pair is exactly as far apart
    graph = agreement_graph(models, threshold)
    assert list(graph) == list(range(n))
    assert graph.graph == {"threshold": threshold}
    expected = {
        (i, j): apart
        for i in range(n)
        for j in range(i + 1, n)
        if (apart := distance(models[i], models[j])) < threshold
    }
    found = {tuple(sorted(edge)): apart for *edge, apart in graph.edges(data="distance")}
    assert found.keys() == expected.keys()
    for edge, apart in found.items():
        assert type(apart) is float
        assert apart == pytest.approx(expected[edge], rel=1e-7)


def test_the_documented_example():
    assert doctest.testmod(public) == (0, 4)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        agreement_graph(np.array([[0.0], [np.nan]]), 1.0)


def test_slow_packages_wait_until_something_needs_them():
    code = "import sys, strategies, fl_backdoor.measure.graph; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"networkx", "scipy.optimize", "scipy.sparse", "matplotlib", "seaborn"}
    assert not slow & set(done.stdout.split())


# --- Of a round ------------------------------------------------------------------------------


def example(n, attackers=3, silent=()):
    """Return a round's graph: attackers, honest clients that agree, every tenth apart."""
    rng = np.random.default_rng(n)
    models = 0.02 * rng.standard_normal((n, 300))
    models[:attackers] += 0.03 * rng.standard_normal(300)
    models[9::10] *= 2
    distances = PairwiseDistances(models)
    distances.below(0.55)
    matrix = distances.matrix
    matrix[list(silent)] = matrix[:, list(silent)] = np.nan
    kept = [c for c in range(attackers, n) if c % 10 != 9 and c not in silent]
    return agreement(matrix, 0.55, range(n), kept, range(attackers)), kept


def test_nodes_say_who_was_kept_and_who_attacks():
    graph, kept = example(12, silent=[5])
    assert list(graph) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [c for c, is_kept in graph.nodes(data="kept") if is_kept] == kept
    assert [c for c, attacks in graph.nodes(data="attacker") if attacks] == [0, 1, 2]
    assert graph.subgraph(kept).number_of_edges() == len(kept) * (len(kept) - 1) / 2
    assert not graph[9]


def test_graphml_holds_all_of_it(tmp_path):
    graph, _ = example(12, silent=[5])
    path = tmp_path / "agreement.graphml"
    write_graphml(graph, path)
    read = nx.read_graphml(path, node_type=int)
    assert read.graph["threshold"] == 0.55
    assert dict(read.nodes.items()) == dict(graph.nodes.items())
    assert nx.utils.edges_equal(nx.to_edgelist(read), nx.to_edgelist(graph), directed=False)
    assert [file.name for file in tmp_path.iterdir()] == ["agreement.graphml"]


@pytest.mark.parametrize(
    ("n", "attackers", "silent"),
    [(10, 3, []), (1, 0, []), (2, 1, [0]), (3, 3, []), (30, 8, [0, 9, 12])],
)
def test_drawing_is_the_same_each_time(n, attackers, silent, tmp_path):
    graph, _ = example(n, attackers, silent)
    for name in ("one.png", "two.png"):
        assert draw_agreement(graph, tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.png", "two.png"]
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert min(image.size) > 300


def drawn(graph, path, monkeypatch):
    """Draw, and return the figure."""
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, _: figures.append(figure))
    assert draw_agreement(graph, path)
    return figures[0]


def test_the_drawing_can_be_read_without_its_colors(tmp_path, monkeypatch):
    graph, kept = example(40, silent=[7])
    figure = drawn(graph, tmp_path / "graph.png", monkeypatch)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {
        "joined, both kept",
        "joined, not both kept",
        "kept client (32)",
        "dropped client (4)",
        "dropped attacker (3)",
    }
    assert figure.get_suptitle() == (
        "Agreement graph: joined if closer than 0.55\ninner circle: the 32 kept, a clique"
    )
    (axes,) = figure.axes
    labels = {int(text.get_text()): text.get_position() for text in axes.texts}
    assert labels.keys() == set(graph)
    radii = {client: np.hypot(*place) for client, place in labels.items()}
    inside = max(radii[client] for client in kept)
    assert all(radius > inside + 0.5 for client, radius in radii.items() if client not in kept)
    # No two symbols overlap.
    places = np.array(list(labels.values()))
    apart = PairwiseDistances(places).matrix[np.triu_indices(len(places), 1)]
    assert apart.min() > 0.3


def test_a_rule_that_selects_nobody_has_one_circle(tmp_path, monkeypatch):
    graph, _ = example(10)
    for client in graph:
        graph.nodes[client]["kept"] = False
    figure = drawn(graph, tmp_path / "graph.png", monkeypatch)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"joined", "client (7)", "attacker (3)"}
    assert "inner" not in figure.get_suptitle()


def test_kept_clients_that_do_not_all_agree_are_no_clique(tmp_path, monkeypatch):
    graph, kept = example(10)
    graph.remove_edge(*kept[:2])
    figure = drawn(graph, tmp_path / "graph.png", monkeypatch)
    assert figure.get_suptitle().endswith(f"the {len(kept)} kept")


def test_more_than_two_hundred_clients_are_not_drawn(tmp_path):
    graph, _ = example(201)
    assert not draw_agreement(graph, tmp_path / "graph.png")
    assert not list(tmp_path.iterdir())
    graph, _ = example(200)
    assert draw_agreement(graph, tmp_path / "graph.png")
