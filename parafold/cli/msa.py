"""`parafold msa`: alignments for many queries, here or in steps on other machines."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from parafold.cli.common import FAILED, one_line_errors
from parafold.cli.databases import Databases, DataDir, found_databases
from parafold.display import SearchDisplay, complain
from parafold.errors import InputError, ParafoldError
from parafold.files import atomic_write

if TYPE_CHECKING:
    from parafold.msa import Alignment


class _SearchIsDefault(TyperGroup):
    """`parafold msa my.fasta` is `parafold msa search my.fasta`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["search", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SearchIsDefault,
    no_args_is_help=True,
    help="Search sequence databases: `parafold msa my.fasta` does all; plan, worker, merge do it in steps.",
)


_UNITS = ("", "k", "m", "g", "t")
_SIZE = re.compile(r"(?P<number>\d{1,15}(\.\d+)?)(?P<unit>[kmgt]?)(?P<binary>i?)b?", re.IGNORECASE | re.ASCII)


class EngineName(StrEnum):
    pyhmmer = "pyhmmer"
    jackhmmer = "jackhmmer"
    hhblits = "hhblits"
    mmseqs = "mmseqs"
    needleman_wunsch = "needleman-wunsch"


class ExecutorName(StrEnum):
    serial = "serial"
    processes = "processes"
    ray = "ray"
    slurm = "slurm"


class ScheduleName(StrEnum):
    longest_first = "longest-first"
    static = "static"


_Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="QUERIES...", help="FASTA or AlphaFold 3 JSON; each chain is a query.", show_default=False
    ),
]
_Engine = Annotated[EngineName, typer.Option(help="What searches.")]
_Shards = Annotated[
    int | None,
    typer.Option(
        min=1, help="Parts of each database. The result is the same for any number.", show_default=False
    ),
]
_MaxHits = Annotated[
    int | None,
    typer.Option(min=1, help="Rows of each alignment. Default: the published limits.", show_default=False),
]
_MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="What each worker may use, such as 2G. Default: its share.", show_default=False
    ),
]
_Output = Annotated[
    Path, typer.Option("--output-dir", "-o", help="Each query gets QUERY.a3m and a folder in it.")
]


@app.command()
@one_line_errors
def search(
    queries: _Inputs,
    output_dir: _Output = Path("msas"),
    databases: Databases = None,
    data_dir: DataDir = None,
    engine: _Engine = EngineName.pyhmmer,
    executor: Annotated[ExecutorName, typer.Option(help="Where tasks run.")] = ExecutorName.processes,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes or jobs. Default: the cores.", show_default=False)
    ] = None,
    shards: _Shards = None,
    schedule: Annotated[
        ScheduleName, typer.Option(help="static: one task for each database, in the order given.")
    ] = ScheduleName.longest_first,
    max_hits: _MaxHits = None,
    max_memory: _MaxMemory = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of finished alignments. Default: the user's.", show_default=False),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep anything.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, for --executor ray; without it a local one.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Of Slurm, for --executor slurm.")] = None,
) -> None:
    """Search for all queries; a run that was broken off continues where it stopped."""
    from parafold.msa import Search
    from parafold.msa.executors import make_executor
    from parafold.msa.search import DEFAULT_CACHE

    refused: set[str] = set()

    def refuse(name: str, error: ParafoldError) -> None:
        refused.add(name)
        complain(f"{name}: {error}")

    sequences = _queries(queries, refuse)
    crew: Any = executor.value
    if executor is ExecutorName.ray and address:
        crew = make_executor("ray", workers, address=address)
    elif executor is ExecutorName.slurm and partition:
        crew = make_executor("slurm", workers, partition=partition)
    with SearchDisplay(Console(highlight=False)) as display:
        work = Search(
            sequences,
            found_databases(databases, data_dir),
            engine=engine.value,
            shards=shards,
            schedule=schedule.value,
            cache=None if no_cache else cache or DEFAULT_CACHE,
            max_hits=max_hits,
            max_memory=_bytes(max_memory),
            progress=display.update,
            warn=display.warn,
            on_error=refuse,
        )
        for name, alignments in work.run(crew, workers):
            _write(output_dir, name, alignments)
            display.say(_summary(name, alignments))
    done = len(work.queries) - len(refused.intersection(work.queries))
    typer.echo(f"{done} of {len(refused | work.queries.keys())} queries are in {output_dir}")
    if refused:
        raise typer.Exit(FAILED)


