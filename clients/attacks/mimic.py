"""Mimic [Karimireddy et al., 2022]."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..attacker import Colluding
from ..seat import View


@dataclass(kw_only=True)
class Mimic(Colluding):
    """All attackers copy one client, so that it counts for more than the others.

    Karimireddy, He, Jaggi 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing", the mimic attack: the client copied is the one that lies farthest along z,
    the direction in which the clients' updates differ most over the rounds. What is sent is an
    honest update: by itself nothing tells it apart. Untargeted. The authors' code steps towards z
    in the first rounds and then stays with one client; here z is the leading eigenvector of the
    inner products of the centred updates, summed over all rounds so far, the client is chosen anew
    in each, and the attackers themselves are among those to choose from.

    *Knows* updates as `knowledge` says. *Cost*: the inner products of the m updates known,
    O(m^2 d). *Known weaknesses*: it acts where the clients' data differ, of like data one update is
    as good as another; all send the same, which rules that look for likeness see.

    Attributes
    ----------
    knowledge : {"all", "attackers"}
        With "attackers" they copy one of themselves.
    """

    least: ClassVar[int] = 2

    knowledge: str = "all"

    def collude(self, view: View) -> NDArray[np.float64]:
        """Send the update of the same client from all."""
        centred = view.known - view.known.mean(axis=0)
        products = centred @ centred.T
        clients, before = np.array(view.clients[: len(products)]), view.memory
        past = before.get("products", products)
        if np.array_equal(clients, before.get("clients", ())) and past.shape == products.shape:
            products = products + past  # else others were there
        view.memory.update(clients=clients, products=products)
        if view.alike:
            return view.refuse(self, "the updates known are equal, whomever it copies")
        along = np.linalg.eigh(products).eigenvectors[:, -1]
        return np.tile(view.known[np.abs(along).argmax()], (len(view.own), 1))
