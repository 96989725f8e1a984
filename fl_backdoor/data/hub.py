"""MNIST from the Hugging Face hub, kept as IDX files, which are read far faster than its own."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import UserError

# Seconds until "auto" gives up on the hub (under the promised 10, to leave time for the kill)
# and until "hub", which the user asked for by name, does.
AUTO_LIMIT: Final = 9.0
HUB_LIMIT: Final = 600.0

# Run by a child process, because a hanging DNS look-up can only be ended with its process,
# `huggingface_hub` reads its environment once, at import, and `datasets` is slow to import.
# Arguments: target folder, seconds until the download is ended, "cached" or "absent".
_HUB_CHILD: Final = """
import os, sys, threading
from pathlib import Path
timer = threading.Timer(float(sys.argv[2]), os._exit, [1])
timer.daemon = True
timer.start()
if sys.argv[3] == "absent":
    # One request fails at once where `load_dataset` would try for half a minute.
    from huggingface_hub import HfApi
    HfApi().dataset_info("ylecun/mnist", timeout=5)
import numpy as np
from flwr_datasets import FederatedDataset
dataset = FederatedDataset(dataset="ylecun/mnist", partitioners={}, shuffle=False)
splits = {"train": dataset.load_split("train"), "t10k": dataset.load_split("test")}
timer.cancel()
for name, split in splits.items():
    columns = split[:]
    images = np.stack([np.asarray(image, dtype=np.uint8) for image in columns["image"]])
    labels = np.asarray(columns["label"], dtype=np.uint8)
    for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
        header = np.array([magic, *array.shape], dtype=">i4").tobytes()
        Path(sys.argv[1], f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
"""


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def hub_folder() -> Path:
    """Where the hub's copy is kept as IDX files, which workers read far faster than its own."""
    return _cache_home() / "fl-backdoor" / "mnist"


def _in_datasets_cache() -> bool:
    """Tell whether `datasets` holds a finished copy, without its slow import."""
    home = os.environ.get("HF_HOME") or _cache_home() / "huggingface"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets"))
    found = cache.glob("ylecun___mnist/*/*/*/dataset_info.json")
    return any(path.parent.suffix != ".incomplete" for path in found)


def fetch_from_hub(*, in_haste: bool = False) -> None:
    """Put MNIST from the Hugging Face hub into `hub_folder`, unless it is there.

    A copy in the cache of `datasets` is used without asking the network.

    Raises
    ------
    UserError
        If it did not arrive in time.
    """
    limit = AUTO_LIMIT if in_haste else HUB_LIMIT
    try:
        folder = hub_folder()
        if folder.is_dir():
            return
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
        copy = "absent"
        if _in_datasets_cache():
            copy, limit = "cached", HUB_LIMIT
            environment["HF_HUB_OFFLINE"] = "1"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fetched = Path(scratch, "mnist")
            fetched.mkdir()
            child = subprocess.run(
                # -P: a `datasets` folder of the user's is not to be taken for the package.
                [sys.executable, "-P", "-c", _HUB_CHILD, fetched, str(limit), copy],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if child.returncode == 0:
                # It fails if another process was first, whose copy is as good.
                with suppress(OSError):
                    fetched.rename(folder)
                return
        # A child ended by its own timer says nothing.
        silence = f"no answer within {limit:g} seconds"
        reason = [silence, *child.stderr.strip().splitlines()][-1]
    except (OSError, RuntimeError) as error:
        reason = str(error)
    raise UserError(
        f"dataset.source=hub: cannot get ylecun/mnist ({reason}), allowed without it is idx, with "
        "dataset.root, or bundled"
    )
