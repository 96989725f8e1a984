"""Ctrl-C ends a command with one line and exit status 130, from its first import on.

Imports, and OmegaConf, may swallow a KeyboardInterrupt or make another error of it. So there is
none but in a command's work, which has something to put in order and may say how to go on, and
there none within those.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Interrupt:
    """Handles the signal.

    Attributes
    ----------
    raises : bool
        Whether the command is at work.
    """

    raises = False

    def __call__(self, _: int, frame: FrameType | None) -> None:
        """End this process, or raise KeyboardInterrupt."""
        if self.raises and not _fragile(frame):
            raise KeyboardInterrupt
        with suppress(OSError):
            os.write(2, b"interrupted\n")  # print must not be called in a handler
        os._exit(130)


def handle_interrupts() -> None:
    """Handle those of this process, if Python has just begun to import a command of the suite."""
    named = sys.argv[:1] and sys.argv[0].rpartition(os.sep)[2] == "fl-backdoor"
    # Where a shell has put the command into its background, interrupts are ignored.
    if (named or run_as_module()) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupt())


def run_as_module() -> bool:
    """Tell whether Python is looking for a module of the suite to run, as ``python -m`` does."""
    looking = sys.argv[:1] == ["-m"]  # stands there meanwhile
    return looking and any(part.startswith("fl_backdoor.") for part in sys.orig_argv)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt of a command raise KeyboardInterrupt meanwhile."""
    Interrupt.raises = True
    try:
        yield
    finally:
        Interrupt.raises = False


def _fragile(frame: FrameType | None) -> bool:
    while frame is not None:
        file = frame.f_code.co_filename
        if file == "<frozen importlib._bootstrap>" or f"{os.sep}omegaconf{os.sep}" in file:
            return True
        frame = frame.f_back
    return False