@app.command()
@one_line_errors
def plan(
    queries: _Inputs,
    folder: Annotated[Path, typer.Option("--to", help="Folder of the plan, seen by all machines.")],
    workers: Annotated[int, typer.Option(min=1, help="How many workers there will be.")] = 1,
    databases: Databases = None,
    data_dir: DataDir = None,
    engine: _Engine = EngineName.pyhmmer,
    shards: _Shards = None,
    max_hits: _MaxHits = None,
    max_memory: _MaxMemory = None,
) -> None:
    """Cut a search into tasks, for workers on any machine that sees the folder and the databases."""
    from parafold.msa import Search

    work = Search(
        _queries(queries),
        found_databases(databases, data_dir),
        engine=engine.value,
        shards=shards,
        cache=None,
        max_hits=max_hits,
        max_memory=_bytes(max_memory),
        warn=complain,
    )
    made = work.plan(folder, workers)
    tasks = "1 task" if len(made.tasks) == 1 else f"{len(made.tasks)} tasks"
    typer.echo(f"{tasks} in {folder}, to be done in a job array or by hand with")
    typer.echo(f"  parafold msa worker {folder} --index I --of {workers}    (I from 0 to {workers - 1})")
    typer.echo(f"and when all have finished: parafold msa merge {folder} -o {Path('msas')}")


@app.command()
@one_line_errors
def worker(
    folder: Annotated[Path, typer.Argument(help="Of the plan.")],
    index: Annotated[int, typer.Option(min=0, help="Which worker this is, from 0.")] = 0,
    of: Annotated[int, typer.Option(min=1, help="How many workers there are.")] = 1,
) -> None:
    """Do one worker's share of a plan; what it has finished before is kept."""
    from parafold.msa.plan import Plan
    from parafold.msa.worker import limit_memory, run_share

    if index >= of:
        raise InputError(f"--index {index} --of {of}: the index goes from 0 to {of - 1}")
    made = Plan.load(folder)
    limit_memory(made.memory)
    share = made.share(index, of)
    for count, number in enumerate(run_share(folder, index, of), start=1):
        typer.echo(f"{count} of {len(share)}: {made.task_name(number)}")


@app.command()
@one_line_errors
def merge(
    folder: Annotated[Path, typer.Argument(help="Of the plan.")], output_dir: _Output = Path("msas")
) -> None:
    """Put a plan's finished tasks together."""
    from parafold.msa.execute import finished, merged
    from parafold.msa.plan import Plan

    made = Plan.load(folder)
    results = finished(folder, made, complain)
    for name, alignments in merged(made, results):
        _write(output_dir, name, alignments)
        typer.echo(_summary(name, alignments))


def _queries(
    paths: list[Path], on_error: Callable[[str, ParafoldError], None] | None = None
) -> dict[str, str]:
    """Query name -> sequence: a target's name, with the chain's where it has several. Targets that cannot be
    read are handed to `on_error`; without it that is raised."""
    from parafold.protein.sequence import read_inputs

    queries: dict[str, str] = {}
    for path in paths:
        for target in read_inputs(path, "auto", on_error):
            for chain in target.chains:
                name = f"{target.name}_{chain.id}" if len(target.chains) > 1 else target.name
                if queries.get(name, chain.sequence) != chain.sequence:
                    raise InputError(f"{path}: {name} names another sequence already; rename one")
                queries[name] = chain.sequence
    if not queries:
        raise InputError(f"{', '.join(map(str, paths))}: no query in it; give protein sequences")
    return queries


def _bytes(size: str | None) -> int | None:
    """2G, 2GB and 2000M are 2 * 10**9 bytes, 2GiB are 2 * 2**30."""
    if size is None:
        return None
    match = _SIZE.fullmatch(size)
    unit = (1024 if match["binary"] else 1000) ** _UNITS.index(match["unit"].lower()) if match else 0
    found = int(float(match["number"]) * unit) if match else 0
    if found < 200 * 10**6:
        raise InputError(f"--max-memory {size}: give 200M or more, such as 800M or 2G")
    return found


def _write(folder: Path, name: str, alignments: "Mapping[str, Alignment]") -> None:
    from parafold.msa.alignment import stacked

    for database, alignment in alignments.items():
        atomic_write(folder / name / f"{database}.a3m", alignment.a3m())
        atomic_write(folder / name / f"{database}.tsv", alignment.table())
    atomic_write(folder / f"{name}.a3m", stacked(alignments.values()))


def _summary(name: str, alignments: "Mapping[str, Alignment]") -> str:
    counts = ", ".join(f"{len(found.rows)} in {database}" for database, found in alignments.items())
    return f"{name}: {counts}"
