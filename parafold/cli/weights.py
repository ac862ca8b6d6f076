"""`parafold weights`: fetch the published parameters, list what is there."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from parafold.cli.common import one_line_errors
from parafold.display import byte_bar

app = typer.Typer(no_args_is_help=True, help="The published parameters: fetch them, list what is there.")


@app.command()
@one_line_errors
def fetch(
    folder: Annotated[
        Path | None, typer.Option("--to", help="Where to put them. Default: the user's data folder.")
    ] = None,
) -> None:
    """Download the published parameters, check them, and say what licence they carry."""
    from parafold import weights

    typer.echo(f"Fetching {weights.URL}")
    with byte_bar("parameters") as advance:
        found = weights.fetch(folder, advance)
    place = next(iter(found.values())).parent
    typer.echo(f"{len(found)} parameter files in {place}")
    typer.echo(weights.LICENCE)
    typer.echo(f"Use them with: parafold fold INPUT --weights {shlex.quote(str(place))}")


@app.command("list")
@one_line_errors
def list_(
    folder: Annotated[
        Path | None, typer.Option("--in", help="Where to look. Default: the user's data folder.")
    ] = None,
) -> None:
    """List the published parameters that are on this machine."""
    from parafold import weights

    for model, path in weights.find(folder).items():
        typer.echo(f"{model:24} {path.stat().st_size / 1e6:8.1f} MB  {path}")
