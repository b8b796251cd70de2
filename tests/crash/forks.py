"""Runs forked from a process that has loaded what a run needs: the same command, without the seconds of starting it.

What happens while Python and the framework are loaded is for `Bench` itself.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import subprocess
import sys
from functools import cache
from time import monotonic, sleep
from typing import Any

from .bench import Bench

SERVER = """
import json, os, sys
import camsweep.backends.torch, camsweep.core.sharded, typer  # all but camsweep.cli, where the clock begins to run


from camsweep.tests.crash.bench import heed

answers = os.dup(1)
os.write(answers, b"ready\\n")
for line in sys.stdin:
    asked = json.loads(line)
    if os.fork():
        continue
    if run := os.fork():  # this one waits for it
        os.write(answers, b"%d\\n" % run)
        code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
        with open(asked["code"] + ".new", "w") as file:
            file.write(str(code))
        os.rename(asked["code"] + ".new", asked["code"])
        os._exit(0)
    code = 1
    try:
        heed()
        os.chdir(asked["cwd"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(asked["environment"])
        sys.argv = asked["words"]
        from camsweep.cli.entry import main
        main()
    except SystemExit as ended:
        code = ended.code or 0
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(code)
"""


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    def close() -> None:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()

    atexit.register(close)
    assert server.stdout.readline() == "ready\n"
    return server


class Run:
    """What `subprocess.Popen` has for it."""

    def __init__(self, bench: Bench, number: int, words: list[str]) -> None:
        self._said = {name: bench.folder / f".{name}-{number}" for name in ("out", "err", "code")}
        self.returncode: int | None = None
        server = _server()
        asked = {
            "cwd": str(bench.folder),
            "words": words,
            "environment": {"ROWS_LOG": str(bench.log)},
            **{name: str(path) for name, path in self._said.items()},
        }
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        if self.returncode is None and self._said["code"].exists():
            self.returncode = int(self._said["code"].read_text())
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        until = monotonic() + timeout
        while (code := self.poll()) is None:
            if monotonic() > until:
                raise subprocess.TimeoutExpired("a forked run", timeout)
            sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        self.wait(timeout)
        return self._said["out"].read_text(), self._said["err"].read_text()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


class Forked(Bench):
    """A bench whose command begins in a fork."""

    _numbers = itertools.count()

    def __init__(self, *where: Any, **what: Any) -> None:
        super().__init__(*where, **what)
        _server()  # what takes its time before the first run is none of the run's

    def start(self, *more: str, **options: Any) -> Any:
        if options:  # of the new process
            return super().start(*more, **options)
        return Run(self, next(self._numbers), ["camsweep", "explain", "job.toml", "--quiet", *more])
