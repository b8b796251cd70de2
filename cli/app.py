"""The ``camsweep`` command: its subcommands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from .console import one_line
from .entry import begin

if TYPE_CHECKING:
    from ..core.errors import NotImportedError

COMMANDS = {
    "explain": "Explain every sample of a dataset; goes on where it stopped.",
    "plan": "Write the plan of a run that is split into shards.",
    "merge": "Merge what all shards have done.",
    "status": "Show how far a run is, shard by shard.",
    "submit": "Print, or submit, a script for an array job and its merge.",
    "demo": "Explain and draw the sample data.",
    "inspect": "Show a model's layers and where CAMs can be taken.",
    "methods": "List the methods and metrics with their formulas.",
    "render": "Draw maps as PNG and GIF.",
    "report": "Write one HTML page: gallery, failures, means of classes.",
    "evaluate": "Measure the maps, beside a control: faithfulness, localisation, ..",
    "compare": "Hold two results files side by side.",
    "export": "Write results as NPZ, CSV, NIfTI, ViRelAy or Zarr.",
    "info": "Show what a results file holds.",
    "verify": "Check that every bit of a results file is what was written.",
}
"""Each is a module here with a function of its name; what the overview says of it."""


def application(*only: str) -> typer.Typer:
    """The command line. Where ``only`` some commands matter, the others are no more than their names: reading the
    options of all takes longer than most of them run.
    """
    app = typer.Typer(
        name="camsweep",
        help="Explain a whole dataset: a trained checkpoint in, attribution maps in one HDF5 file out.",
        invoke_without_command=True,
        callback=root,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 done; 2 bad request; 3 done, but samples failed; 4 compared, but they differ by more "
        "than --tolerance; 73 output cannot be created; 74 reading or writing failed; 75 stopped, the same command "
        "goes on; 130 second Ctrl-C.",
    )
    for name, does in COMMANDS.items():
        named = name in only or not only
        function = getattr(import_module(f".{name}", __package__), name) if named else _elsewhere
        app.command(name, short_help=does)(function)
    return app


def _elsewhere() -> None:
    """In the place of a command that was not asked for."""


@dataclass
class Settings:
    """What is said before the command's name."""

    debug: bool = field(default_factory=lambda: bool(os.environ.get("CAMSWEEP_TRACEBACK")))


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"camsweep {version('camsweep')}")
        raise typer.Exit


def root(
    context: typer.Context,
    _show: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show where in the code an error comes from."),
) -> None:
    """Explain a whole dataset: a trained checkpoint in, attribution maps in one HDF5 file out."""
    begin()
    if debug:
        context.obj.debug = True
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line. A fault ends in one line on stderr and its exit code; --debug (or CAMSWEEP_TRACEBACK=1)
    shows where it comes from.
    """
    from ..core.errors import CamsweepError, NotImportedError, first_line

    for stream in (sys.stdout, sys.stderr):  # a locale that has no letter for a name is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    settings = Settings()
    try:
        # Options before a command's name take no value, so the first word is the name.
        asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        code = application(asked)(standalone_mode=False, obj=settings)
    except NotImportedError as error:
        _natively(error)
        _fail(str(error), error.exit_code, settings)
    except CamsweepError as error:
        _fail(str(error), error.exit_code, settings)
    except BrokenPipeError:
        # Whoever read our output has gone (| head): say nothing more, not even when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            f"{where}{(error.strerror or str(error)).lower()}; the same command goes on once that is mended",
            74,
            settings,
        )
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's: an option or argument that is not there or not right
            _fail(f"{error.format_message().rstrip('.')}. `camsweep COMMAND --help` shows what there is.", 2, settings)
        line = f"{type(error).__name__}: {first_line(error)}"
        _fail(f"a fault in camsweep itself, please report what --debug shows ({line})", 1, settings)
    sys.exit(code if isinstance(code, int) else 0)


def _natively(error: NotImportedError) -> None:
    """Begin again with ``--native`` where that may help, in a new process: Keras runs on one framework in each."""
    import importlib.util

    if error.native and "--native" not in sys.argv and importlib.util.find_spec("tensorflow"):
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--native"])  # noqa: S606  (this very command)


def _fail(message: str, code: int, settings: Settings) -> None:
    if settings.debug:
        traceback.print_exc()
    print(one_line(f"error: {message}"), file=sys.stderr)  # noqa: T201
    sys.exit(code)
