"""Where the process begins: signals are heeded first, then the rest is loaded.

Nothing is imported here that Python has not loaded for itself, or nearly so; a signal that comes before this has the
effect that the system gives it.
"""

from __future__ import annotations

import os
import signal
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SGE and LSF give notice of a time limit by SIGUSR2."""
BEGAN = monotonic()
"""When the process began, all but the interpreter's own start."""


def main() -> None:
    """Run the command line. Until a command heeds signals in its own way, each ends it with 75: nothing has begun."""
    for number in heeded():
        signal.signal(number, _leave)
    from .app import main as run

    try:
        run()
    except SystemExit as ending:
        _end(ending.code)
        raise


def _end(code: object) -> None:
    """End the process here, where nothing is left to be done: to take torch apart takes Python a third of a second."""
    import atexit
    import sys
    import threading

    if threading.active_count() > 1 or not isinstance(code, int):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):  # as Python would say
                return
    os._exit(code)


def begin() -> None:
    """A command begins: from now on a Ctrl-C is an exception again, so that it can clear up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: stopped; the same command goes on\n")
    os._exit(75)


def heeded() -> list[signal.Signals]:
    """Under nohup, or in the background of a script, a signal is ignored on purpose."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
