"""Report runs: ``python -m fl_backdoor.report RUNS... --out DIR``.

Any set of run and sweep directories becomes one page, ``DIR/index.html``, that opens offline, with
tidy tables and figures beside it. What cannot be read is named and skipped.
"""

from pathlib import Path

from ..arguments import Parser
from ..config import ending
from ..errors import UserError
from ..screen import Screen
from .report import write_report


def main() -> None:
    """Report from the command line; bad input is one line on stderr and exit status 2."""
    parser = Parser("report", __doc__, "outputs multirun --out report")
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="directories of runs or sweeps")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    arguments = parser.parse_args()
    console = Screen()
    with ending(console.on_broken_pipe):
        if "" in (*arguments.runs, arguments.out):  # as a path it would be the working directory
            raise UserError("'': not the name of a directory")
        write_report(
            [Path(run) for run in arguments.runs],
            Path(arguments.out),
            lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        )


if __name__ == "__main__":
    main()
