"""What a run was made with: versions and memory."""

import gc
import platform
import resource
import sys
from importlib.metadata import version

from .. import __version__


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes; workers are not counted."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def forget() -> None:
    """Free what earlier runs of this process left, before the next.

    Their models hang in cycles, Flower's records among them, to which Python itself gets late.
    What there is now, modules above all, is not looked at again: it is most of a collection's time.
    """
    gc.collect()
    gc.freeze()


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "python": platform.python_version(),
        "fl-backdoor": __version__,
        **{name: version(name) for name in ("flwr", "torch", "numpy")},
    }
