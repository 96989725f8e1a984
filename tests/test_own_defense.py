"""The defense of one's own that docs/flower.md shows."""

import re
from pathlib import Path
from typing import Any

import numpy as np

PAGE = (Path(__file__).parents[1] / "docs" / "flower.md").read_text()


def test_the_defense_in_the_readme_leaves_out_who_moved_most(reply, record) -> None:
    found = re.search(r"<!-- test: own defense -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    strategy = names["Nearest"]()
    strategy._sent = record({"w": np.zeros(2, np.float32)})
    moved = [reply({"w": np.full(2, far, np.float32)}, node=node) for node, far in ((1, 1), (2, 9))]
    arrays, metrics = strategy.aggregate_train(1, moved)
    np.testing.assert_array_equal(arrays["w"].numpy(), [1, 1])
    assert metrics["dropped"] == 1
    assert strategy.rounds[1]["dropped_nodes"] == [2]
