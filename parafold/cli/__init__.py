"""The command line: thin commands over the Python API. Help and errors of use never load JAX."""

import sys
from typing import Annotated

import typer

from parafold import __version__
from parafold.cli import db, doctor, fold, msa, weights
from parafold.cli.common import FAILED, INTERRUPTED
from parafold.display import complain

__all__ = ["FAILED", "INTERRUPTED", "app", "main"]

app = typer.Typer(
    name="parafold",
    help="AlphaFold 2 on current JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(fold.fold)
app.command()(doctor.doctor)
app.add_typer(msa.app, name="msa")
app.add_typer(db.app, name="db")
app.add_typer(weights.app, name="weights")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"parafold {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `parafold` command."""
    try:
        app()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(INTERRUPTED)
