"""The options that say which databases are searched."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parafold.display import complain

if TYPE_CHECKING:
    from parafold.msa import Database

Databases = Annotated[
    list[str] | None,
    typer.Option(
        "--databases",
        "-d",
        metavar="WHAT",
        help="A folder of FASTA files, one file, FILE@64 for its shards, or a name of `parafold db list`; may"
        " be repeated. Without it: small demonstration databases.",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Databases in AlphaFold's own layout.", show_default=False)
]


def found_databases(given: list[str] | None, data_dir: Path | None) -> "list[Database]":
    """The databases that the options name; the demonstration databases where they name none.

    Raises:
        SearchError: something else was named, or a registered database has changed.
    """
    from parafold.msa import demo_databases
    from parafold.msa.layouts import databases_in_data_dir
    from parafold.msa.registry import resolve

    if not given and data_dir is None:
        return demo_databases()
    found = resolve(given or (), warn=complain)
    return found + list(databases_in_data_dir(data_dir).databases) if data_dir else found
