"""Our wrappers around each of Flower's own strategies, with a hostile client among eight."""

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
)

from fl_backdoor.federation.engines import LocalGrid
from strategies import GaussianNoise, NormClipping, Screened

CLIENTS = 8
HOSTILE = 5
FLOWERS = {
    "Krum": lambda: Krum(num_malicious_nodes=1),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    "Bulyan": lambda: Bulyan(num_malicious_nodes=1),  # needs 7 replies, as many as are honest
    "FedMedian": FedMedian,
    "FedTrimmedAvg": lambda: FedTrimmedAvg(beta=0.2),
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": lambda: FedAdam(eta=0.01, tau=0.1),
}
WRAPPERS = {
    "Screened": Screened,
    "NormClipping": lambda strategy: NormClipping(strategy, max_norm="median"),
    "GaussianNoise": lambda strategy: GaussianNoise(strategy, stddev=1e-4, seed=3),
}
INITIAL = {
    "conv.weight": np.linspace(-0.3, 0.3, 18, dtype=np.float32).reshape(2, 1, 3, 3),
    "bn.weight": np.ones(2, np.float32),
    "bn.running_mean": np.zeros(2, np.float32),
    "bn.num_batches_tracked": np.array(40),
    "fc.weight": np.linspace(0.2, -0.2, 8, dtype=np.float32).reshape(4, 2),
    "fc.bias": np.zeros(4, np.float32),
}


def vandalise(model, kind):
    """Return what the hostile client sends instead of its model."""
    return {
        "NaN": lambda: model | {"fc.bias": np.full(4, np.nan, np.float32)},
        "shape": lambda: model | {"fc.bias": np.zeros(5, np.float32)},
        "dtype": lambda: model | {"bn.num_batches_tracked": np.array(40.0)},
        "missing": lambda: {name: array for name, array in model.items() if name != "fc.bias"},
    }[kind]()


pytestmark = pytest.mark.usefixtures("no_collection")


@pytest.mark.parametrize("hostile", ["NaN", "shape", "dtype", "missing"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", FLOWERS)
def test_two_rounds_go_well_despite_a_hostile_client(name, wrapper, hostile, reply, record):
    strategy = WRAPPERS[wrapper](FLOWERS[name]())
    rng = np.random.default_rng(0)
    sent = record(INITIAL)
    for server_round in (1, 2):
        asked = strategy.configure_train(
            server_round, sent, ConfigRecord(), LocalGrid(None, CLIENTS)
        )
        assert len(list(asked)) == CLIENTS
        replies, honest = [], []
        for node in range(1, CLIENTS + 1):
            model = {
                key: np.asarray(
                    array.numpy() + 10
                    if array.numpy().dtype.kind == "i"
                    else array.numpy() + rng.normal(0.05, 0.02, array.shape).astype(np.float32)
                )
                for key, array in sent.items()
            }
            if node == HOSTILE:
                model = vandalise(model, hostile)
            else:
                honest.append(model)
            metrics = {"num-examples": 50 + node, "loss": 0.5}
            replies.append(reply(model, node=node, metrics=metrics))
        arrays, metrics = strategy.aggregate_train(server_round, replies)

        assert metrics["invalid"] == 1
        assert strategy.rounds[server_round]["invalid_nodes"] == [HOSTILE]
        assert metrics["loss"] == pytest.approx(0.5)
        assert list(arrays) == list(INITIAL)
        for key, start in INITIAL.items():
            found = arrays[key].numpy()
            assert (found.dtype, found.shape) == (start.dtype, start.shape)
            assert np.isfinite(found).all()
            if name == "FedAdam":  # takes counters for parameters, whose steps round to nothing
                assert start.dtype.kind == "i" or not np.array_equal(found, sent[key].numpy())
                continue
            assert not np.array_equal(found, sent[key].numpy())
            # Between the honest models, or, where these are clipped, on the way to them.
            models = [model[key] for model in honest]
            models += [sent[key].numpy()] if wrapper == "NormClipping" else []
            margin = 1e-3 if wrapper == "GaussianNoise" else 1e-6
            assert (found >= np.min(models, axis=0) - margin).all()
            assert (found <= np.max(models, axis=0) + margin).all()
        sent = arrays
