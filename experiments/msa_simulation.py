"""MSA construction on machines that are not there: 1 to 1,024 processors and AlphaFold's real databases.

    python experiments/msa_simulation.py [--bandwidth 0.2,1,3,10] [--length 300] [--queries 1,30]

Needs a run of `msa_scaling.py lengths` (and better also of `engines` and `workers`) on the machine whose
speed is to be carried over. From these it fits what a task costs; it checks the simulator against the
searches that were measured on two cores; then it predicts. The prediction knows nothing of what many cores of
one machine take from each other, nor of queries with very many homologs. BFD is searched by hhblits, which no
one can split: how long that takes is assumed, not measured (`--hhblits`). The 2023 report's Table 1 is fitted
as well. All figures go to `results/msa_simulation.jsonl`, plots beside it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from msa_plots import plot_prediction, plot_table
from msa_records import RESULTS, append, last_run, median, new_run, tasks_of
from rich.console import Console
from rich.table import Table

from parafold.bench import msa_cost, msa_table
from parafold.bench.simulate import Machine, Task, simulate
from parafold.errors import ParafoldError

PROCESSORS = [2**n for n in range(11)]
PREDICTIONS = RESULTS.with_name("msa_simulation.jsonl")
# One target of 156 residues took "about one hour" in BFD and Uniclust30 with 20 threads
# (github.com/google-deepmind/alphafold/issues/123).
HHBLITS_SECONDS = 3600.0

console = Console(width=120)


def main(
    bandwidth: Annotated[
        str, typer.Option(help="GB a second of the shared disk, comma-separated")
    ] = "0.2,1,3,10",
    length: Annotated[int, typer.Option(help="residues of each query")] = 300,
    queries: Annotated[str, typer.Option(help="numbers of queries, comma-separated")] = "1,30",
    hhblits: Annotated[float, typer.Option(help="seconds of one query in BFD, assumed")] = HHBLITS_SECONDS,
    measured: Annotated[Path, typer.Option(help="what msa_scaling.py wrote")] = RESULTS,
    results: Annotated[Path, typer.Option(help="the file that gets the figures")] = PREDICTIONS,
) -> None:
    runs = {name: usable(last_run(name, measured)) for name in ("lengths", "workers", "engines")}
    if not runs["lengths"]:
        raise ParafoldError(f"{measured}: holds no run to learn from; first run msa_scaling.py lengths")
    run = new_run("simulation", f"measured {', '.join(name for name, found in runs.items() if found)}")
    run["measured_on"] = runs["lengths"][0]["machine"]
    searches = [record for found in runs.values() for record in found if record["engine"] == "pyhmmer"]
    cost = fit_cost(searches)
    append(run | {"what": "cost", **vars(cost)}, results)
    append(run | {"what": "check", "errors": check(searches)}, results)
    overheads = measured_overheads(runs["lengths"])
    curves = predict(
        cost,
        overheads,
        [float(b) for b in bandwidth.split(",")],
        [[length] * int(n) for n in queries.split(",")],
        hhblits,
    )
    append(run | {"what": "prediction", "curves": curves}, results)
    fits = [msa_table.fit(explanation) for explanation in msa_table.EXPLANATIONS]
    report_table(fits)
    for fit in fits:
        figures = {"parameters": fit.parameters, "error": fit.error, "held_out": fit.held_out}
        append(run | {"what": "table", "name": fit.explanation.name, **figures}, results)
    console.print(f"drawn: {plot_prediction(curves, results)}, {plot_table(fits, results)}")


def usable(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if "tasks" in record]


def fit_cost(searches: Sequence[dict[str, Any]]) -> msa_cost.CostModel:
    """The cost of a task, from all tasks that ran on processors of their own."""
    tasks = [task for record in searches if record["workers"] <= 2 for task in tasks_of(record)]
    cost = msa_cost.fit(tasks)
    console.print(
        f"cost of a task, fitted to {len(tasks)} (root mean square error {cost.error:.1%}): "
        f"{1e3 * cost.per_task:.1f} ms + {1e9 * cost.per_byte:.2f} s a GB "
        f"+ {1e9 * cost.per_residue:.2f} s a billion residues and query "
        f"+ {1e9 * cost.per_cell:.3f} s a billion residue pairs"
    )
    return cost


def measured_overheads(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds that do not get fewer with more workers: until two workers take their first tasks, planning
    among it, and from the end of the last task of a serial search to its end, merging among it."""
    starts, ends = [], []
    for record in records:
        tasks = tasks_of(record)
        if record["workers"] == 2:
            first: dict[str, float] = {}
            for task in tasks:
                first[task.worker] = min(task.started, first.get(task.worker, math.inf))
            starts += [started - record["called"] for started in first.values()]
        elif record["case"] == "serial":
            last = max(task.started + task.wall_seconds for task in tasks)
            ends.append(record["called"] + record["wall_seconds"] - last)
    return {"start": float(np.median(starts)), "end": float(np.median(ends))}


