"""Measurements of MSA searches, one a line of a JSON-lines file, and how to take and read them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from parafold.errors import ParafoldError
from parafold.msa import Database, search
from parafold.msa.engines import make_engine
from parafold.msa.results import TaskRecord

RESULTS = Path(__file__).parent / "results" / "msa_scaling.jsonl"
FORMAT = 1
_COLUMNS = tuple(field.name for field in dataclasses.fields(TaskRecord) if field.name != "task")


def new_run(experiment: str, source: str) -> dict[str, Any]:
    """What all records of one run share. Runs of other machines or times are never mixed with it."""
    run = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {"format": FORMAT, "experiment": experiment, "run": run, "source": source, "machine": machine()}


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), model)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "pyhmmer": version("pyhmmer"),
        "commit": commit.stdout.strip() or "unknown",
    }


def measure(
    queries: Mapping[str, str],
    databases: Sequence[Database],
    *,
    engine: str = "pyhmmer",
    engine_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """One search without a cache: seconds of wall clock, CPU seconds of this process and of its workers, all
    tasks, and a digest of all rows found. A search that fails is a record too."""
    record: dict[str, Any] = {
        "engine": engine,
        "engine_options": dict(engine_options or {}),
        "schedule": "longest-first",
        "executor": "processes",
        **options,
        "queries": len(queries),
        "lengths": sorted(map(len, queries.values())),
        "databases": {database.name: database.bytes for database in databases},
        "load": os.getloadavg()[0],
    }
    try:
        chosen = make_engine(engine, **record["engine_options"])
        record["called"] = time.time()
        own, workers, wall = time.process_time(), _children_seconds(), time.perf_counter()
        found = search(queries, databases, engine=chosen, cache=None, **options)
    except ParafoldError as error:
        return record | {"error": str(error)}
    record["wall_seconds"] = time.perf_counter() - wall
    record["cpu_seconds"] = time.process_time() - own
    record["worker_cpu_seconds"] = _children_seconds() - workers
    record["steps"] = dict(found.seconds)
    rows = hashlib.sha256()
    for name in queries:
        for database, msa in sorted(found.by_database(name).items()):
            rows.update("\n".join([name, database, *msa.sequences]).encode())
    record["rows_sha256"] = rows.hexdigest()
    record["tasks"] = {column: [getattr(t, column) for t in found.tasks] for column in _COLUMNS}
    for column in ("started", "cpu_seconds", "wall_seconds"):
        record["tasks"][column] = [round(seconds, 6) for seconds in record["tasks"][column]]
    return record


def measure_program(queries: Mapping[str, str], databases: Sequence[Database], cpu: int) -> dict[str, Any]:
    """The jackhmmer program as AlphaFold runs it, one query and database after the other, without anything of
    parafold around it: seconds of wall clock and CPU seconds."""
    record: dict[str, Any] = {
        "engine": f"jackhmmer --cpu {cpu}, started directly",
        "queries": len(queries),
        "lengths": sorted(map(len, queries.values())),
        "databases": {database.name: database.bytes for database in databases},
        "load": os.getloadavg()[0],
    }
    filters = ["--F1", "0.0005", "--F2", "5e-05", "--F3", "5e-07", "--incE", "0.0001", "-E", "0.0001"]
    flags = ["-N", "1", *filters, "--cpu", str(cpu), "--noali", "-o", os.devnull, "-A"]
    with tempfile.TemporaryDirectory() as folder:
        query, out = Path(folder) / "query.fasta", Path(folder) / "out.sto"
        workers, wall = _children_seconds(), time.perf_counter()
        for name, sequence in queries.items():
            query.write_text(f">{name}\n{sequence}\n")
            for database in databases:
                subprocess.run(["jackhmmer", *flags, out, query, database.path], check=True)
        record["wall_seconds"] = time.perf_counter() - wall
        record["worker_cpu_seconds"] = _children_seconds() - workers
    return record | {"cpu_seconds": 0.0}


def tasks_of(record: Mapping[str, Any]) -> list[TaskRecord]:
    """The tasks of a measured search."""
    columns = record["tasks"]
    rows = zip(*(columns[column] for column in _COLUMNS), strict=True)
    return [TaskRecord(task=n, **dict(zip(_COLUMNS, row, strict=True))) for n, row in enumerate(rows)]


def append(record: Mapping[str, Any], path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        log.write(json.dumps(record, separators=(",", ":")) + "\n")


def last_run(experiment: str, path: Path = RESULTS) -> list[dict[str, Any]]:
    """The records of the latest run of an experiment; none where it never ran."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [record for line in lines if (record := json.loads(line))["experiment"] == experiment]
    return [record for record in records if record["run"] == records[-1]["run"]]


def median(records: Iterable[Mapping[str, Any]], key: str = "wall_seconds") -> float:
    """Of one case's repeats; NaN where all failed."""
    values = [record[key] for record in records if key in record]
    return statistics.median(values) if values else float("nan")


def critical_path(record: Mapping[str, Any], *, overheads: bool = True) -> float:
    """CPU seconds of the busiest worker and, with `overheads`, of a worker's start and of the parent: what
    the search would take had each process a processor of its own."""
    load: dict[str, float] = {}
    for task in tasks_of(record):
        load[task.worker] = load.get(task.worker, 0.0) + task.cpu_seconds
    busiest = max(load.values(), default=0.0)
    if not overheads:
        return busiest
    if record["executor"] == "serial":
        return record["cpu_seconds"]
    start = max(0.0, record["worker_cpu_seconds"] - sum(load.values())) / record["workers"]
    return record["cpu_seconds"] + start + busiest


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
