"""The agreement graph of a round: whose models are close, whom the rule kept, who attacks."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strategies.graph.agreement import neighbours

from .figures import new_axes, save_figure

if TYPE_CHECKING:
    import networkx as nx

MOST_DRAWN = 200
"""Clients in a drawing; more are but a blot, and have the GraphML file only."""


def agreement(
    distances: NDArray[np.float64],
    threshold: float,
    clients: Sequence[int],
    kept: Collection[int],
    attackers: Collection[int],
) -> "nx.Graph":
    """Build the agreement graph of a round (Cao et al. 2019, Algorithm 2).

    Parameters
    ----------
    distances : array of shape (n, n)
        Distances between the clients' models, NaN for clients that did not answer: those are not
        in the graph. Read from `PairwiseDistances` after its ``below(threshold)``, they decide
        the edges exactly.
    threshold : float
        gamma, in the same unit: closer clients are joined.
    clients : sequence of int
        The client of each row.
    kept, attackers : collection of int
        The clients whose models the rule kept (none, if it does not select), and the attackers.

    Returns
    -------
    networkx.Graph
        Nodes are client numbers, with ``kept`` and ``attacker``; edges have their ``distance``.
    """
    import networkx as nx

    graph = neighbours(distances, threshold)
    graph.remove_nodes_from(np.flatnonzero(np.isnan(np.diagonal(distances))).tolist())
    graph = nx.relabel_nodes(graph, dict(enumerate(clients)))
    for client, attributes in graph.nodes.items():
        attributes["kept"] = client in kept
        attributes["attacker"] = client in attackers
    return graph


def keep_agreement(
    places: Sequence[Path],
    distances: NDArray[np.float64],
    threshold: float,
    clients: Sequence[int],
    kept: Collection[int],
    attackers: Collection[int],
) -> None:
    """Write a round's agreement graph to some places, as ``.graphml`` and ``.png``.

    Parameters
    ----------
    places : sequence of Path
        Files, without what the names end in.
    distances, threshold, clients, kept, attackers
        As for `agreement`.
    """
    graph = agreement(distances, threshold, clients, kept, attackers)
    for place in places:
        write_graphml(graph, place.with_suffix(".graphml"))
        draw_agreement(graph, place.with_suffix(".png"))


def write_graphml(graph: "nx.Graph", path: Path) -> None:
    """Write a graph as GraphML, whole or not at all."""
    import networkx as nx

    temporary = path.with_name(path.name + ".tmp")
    nx.write_graphml(graph, temporary)
    temporary.replace(path)


def draw_agreement(graph: "nx.Graph", path: Path) -> bool:
    """Draw an agreement graph as PNG: kept clients on an inner circle, the others around them.

    Kept clients are filled and joined by solid lines, the others hollow, with dashed lines;
    attackers are square. So it can be read without its colors.

    Parameters
    ----------
    graph : networkx.Graph
        Of `agreement`.
    path : Path
        PNG file to write.

    Returns
    -------
    bool
        False if there are more than `MOST_DRAWN` clients: then nothing is drawn.
    """
    if len(graph) > MOST_DRAWN:
        return False
    import networkx as nx

    kept, others = ([c for c in graph if graph.nodes[c]["kept"] is k] for k in (True, False))
    # Lengths are inches. Symbols shrink with the root of their number, so the circles grow with it.
    symbol = 0.3 * min(1, math.sqrt(40 / max(1, len(graph))))
    inner = _radius(len(kept), symbol, 0.7 if len(kept) > 1 else 0.0)
    outer = _radius(len(others), symbol, inner + 4 * symbol)
    half = max(inner, outer if others else 0.0) + symbol
    figure, axes = new_axes(max(5.4, 2 * half + 0.2), 2 * half + 1.5)
    places = {**_circle(kept, inner), **_circle(others, outer)}
    inside = graph.subgraph(kept).edges
    lines = {
        "joined, not both kept" if kept else "joined": (
            [edge for edge in graph.edges if edge not in inside],
            "dashed",
            "dimgray",
        ),
        "joined, both kept": (list(inside), "solid", "tab:blue"),
    }
    handles: list[Any] = []
    for label, (edges, style, color) in lines.items():
        if edges:
            strength = min(0.6, max(0.05, 150 / len(edges)))
            nx.draw_networkx_edges(graph, places, edges, 0.8, color, style, alpha=strength, ax=axes)
            handles += axes.plot([], [], color=color, linestyle=style, label=label)
    for clients, state in ((kept, "kept"), (others, "dropped" if kept else "")):
        for attacks, shape, color in ((False, "o", "tab:blue"), (True, "s", "tab:red")):
            some = [c for c in clients if graph.nodes[c]["attacker"] is attacks]
            if some:
                fill, ink = (color, "white") if state == "kept" else ("white", color)
                nx.draw_networkx_nodes(
                    graph, places, some, (72 * symbol) ** 2, fill, shape, edgecolors=color, ax=axes
                )
                labels = {client: client for client in some}
                nx.draw_networkx_labels(
                    graph, places, labels, 32 * symbol, ink, ax=axes, clip_on=False
                )
                name = f"{state} {'attacker' if attacks else 'client'} ({len(some)})".strip()
                handles += axes.plot(
                    [], [], shape, markerfacecolor=fill, markeredgecolor=color, label=name
                )
    complete = 2 * len(inside) == len(kept) * (len(kept) - 1)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    figure.suptitle(
        f"Agreement graph: joined if closer than {graph.graph['threshold']:g}"
        + (f"\ninner circle: the {len(kept)} kept" + ", a clique" * complete if kept else "")
    )
    axes.set_axis_off()
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)
    return True


def _radius(clients: int, symbol: float, least: float) -> float:
    """Return the radius of a circle with room for so many symbols."""
    return max(least, 1.2 * symbol * clients / math.tau)


def _circle(clients: list[int], radius: float) -> dict[int, tuple[float, float]]:
    """Place clients on a circle, the first on top, clockwise."""
    angles = [math.tau * place / len(clients) for place in range(len(clients))]
    return {
        client: (radius * math.sin(angle), radius * math.cos(angle))
        for client, angle in zip(clients, angles, strict=True)
    }
