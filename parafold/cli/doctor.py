"""`parafold doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from parafold.cli.common import one_line_errors


@one_line_errors
def doctor(
    databases: Annotated[Path | None, typer.Option(help="Folder of databases to look at.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of parameters to look at.")] = None,
) -> None:
    """Show Python, JAX, devices, engines, databases and memory, what is missing and how to get it."""
    from parafold import doctor as examination

    examination.show(found=examination.checks(databases, weights))
