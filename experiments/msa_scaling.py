"""Runtime of MSA construction against sequence length and processors, beside the 2023 report's Table 1.

    python experiments/msa_scaling.py lengths [--data DIR]    one query of each length, three databases
    python experiments/msa_scaling.py workers [--data DIR]    one query, three databases, up to 8 workers
    python experiments/msa_scaling.py engines [--data DIR]    30 queries: pyhmmer beside the jackhmmer program
    python experiments/msa_scaling.py baseline [--data DIR]   edit-distance search beside jackhmmer's
    python experiments/msa_scaling.py plot                    draws what was measured last

Cases take turns within each round, so that a noisy machine disturbs all alike; what is printed are medians
over rounds. "static" is the report's schedule, one process for each whole database in its order. Where there
are more workers than cores, the critical path by CPU time stands in for the time that they would take: CPU
seconds of the busiest worker, of a worker's start and of the parent. Each search is one line of
`results/msa_scaling.jsonl`.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from msa_cases import Cases, make_cases
from msa_records import RESULTS, append, critical_path, measure, measure_program, median, new_run
from rich.console import Console
from rich.table import Table

from parafold.bench import msa_table

SERIAL = {"executor": "serial", "workers": 1}
OURS, STATIC = {"schedule": "longest-first"}, {"schedule": "static"}
JACKHMMER = {"engine": "jackhmmer", "workers": 2}

app = typer.Typer(add_completion=False)
console = Console(width=120)

Data = Annotated[Path | None, typer.Option(help="folder that holds search_db and structures30")]
Folder = Annotated[Path, typer.Option(help="where databases are made; they are kept there")]
Megabytes = Annotated[float, typer.Option(help="size of the three databases together")]
Rounds = Annotated[int, typer.Option(help="searches of each case, in turns")]
Results = Annotated[Path, typer.Option(help="the file that gets one line for each search")]
FOLDER = Path(tempfile.gettempdir()) / "parafold-msa-scaling"


class Runner:
    """Takes the cases of an experiment in turns and keeps what they took."""

    def __init__(self, experiment: str, cases: Cases, results: Path) -> None:
        self.run = new_run(experiment, cases.source)
        self.results = results
        sizes = ", ".join(f"{d.name} {d.bytes / 1e6:.0f} MB" for d in cases.databases)
        console.print(f"{cases.source}; {sizes}", style="dim")
        if (load := os.getloadavg()[0]) > 0.5:
            console.print(f"the machine is busy (load {load:.1f}): wall times will not hold", style="yellow")
        for database in cases.databases:  # into the page cache, for all cases alike
            database.path.read_bytes()

    def take_turns(
        self, searches: Sequence[tuple[str, dict, Sequence, dict]], rounds: int
    ) -> dict[str, list]:
        """Searches are (case, queries, databases, options). Returns case -> records."""
        records: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for turn in range(rounds):
            first = turn % len(searches)
            for case, queries, databases, options in [*searches[first:], *searches[:first]]:
                take = measure_program if "cpu" in options else measure
                record = self.run | {"case": case, "round": turn} | take(queries, databases, **options)
                append(record, self.results)
                records[case].append(record)
                if "error" in record:
                    console.print(f"{case}: {record['error']}", style="red")
        return records


@app.command()
def lengths(
    data: Data = None,
    megabytes: Megabytes = 400,
    rounds: Rounds = 3,
    residues: Annotated[
        str, typer.Option(help="query lengths, comma-separated")
    ] = "16,32,64,96,128,256,512,1024",
    folder: Folder = FOLDER,
    results: Results = RESULTS,
) -> None:
    """One query of each length against three databases: serial, static and ours."""
    cases = make_cases(folder, megabytes, data)
    runner = Runner("lengths", cases, results)
    measure(cases.query(16), cases.databases, **SERIAL)  # warm-up
    measured = {}
    for length in map(int, residues.split(",")):
        query = cases.query(length)
        searches = [
            ("serial", query, cases.databases, SERIAL),
            ("static 2", query, cases.databases, STATIC | {"workers": 2}),
            ("ours 2", query, cases.databases, OURS | {"workers": 2}),
            ("static 3", query, cases.databases, STATIC | {"workers": 3}),
            ("ours 3", query, cases.databases, OURS | {"workers": 3}),
        ]
        measured[length] = runner.take_turns(searches, rounds)
    report_lengths(measured)


def report_lengths(measured: dict[int, dict[str, list[dict]]]) -> None:
    report = Table(title="The 2023 report's Table 1: minutes (jackhmmer, one process a database, Perlmutter)")
    for name in ("residues", "1 processor", "2", "3", "2: speedup", "3: speedup"):
        report.add_column(name, justify="right")
    for length, minutes in zip(msa_table.LENGTHS, msa_table.MINUTES, strict=True):
        speedups = [f"{minutes[0] / m:.2f}x" for m in minutes[1:]]
        report.add_row(str(length), *(f"{m:.0f}" for m in minutes), *speedups)
    console.print(report)
    table = Table(title="Measured here: seconds, and speedup over one processor")
    for name in (
        "residues",
        "1 processor",
        "CPU s",
        "static 2",
        "ours 2",
        "static 3 by CPU",
        "ours 3 by CPU",
    ):
        table.add_column(name, justify="right")
    for length, records in measured.items():
        serial = median(records["serial"])
        cells = [str(length), f"{serial:.2f}", f"{median(records['serial'], 'cpu_seconds'):.2f}"]
        for case in ("static 2", "ours 2"):
            cells.append(f"{median(records[case]):.2f}  {paired(records, 'serial', case):.2f}x")
        for case in ("static 3", "ours 3"):
            path = float(np.median([critical_path(r) for r in records[case] if "tasks" in r]))
            cells.append(f"{path:.2f}  {median(records['serial'], 'cpu_seconds') / path:.2f}x")
        table.add_row(*cells)
    console.print(table)
    say_whether_equal(measured.values())


@app.command()
def workers(
    data: Data = None,
    megabytes: Megabytes = 800,
    rounds: Rounds = 3,
    length: Annotated[int, typer.Option(help="residues of the query")] = 1024,
    folder: Folder = FOLDER,
    results: Results = RESULTS,
) -> None:
    """One query against three databases with up to 8 workers, judged by CPU time."""
    cases = make_cases(folder, megabytes, data)
    runner = Runner("workers", cases, results)
    query = cases.query(length)
    measure(cases.query(16), cases.databases, **SERIAL)  # warm-up
    searches = [("serial", query, cases.databases, SERIAL)]
    searches += [(f"ours {n}", query, cases.databases, OURS | {"workers": n}) for n in (2, 3, 4, 8)]
    searches += [(f"static {n}", query, cases.databases, STATIC | {"workers": n}) for n in (3, 8)]
    records = runner.take_turns(searches, rounds)
    report_workers(records)
    say_whether_equal([records])


def report_workers(records: dict[str, list[dict]]) -> None:
    serial = median(records["serial"], "cpu_seconds")
    table = Table(title=f"One query, three databases: {serial:.1f} CPU s on one processor")
    for name in ("case", "tasks", "wall s", "busiest worker CPU s", "speedup", "with start and parent"):
        table.add_column(name, justify="right" if name != "case" else "left")
    for case, found in records.items():
        found = [record for record in found if "tasks" in record]
        if not found:
            continue
        searching = float(np.median([critical_path(r, overheads=False) for r in found]))
        everything = float(np.median([critical_path(r) for r in found]))
        speedups = [f"{serial / seconds:.2f}x" for seconds in (searching, everything)]
        count = len(found[0]["tasks"]["cpu_seconds"])
        table.add_row(case, str(count), f"{median(found):.2f}", f"{searching:.2f}", *speedups)
    console.print(table)


@app.command()
def engines(
    data: Data = None,
    megabytes: Megabytes = 60,
    rounds: Rounds = 3,
    queries: Annotated[int, typer.Option(help="number of queries, of mixed length")] = 30,
    folder: Folder = FOLDER,
    results: Results = RESULTS,
) -> None:
    """Many queries at once: pyhmmer, serial and on two cores, beside the jackhmmer program on two."""
    cases = make_cases(folder, megabytes, data)
    runner = Runner("engines", cases, results)
    chosen = cases.mixed(queries)
    measure(cases.query(16), cases.databases, **SERIAL)  # warm-up
    searches = [
        ("serial", chosen, cases.databases, SERIAL),
        ("static 2", chosen, cases.databases, STATIC | {"workers": 2}),
        ("ours 2", chosen, cases.databases, OURS | {"workers": 2}),
        # By our schedule, two at a time; and as AlphaFold runs it, one with two threads.
        ("jackhmmer 2", chosen, cases.databases, JACKHMMER | {"engine_options": {"cpu": 1}}),
        ("jackhmmer --cpu 2", chosen, cases.databases, {"cpu": 2}),
    ]
    records = runner.take_turns(searches, rounds)
    residues = [len(sequence) for sequence in chosen.values()]
    table = Table(title=f"{len(chosen)} queries of {min(residues)} to {max(residues)} residues")
    programs = [case for case in records if case.startswith("jackhmmer")]
    for name in (
        "case",
        "wall s",
        "CPU s",
        "speedup over serial",
        *(f"times as fast as {p}" for p in programs),
    ):
        table.add_column(name, justify="right" if name != "case" else "left")
    for case, found in records.items():
        spent = [{"cpu": r["cpu_seconds"] + r["worker_cpu_seconds"]} for r in found if "error" not in r]
        ratios = [f"{paired(records, slow, case):.2f}x" for slow in ("serial", *programs)]
        table.add_row(case, f"{median(found):.2f}", f"{median(spent, 'cpu'):.2f}", *ratios)
    console.print(table)
    say_whether_equal([records])


@app.command()
def baseline(
    data: Data = None,
    megabytes: Megabytes = 5,
    rounds: Rounds = 3,
    residues: Annotated[
        str, typer.Option(help="query lengths, comma-separated")
    ] = "16,32,64,96,128,256,512,1024",
    folder: Folder = FOLDER,
    results: Results = RESULTS,
) -> None:
    """One query and one process: the report's O(n·alpha·l) recurrence beside jackhmmer's filters."""
    cases = make_cases(folder, megabytes, data)
    runner = Runner("baseline", cases, results)
    names = ("needleman-wunsch", "jackhmmer", "pyhmmer")
    numbers = [int(length) for length in residues.split(",")]
    searches = [
        (f"{name} {length}", cases.query(length), cases.databases, SERIAL | {"engine": name})
        for length in numbers
        for name in names
    ]
    for name in names:  # warm-up
        measure(cases.query(16), cases.databases, **SERIAL, engine=name)
    records = runner.take_turns(searches, rounds)
    table = Table("residues", *(f"{name} s" for name in names), title="One process, wall seconds")
    for length in numbers:
        table.add_row(str(length), *(f"{median(records[f'{name} {length}']):.3f}" for name in names))
    console.print(table)
    for name in names:
        seconds = np.array([median(records[f"{name} {length}"]) for length in numbers])
        slope, start = np.polyfit(numbers, seconds, 1)
        left = np.sum((seconds - start - slope * np.array(numbers)) ** 2)
        explained = 1 - left / np.sum((seconds - seconds.mean()) ** 2)
        line = f"{start:.3f} s + {1e3 * slope:.3f} ms a residue"
        console.print(f"{name}: {line}, a straight line that explains {explained:.1%}")


@app.command()
def plot(results: Results = RESULTS) -> None:
    """Draw the last runs of `lengths`, `workers` and `baseline` beside the file of results."""
    from msa_plots import plot_scaling

    console.print(f"drawn: {plot_scaling(results)}")


def paired(records: dict[str, list[dict]], slow: str, fast: str) -> float:
    """How many times as long `slow` took: the median of the rounds' ratios."""
    pairs = zip(records[slow], records[fast], strict=True)
    ratios = [a["wall_seconds"] / b["wall_seconds"] for a, b in pairs if "error" not in {**a, **b}]
    return float(np.median(ratios)) if ratios else float("nan")


def say_whether_equal(groups) -> None:
    """All cases of the same queries and databases must have found the same rows."""
    digests = defaultdict(set)
    for records in groups:
        for record in (record for found in records.values() for record in found if "tasks" in record):
            digests[str((record["lengths"], record["databases"]))].add(record["rows_sha256"])
    equal = all(len(found) == 1 for found in digests.values())
    console.print("all cases found the same rows" if equal else "THE CASES FOUND DIFFERENT ROWS")


if __name__ == "__main__":
    app()