def check(searches: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Simulate each search that was measured on two cores from the serial search for the same queries: every
    database's seconds a byte, in tasks of the sizes that the search had. Returns relative errors by case."""
    table = Table(title="Two cores: simulated from the serial search, and measured, seconds")
    for name in ("queries", "residues", "case", "simulated", "measured", "error"):
        table.add_column(name, justify="right")
    errors = defaultdict(list)
    kinds = defaultdict(list)
    for record in searches:
        kinds[record["experiment"], tuple(record["lengths"]), tuple(record["databases"].values())].append(
            record
        )
    for (experiment, lengths, _), records in kinds.items():
        case = group(records)
        if "serial" not in case:
            continue
        overheads = measured_overheads([r for r in searches if r["experiment"] == experiment])
        rate = seconds_per_byte(case["serial"])
        for name in ("static 2", "ours 2"):
            if name not in case:
                continue
            tasks = [
                Task(rate[t.database] * t.bytes, 0.0, t.database, estimate=t.bytes)
                for t in tasks_of(case[name][0])
            ]
            seconds = simulate(
                tasks,
                Machine(2, startup=overheads["start"]),
                schedule=case[name][0]["schedule"],
                after=overheads["end"],
            ).seconds
            found = median(case[name])
            error = seconds / found - 1
            errors[name].append(error)
            shown = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
            cells = (str(len(lengths)), shown, name, f"{seconds:.2f}", f"{found:.2f}", f"{error:+.1%}")
            table.add_row(*cells, style=None if abs(error) <= 0.1 else "red")
    console.print(table)
    every = [abs(error) for found in errors.values() for error in found]
    console.print(
        f"{sum(e <= 0.1 for e in every)} of {len(every)} within 10 %, the worst {max(every):.1%} off"
    )
    return dict(errors)


def seconds_per_byte(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Wall seconds by database: medians over repeats of what serial tasks took."""
    rates = defaultdict(list)
    for record in records:
        seconds, size = defaultdict(float), defaultdict(float)
        for task in tasks_of(record):
            seconds[task.database] += task.wall_seconds
            size[task.database] += task.bytes
        for name in seconds:
            rates[name].append(seconds[name] / size[name])
    return {name: float(np.median(found)) for name, found in rates.items()}


def predict(
    cost: msa_cost.CostModel,
    overheads: dict[str, float],
    bandwidths: Sequence[float],
    batches: Sequence[Sequence[int]],
    hhblits: float,
) -> list[dict[str, Any]]:
    """Seconds on 1 to 1,024 processors: ours at each bandwidth, without and with BFD, and static."""
    curves = []
    sizes = msa_cost.PUBLISHED_BYTES
    for lengths in batches:
        count = len(lengths)
        bfd = {f"bfd {n}": Task(hhblits, 0.0, f"bfd {n}", splittable=False) for n in range(count)}
        cases = [("ours", gb, {}) for gb in (math.inf, *sorted(bandwidths, reverse=True))]
        cases += [("ours, BFD by hhblits", math.inf, bfd), ("static", math.inf, {})]
        for case, gb, whole in cases:
            seconds, disk, busy = [], [], []
            for workers in PROCESSORS:
                tasks = msa_cost.tasks_for(sizes, lengths, cost, workers, whole)
                machine = Machine(workers, startup=overheads["start"], bandwidth=gb * msa_cost.GB)
                schedule = "static" if case == "static" else "longest-first"
                timeline = simulate(tasks, machine, schedule=schedule, after=overheads["end"])
                seconds.append(timeline.seconds)
                disk.append(timeline.disk_use)
                busy.append(timeline.utilisation)
            curves.append(
                {
                    "case": case,
                    "queries": count,
                    "length": lengths[0],
                    "bandwidth_gb": None if math.isinf(gb) else gb,
                    "processors": PROCESSORS,
                    "seconds": [round(s, 3) for s in seconds],
                    "disk_use": [round(d, 3) for d in disk],
                    "utilisation": [round(b, 3) for b in busy],
                }
            )
    report_prediction(curves, sum(sizes.values()), hhblits)
    return curves


def report_prediction(curves: Sequence[dict[str, Any]], size: float, hhblits: float) -> None:
    for count in sorted({curve["queries"] for curve in curves}):
        chosen = [curve for curve in curves if curve["queries"] == count]
        noun = "query" if count == 1 else "queries"
        title = f"Predicted seconds, {count} {noun} of {chosen[0]['length']} residues, {size / 1e9:.0f} GB"
        table = Table(title=title + " (* the disk is the limit)")
        table.add_column("case")
        table.add_column("disk GB/s", justify="right")
        shown = [1, 2, 4, 8, 32, 128, 512, 1024]
        for workers in shown:
            table.add_column(str(workers), justify="right")
        for curve in chosen:
            at = [curve["processors"].index(workers) for workers in shown]
            disk = "no limit" if curve["bandwidth_gb"] is None else f"{curve['bandwidth_gb']:g}"
            cells = [f"{curve['seconds'][i]:,.0f}{'*' if curve['disk_use'][i] > 0.9 else ''}" for i in at]
            table.add_row(curve["case"], disk, *cells)
        console.print(table)
    console.print(f"hhblits in BFD: {hhblits:.0f} s a query is an assumption, not a measurement", style="dim")


def report_table(fits: Sequence[msa_table.Fit]) -> None:
    table = Table(title=f"The 2023 report's Table 1, {msa_table.MINUTES.size} points, explained")
    for name in ("explanation", "parameters", "error", "error on points held out", "values"):
        table.add_column(name, justify="left" if name in ("explanation", "values") else "right")
    for fit in fits:
        values = ", ".join(f"{name} {value:.3g}" for name, value in fit.parameters.items())
        errors = (f"{fit.error:.1%}", f"{fit.held_out:.1%}")
        table.add_row(fit.explanation.name, str(len(fit.parameters)), *errors, values)
    console.print(table)
    lanes = fits[1].explanation.lanes(np.array(list(fits[1].parameters.values())))
    chunks = [Task(lanes.compute[-1]) for n in msa_table.CHUNKS.values() for _ in range(n)]
    minutes = [simulate(chunks, Machine(workers)).seconds for workers in (1, 2, 3, 8)]
    console.print(
        "its search for 96 residues on 1, 2, 3 and 8 processors, chunks shared out and on the disk: "
        + ", ".join(f"{m:.0f}" for m in minutes)
        + " minutes"
    )


def group(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    case = defaultdict(list)
    for record in records:
        case[record["case"]].append(record)
    return dict(case)


if __name__ == "__main__":
    typer.run(main)
