"""The command line in processes of its own, forked from one in which no framework was imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = """
import json, os, sys
import camsweep.cli.app, camsweep.core.sharded
camsweep.cli.app.application()  # and with it every command

HEAVY = ("torch", "tensorflow", "keras", "onnx", "onnxruntime")
assert not any(name in sys.modules for name in HEAVY), "the command line alone imports a framework"
answers = os.dup(1)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(asked["cwd"])
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["camsweep", *asked["words"]]
        try:
            camsweep.cli.app.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush(), sys.stderr.flush()
        os.write(answers, json.dumps([name for name in HEAVY if name in sys.modules]).encode() + b"\\n")
        os._exit(code)
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    os.write(answers, json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": seconds}).encode() + b"\\n")
"""


@dataclass(frozen=True)
class Ended:
    """What one call came to."""

    code: int
    out: str
    err: str
    frameworks: list[str]
    """Those that it imported."""
    seconds: float
    """Of the processor, behind the imports that every command has."""


class Apart:
    """``apart("explain", "job.toml", cwd=folder)``: some ten milliseconds each."""

    def __init__(self, scratch: Path) -> None:
        self._said = {"out": scratch / "out", "err": scratch / "err"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *words: object, cwd: Path) -> Ended:
        asked = {"words": list(map(str, words)), "cwd": str(cwd), **{k: str(v) for k, v in self._said.items()}}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        frameworks: list[str] = self._answer()
        ended: dict[str, Any] = self._answer()
        out, err = (path.read_text("utf-8", "surrogateescape") for path in self._said.values())
        return Ended(ended["code"], out, err, frameworks, ended["seconds"])

    def _answer(self) -> Any:
        line = self._server.stdout.readline()
        assert line, "the process from which others are forked has ended"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()
