"""`parafold db`: register databases, see whether they are as they were, split them into files."""

import dataclasses
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parafold.cli.common import FAILED, one_line_errors
from parafold.display import byte_bar, complain, in_bytes
from parafold.errors import InputError, SearchError

if TYPE_CHECKING:
    from parafold.msa.database import Database
    from parafold.msa.registry import Entry, Registry

app = typer.Typer(
    no_args_is_help=True,
    help="Databases under names: add them, see whether they have changed, split them into files.",
)


class PresetName(StrEnum):
    full_dbs = "full_dbs"
    reduced_dbs = "reduced_dbs"


_Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all.", show_default=False)
]


@app.command()
@one_line_errors
def add(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="FASTA file, FILE@64 for its shards, a folder of FASTA files, or the prefix of an HH-suite"
            " or MMseqs2 database; or a registered name, to take the database as it is now.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Default: the file's name without endings.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="uniref90, bfd, mgnify, uniprot or other. Default: what the name begins with.",
            show_default=False,
        ),
    ] = None,
    max_hits: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rows of its alignments, the query among them; 0: all. Default: as published for the kind.",
            show_default=False,
        ),
    ] = None,
    z: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of sequences for E-values. Default: as many as there are.", show_default=False
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="HH-suite database to search in the same run, as UniRef30 with BFD."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of AlphaFold's databases: register all that are in it.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="With --data-dir. Default: full_dbs where BFD is there.", show_default=False),
    ] = None,
) -> None:
    """Register databases: count their sequences, and remember what tells them from changed ones."""
    from parafold.msa.registry import Registry

    registry = Registry()
    options = {"name": name, "kind": kind, "z": z, "also": tuple(also or ())}
    chosen = {key: value for key, value in options.items() if value}
    if max_hits is not None:
        chosen["max_hits"] = max_hits or None
    databases = _wanted(paths or [], data_dir, preset, chosen, registry)
    for database in databases:
        with byte_bar(f"counting {database.name}") as advance:
            entry = registry.add(database, advance)
        typer.echo(f"{database.name}: {_described(entry)}, {entry.database.path}")
    typer.echo(f"Registered in {registry.path}")


@app.command()
@one_line_errors
def verify(
    names: _Names = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every record, not only sizes, dates and samples.")
    ] = False,
) -> None:
    """See whether databases are as they were when they were added."""
    from parafold.msa.registry import Registry

    registry = Registry()
    failures = 0
    for name in names or [entry.database.name for entry in registry.entries()]:
        try:
            with byte_bar(f"reading {name}") as advance:
                found = registry.verify(name, full, advance)
        except SearchError as error:
            complain(str(error))
            failures += 1
            continue
        parts = ["the date has changed, size and samples have not" if found.change else "unchanged"]
        if found.sequences is not None:
            parts += [f"{found.sequences:,} sequences", f"{found.residues:,} residues"]
        parts += [f"{count:,} {what}" for what, count in sorted(found.warnings.items())]
        typer.echo(f"{name}: {', '.join(parts)}")
    if failures:
        raise typer.Exit(FAILED)


@app.command()
@one_line_errors
def shard(
    database: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", show_default=False)],
    shards: Annotated[
        int, typer.Option("--shards", "-n", min=1, max=99_999, help="Number of files.", show_default=False)
    ],
    folder: Annotated[
        Path, typer.Option("--to", help="Folder for FILE-00000-of-00064 and so on.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--add", metavar="NAME", help="Register the shards under this name.")
    ] = None,
) -> None:
    """Split a FASTA database into files, for programs that search whole files; pyhmmer needs no such copies.

    Between records, and as AlphaFold 3 names them. A packed database is unpacked first, which takes its space
    twice for a while. A run that was broken off continues where it stopped.
    """
    from parafold.msa.registry import Registry, resolve
    from parafold.msa.shards import write_shards

    registry = Registry()
    found = resolve([database], registry, complain)
    if len(found) != 1:
        raise InputError(f"{database}: holds {len(found)} databases; name one of them")
    with byte_bar(f"splitting {found[0].name}") as advance:
        written = write_shards(found[0], shards, folder, advance)
    count = len(written.files)
    fewer = f" (there are no more records, {shards} were asked for)" if count < shards else ""
    typer.echo(f"{count} shards{fewer} in {folder}")
    if name:
        with byte_bar(f"counting {name}") as advance:
            entry = registry.add(dataclasses.replace(written, name=name, z=None), advance)
        typer.echo(f"{name}: {_described(entry)}, {entry.database.path}")
    place = name or shlex.quote(str(written.path))
    typer.echo(f"Use them with: parafold msa INPUT --databases {place}")


@app.command("list")
@one_line_errors
def list_() -> None:
    """List the registered databases and whether their files are as they were."""
    from rich.console import Console
    from rich.table import Table

    from parafold.msa.registry import Registry, state

    registry = Registry()
    entries = registry.entries()
    if not entries:
        typer.echo(f"No database is registered in {registry.path}; parafold db add PATH registers one.")
        return
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("name", "kind"):
        table.add_column(title, no_wrap=True)
    for title in ("sequences", "rows"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("state", "path"):
        table.add_column(title, overflow="fold")
    for entry in entries:
        found = entry.database
        table.add_row(
            found.name,
            found.kind,
            f"{entry.sequences:,}" if entry.sequences is not None else found.format,
            f"{found.max_hits:,}" if found.max_hits else "all",
            state(entry),
            str(found.path),
        )
    console.print(table)


@app.command()
@one_line_errors
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", show_default=False)],
) -> None:
    """Forget registered databases; their files stay."""
    from parafold.msa.registry import Registry

    registry = Registry()
    for name in names:
        registry.remove(name)
        typer.echo(f"{name}: no longer registered; its files are where they were")


def _wanted(
    paths: list[str],
    data_dir: Path | None,
    preset: PresetName | None,
    chosen: dict[str, Any],
    registry: "Registry",
) -> "list[Database]":
    """The databases to register, with the options that were given."""
    from parafold.msa.database import PUBLISHED
    from parafold.msa.layouts import databases_in_data_dir
    from parafold.msa.registry import databases_at

    if bool(paths) == (data_dir is not None):
        raise InputError("name the databases to add, or give the folder of AlphaFold's with --data-dir")
    if data_dir is not None:
        found = list(databases_in_data_dir(data_dir, preset.value if preset else None).databases)
    else:
        known = {entry.database.name: entry for entry in registry.entries()}
        found = [
            database
            for path in paths
            for database in ([_anew(known[path])] if path in known else databases_at(path))
        ]
    if len(found) > 1 and chosen:
        given = ", ".join(f"--{option.replace('_', '-')}" for option in chosen)
        raise InputError(f"{given}: for one database, these are {len(found)}; add them one by one")
    if "name" in chosen or "kind" in chosen:
        # What follows from the name or the kind follows from the new one.
        chosen = {"kind": "", "max_hits": PUBLISHED, **chosen}
    return [dataclasses.replace(database, **chosen) for database in found]


def _anew(entry: "Entry") -> "Database":
    """A registered database, its sequences to be counted again unless their number was given."""
    database = entry.database
    return dataclasses.replace(database, z=None) if database.z == entry.sequences else database


def _described(entry: "Entry") -> str:
    count = "" if entry.sequences is None else f"{entry.sequences:,} sequences, "
    return f"{count}{in_bytes(entry.database.bytes)}"
