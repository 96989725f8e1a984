"""The graph of Algorithm 2 of Cao et al. 2019, as a networkx graph to look at and to export.

networkx is imported when a graph is built, since it is slow to import.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .distances import PairwiseDistances

if TYPE_CHECKING:
    import networkx as nx


def agreement_graph(models: NDArray[np.floating], threshold: float) -> "nx.Graph":
    """Join the clients whose models are close (Cao et al. 2019, Algorithm 2, lines 6 to 14).

    Parameters
    ----------
    models : array of float32 or float64, shape (n, d)
        M_1 ... M_n, one row a client; finite.
    threshold : float
        gamma: two clients are joined if Dis(M_i, M_j), their Euclidean distance (Eq. 6) in
        float64, is smaller. In the unit of the parameters.

    Returns
    -------
    networkx.Graph
        Nodes 0 ... n - 1, the rows; each edge has its ``distance``. The graph itself has the
        ``threshold``.

    Raises
    ------
    ValueError
        As `PairwiseDistances` does, if ``models`` is no matrix of finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> models = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0], [90.0, 90.0]])
    >>> graph = agreement_graph(models, threshold=5.0)
    >>> sorted(graph.edges(data="distance"))
    [(0, 2, 3.0), (1, 2, 4.0)]
    """
    distances = PairwiseDistances(models)
    distances.below(threshold)  # from here on those near the threshold are exact
    return neighbours(distances.matrix, threshold)


def neighbours(distances: NDArray[np.float64], threshold: float) -> "nx.Graph":
    """Join the clients whose distance is below a threshold.

    Parameters
    ----------
    distances : array of shape (n, n)
        ``PairwiseDistances.matrix``, read after ``below(threshold)`` if the edges are to be those
        of the float64 differences. NaN joins nobody.
    threshold : float
        In the same unit.

    Returns
    -------
    networkx.Graph
        As of `agreement_graph`.
    """
    import networkx as nx

    graph = nx.Graph(threshold=float(threshold))
    graph.add_nodes_from(range(len(distances)))
    rows, columns = np.nonzero(np.triu(distances < threshold, k=1))
    graph.add_weighted_edges_from(
        zip(rows.tolist(), columns.tolist(), distances[rows, columns].tolist(), strict=True),
        weight="distance",
    )
    return graph
