"""The ``camsweep`` command: its subcommands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys

import typer

from . import demo, explain, info, inspect, methods, render

app = typer.Typer(
    name="camsweep",
    help="Explain a whole dataset: a trained checkpoint in, attribution maps in one HDF5 file out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 2 bad request; 3 done, but samples failed; 69 device lost; 73 output cannot be created; "
    "74 reading or writing failed; 75 stopped, the same command goes on; 130 second Ctrl-C.",
)
app.command()(explain.explain)
app.command()(demo.demo)
app.command()(inspect.inspect)
app.command()(methods.methods)
app.command()(render.render)
app.command()(info.info)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"camsweep {version('camsweep')}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Explain a whole dataset: a trained checkpoint in, attribution maps in one HDF5 file out."""


def main() -> None:
    """Run the command line; faults a user can mend end in one line on stderr, without a traceback."""
    from ..core.errors import CamsweepError

    try:
        app()
    except CamsweepError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone (| head): say nothing more, not even when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
