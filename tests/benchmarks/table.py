"""All benchmarks, one after the other, and the table that docs/speed.md shows.

    python tests/benchmarks/table.py              the table of the answers that are there, into docs/speed.md
    python tests/benchmarks/table.py --run [..]   all benchmarks first, with what else is said here: --quick, --threads 1, ..

A quick run prints the table, and leaves the document as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camsweep.tests.benchmarks.race import ANSWERS, ROOT, Row

ALL = ("endtoend", "cams", "methods", "frameworks", "relevance", "paths", "scaling", "startup", "stages", "loading", "pictures",
       "metrics", "durability")  # fmt: skip
DOCUMENT = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"


def number(row: Row) -> str:
    if row.value is None:
        return ""
    unit = row.unit if row.unit in ("", "x") else f" {row.unit}"
    spread = "" if row.low is None else f" ({row.low:.3g} .. {row.high:.3g})"
    return f"{row.value:.3g}{unit}{spread}"


def verdict(row: Row) -> str:
    return {None: row.goal, True: f"{row.goal}", False: f"**{row.goal}, missed**"}[row.met]


def section(answer: dict[str, Any]) -> list[str]:
    """A heading, and a table of four columns."""
    machine = answer["machine"]
    clock = "processor time" if answer["clock"] == "cpu" else "wall clock"
    lines = [f"### {answer['title'].rstrip('.')}", ""]
    lines += [
        f"Threads: {machine['threads']}, turns: {answer['turns']}, {clock}{', quick' if answer['quick'] else ''}, load: {machine['load']}.",
        "",
    ]
    lines += ["| case | what | median (smallest .. largest) | goal | remark |", "|---|---|---|---|---|"]
    case = ""
    for row in (Row(**each) for each in answer["rows"]):
        remark = "; ".join(filter(None, [row.note, "why: see above" if row.met is False else ""]))
        cells = ["" if row.case == case else row.case, row.what, number(row), verdict(row), remark]
        case = row.case
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return [*lines, ""]


def table(answers: Sequence[dict[str, Any]]) -> str:
    """Of the answers, in their order, under the machine that they come from."""
    if not answers:
        return ""
    machine = answers[0]["machine"]
    told = ", ".join(
        f"{key} {value}" for key, value in machine.items() if key not in ("processor", "cores", "threads", "load")
    )
    lines = [f"Machine: {machine['processor']}, cores: {machine['cores']}; {told}.", ""]
    for answer in answers:
        lines += section(answer)
    return "\n".join(lines).strip()


def placed(document: str, made: str) -> str:
    """The document with ``made`` between its marks, and nothing else changed."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks its marks, {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def answers(folder: Path = ANSWERS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for name in ALL if (path := folder / f"{name}.json").exists()]


def main(arguments: Sequence[str]) -> int:
    failed = []
    if "--run" in arguments:
        for name in ALL:
            command = [
                sys.executable,
                "-m",
                f"camsweep.tests.benchmarks.{name}",
                *(a for a in arguments if a != "--run"),
            ]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
    made = table(answers())
    if "--quick" in arguments:
        print(made)
    else:
        DOCUMENT.write_text(placed(DOCUMENT.read_text(), made))
        print(f"written into {DOCUMENT.relative_to(ROOT)}")
    print(*(f"{name} failed" for name in failed), sep="\n", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
