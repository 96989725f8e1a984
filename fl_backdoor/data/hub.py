"""Data sets from the Hugging Face hub, fetched once by a child process and kept in files."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import UserError

# Seconds until "auto" gives up on the hub (under the promised 10, to leave time for the kill)
# and until "hub", which the user asked for by name, does.
AUTO_LIMIT: Final = 9.0
HUB_LIMIT: Final = 600.0

MNIST: Final = "ylecun/mnist"

# Run by a child process, because a hanging DNS look-up can only be ended with its process,
# `huggingface_hub` reads its environment once, at import, and `datasets` is slow to import.
# Arguments: target folder, the scripts' own.
_MNIST_CHILD: Final = """
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

# What every script begins with. Arguments: target folder, seconds until the download is ended,
# "cached", "absent" or "local", the data set.
_START: Final = """
import os, sys, threading
from pathlib import Path
timer = threading.Timer(float(sys.argv[2]), os._exit, [1])
timer.daemon = True
timer.start()
if sys.argv[3] == "absent":
    # One request fails at once where `load_dataset` would try for half a minute.
    from huggingface_hub import HfApi
    HfApi().dataset_info(sys.argv[4], timeout=5)
"""


class HubError(Exception):
    """A data set did not arrive; the text says why."""


class UnfitError(HubError):
    """It did, but is not what was asked for: the text names the key, and what is allowed."""


UNFIT: Final = 3
"""What a script exits with then, after a line that says why."""


def cache_home() -> Path:
    """Where programs of this user keep what they can get again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def hub_folder() -> Path:
    """Where the hub's copy is kept as IDX files, which workers read far faster than its own."""
    return cache_home() / "fl-backdoor" / "mnist"


def _in_datasets_cache(dataset: str) -> bool:
    """Tell whether `datasets` holds a finished copy, without its slow import."""
    home = os.environ.get("HF_HOME") or cache_home() / "huggingface"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets"))
    found = cache.glob(f"{dataset.replace('/', '___')}/*/*/*/dataset_info.json")
    return any(path.parent.suffix != ".incomplete" for path in found)


def fetch(
    dataset: str, folder: Path, script: str, arguments: Sequence[str] = (), limit: float = 0
) -> None:
    """Put what a script makes of a data set into a folder, unless it is there.

    A copy in the cache of `datasets` is used without asking the network, and so is a folder of
    one's own.

    Parameters
    ----------
    dataset : str
        Its name on the hub, or a folder.
    folder : Path
        Made by this.
    script : str
        Python: writes files into the folder ``sys.argv[1]``; is given ``arguments`` from
        ``sys.argv[5]`` on, and cancels ``timer`` once everything has arrived.
    arguments : sequence of str
        The script's.
    limit : float
        Seconds until the download is ended; 0: `HUB_LIMIT`.

    Raises
    ------
    HubError
        If it did not arrive in time.
    UnfitError
        If the script says so, see `UNFIT`.
    """
    limit, given = limit or HUB_LIMIT, (dataset, *arguments)
    try:
        if folder.is_dir():
            return
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
        copy = "local" if Path(dataset).is_dir() else "absent"
        if copy == "local" or _in_datasets_cache(dataset):
            limit, environment["HF_HUB_OFFLINE"] = HUB_LIMIT, "1"
            copy = "local" if copy == "local" else "cached"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fetched = Path(scratch, "fetched")
            fetched.mkdir()
            child = subprocess.run(
                # -P: a `datasets` folder of the user's is not to be taken for the package.
                [sys.executable, "-P", "-c", _START + script, fetched, str(limit), copy, *given],
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
        if child.returncode == UNFIT:
            raise UnfitError(reason)
    except (OSError, RuntimeError) as error:
        reason = str(error)
    raise HubError(reason)


def fetch_from_hub(*, in_haste: bool = False) -> None:
    """Put MNIST from the Hugging Face hub into `hub_folder`, unless it is there.

    Raises
    ------
    UserError
        If it did not arrive in time.
    """
    try:
        fetch(MNIST, hub_folder(), _MNIST_CHILD, limit=AUTO_LIMIT if in_haste else HUB_LIMIT)
    except HubError as error:
        raise UserError(
            f"dataset.source=hub: cannot get {MNIST} ({error}), allowed without it is idx, with "
            "dataset.root, or bundled"
        ) from error
