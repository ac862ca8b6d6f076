"""A search cut into tasks, kept in a folder that every worker on every machine can read.

plan.json       queries, databases, engines, tasks; sealed by its digest
prepared/       what each engine made of the queries, once
tasks/          one complete result file for each finished task
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from parafold.errors import SearchError
from parafold.msa import shards as cutting
from parafold.msa.database import Database
from parafold.msa.engines import Engine, make_engine
from parafold.msa.sealed import DamagedError, read_sealed, write_sealed
from parafold.msa.shards import Shard

Schedule = Literal["longest-first", "static"]
SCHEDULES: tuple[Schedule, ...] = ("longest-first", "static")

FORMAT = 1
# Enough tasks that the last ones to finish leave little idle time.
TASKS_PER_WORKER = 16
MAX_SHARD_BYTES = 256_000_000
# A task costs a few milliseconds beside its work.
_MIN_TASK_SECONDS = 0.05
# The profiles of one task's queries stay below about 50 MB, and an eighth of the worker's memory.
_MAX_QUERY_RESIDUES = 100_000
_QUERY_RESIDUE_BYTES = 500
# CPU seconds by measurement, on one core: reading a byte of FASTA; comparing a residue with a query, plus
# with each of its residues. They set the order and the sizes of tasks, not what is found.
_READ, _COMPARE, _COMPARE_RESIDUE = 4e-9, 2e-9, 4e-11


@dataclass(frozen=True)
class Task:
    """Some queries against one shard; `cost` is the estimated CPU time in seconds."""

    number: int
    database: int
    shard: Shard
    queries: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class Plan:
    """All of a search.

    Attributes:
        names: each query's name -> its number; names of one sequence share a number.
        sequences: by query number.
        databases, engines: which engine (name, options) searches each database.
        file_bytes: path -> size of each database file: workers refuse one that has changed.
        memory: what a worker may use, in bytes.
        shards: into how many each database was to be cut, None if that was left to the plan.
        tasks: by number; `order` says which to start first.
    """

    names: Mapping[str, int]
    sequences: tuple[str, ...]
    databases: tuple[Database, ...]
    engines: tuple[tuple[str, Mapping[str, Any]], ...]
    file_bytes: Mapping[str, int]
    memory: int
    shards: int | None
    schedule: Schedule
    tasks: tuple[Task, ...]

    @property
    def order(self) -> list[int]:
        """Task numbers, first to be started first: what cannot be split, then the longest; the static
        schedule keeps the order in which the databases were given."""
        if self.schedule == "static":
            return [task.number for task in self.tasks]
        splits = [self.engine(index).can_split for index in range(len(self.databases))]
        return [t.number for t in sorted(self.tasks, key=lambda task: (splits[task.database], -task.cost))]

    @cached_property
    def key(self) -> str:
        """A digest of all that decides what each task finds: results carry it."""
        tasks = [[str(task.shard.path), *task.shard[1:], task.database, task.queries] for task in self.tasks]
        content = [self.sequences, self.engines, self.file_bytes, tasks]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def engine(self, database: int) -> Engine:
        name, options = self.engines[database]
        return make_engine(name, **options)

    def share(self, index: int, of: int) -> list[int]:
        """The tasks of worker `index` of `of`, when nobody hands them out: each task in order goes to the
        worker with the least work so far."""
        load = [0.0] * of
        mine = []
        for number in self.order:
            worker = load.index(min(load))
            load[worker] += self.tasks[number].cost
            if worker == index:
                mine.append(number)
        return mine

    def task_name(self, number: int) -> str:
        task = self.tasks[number]
        return f"{self.databases[task.database].name} bytes {task.shard.start}-{task.shard.end}"

    def save(self, folder: Path) -> None:
        """Write the plan's file; the folder then is a plan.

        Raises:
            OutputError: it cannot be written.
        """
        content = {"format": FORMAT, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
        content["databases"] = [_database_json(database) for database in self.databases]
        content["tasks"] = [[*task.shard, task.database, task.queries, task.cost] for task in self.tasks]
        text = json.dumps(
            content, default=lambda value: str(value) if isinstance(value, Path) else list(value)
        )
        write_sealed(folder / "plan.json", [text.encode()])

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Raises SearchError if the folder holds no plan, or a damaged one."""
        path = folder / "plan.json"
        if not path.is_file():
            raise SearchError(f"{folder}: holds no plan; make one with `parafold msa plan`")
        try:
            content = json.loads(read_sealed(path))
        except DamagedError as error:
            raise SearchError(f"{path}: is damaged or cannot be read; make the plan again") from error
        if content.pop("format", None) != FORMAT:
            raise SearchError(f"{path}: was made by another version of parafold; make the plan again")
        content["sequences"] = tuple(content["sequences"])
        content["databases"] = tuple(
            Database(**{**item, "path": Path(item["path"]), "also": tuple(map(Path, item["also"]))})
            for item in content["databases"]
        )
        content["engines"] = tuple((name, options) for name, options in content["engines"])
        content["tasks"] = tuple(
            Task(number, database, Shard(Path(path), start, end), tuple(queries), cost)
            for number, (path, start, end, database, queries, cost) in enumerate(content["tasks"])
        )
        return cls(**content)


def make_plan(
    names: Mapping[str, str],
    databases: Sequence[Database],
    engines: Sequence[Engine],
    *,
    memory: int,
    workers: int = 1,
    shards: int | None = None,
    schedule: Schedule = "longest-first",
    wanted: Mapping[int, Sequence[str]] | None = None,
) -> Plan:
    """Cut a search into tasks: at least `TASKS_PER_WORKER` for each worker where the databases are large
    enough for that, or `shards` for each database. The static schedule cuts nothing: one task for each
    database.

    `engines[i]` searches `databases[i]`; `wanted` limits a database (by index) to some of the sequences.

    Raises:
        SearchError: a database cannot be read, or `shards` asks for what the engine cannot do.
    """
    sequences = tuple(dict.fromkeys(names.values()))
    numbers = {sequence: number for number, sequence in enumerate(sequences)}
    asked = [
        [numbers[s] for s in (sequences if wanted is None else wanted.get(i, ()))]
        for i in range(len(databases))
    ]
    costs = [
        _cost(d.bytes, [sequences[q] for q in queries]) for d, queries in zip(databases, asked, strict=True)
    ]
    tasks: list[Task] = []
    for index, (database, engine) in enumerate(zip(databases, engines, strict=True)):
        if not asked[index]:
            continue
        if schedule == "static" or not engine.can_split:
            if shards is not None and shards > 1:
                _refuse_shards(engine, schedule)
            pieces = cutting.split(database, 1) if engine.can_split else [cutting.whole(database)]
        else:
            count = shards or _count(database, costs[index], sum(costs), workers)
            pieces = cutting.split(database, count)
        for shard in pieces:
            for batch in _batches(asked[index], sequences, engine, memory):
                cost = _cost(shard.bytes, [sequences[q] for q in batch])
                tasks.append(Task(len(tasks), index, shard, tuple(batch), cost))
    return Plan(
        names={name: numbers[sequence] for name, sequence in names.items()},
        sequences=sequences,
        databases=tuple(databases),
        engines=tuple((engine.name, dict(engine.options)) for engine in engines),
        file_bytes={str(file): file.stat().st_size for d in databases for file in d.files},
        memory=memory,
        shards=shards,
        schedule=schedule,
        tasks=tuple(tasks),
    )


def estimated_seconds(databases: Iterable[Database], sequences: Sequence[str]) -> float:
    """The CPU time that a search for all the sequences will take, roughly.

    Raises:
        SearchError: a database cannot be read.
    """
    return sum(_cost(database.bytes, sequences) for database in databases)


def result_path(folder: Path, number: int) -> Path:
    """Where the result of a task stands once it is complete."""
    return folder / "tasks" / f"{number:05}.jsonl"


def _count(database: Database, cost: float, total: float, workers: int) -> int:
    fair = math.ceil(TASKS_PER_WORKER * workers * cost / total) if workers > 1 and total else 1
    worth = max(1, int(cost / _MIN_TASK_SECONDS))
    return max(min(fair, worth), math.ceil(database.bytes / MAX_SHARD_BYTES))


def _refuse_shards(engine: Engine, schedule: Schedule) -> None:
    if schedule == "static":
        raise SearchError("the static schedule searches whole databases; leave out the number of shards")
    raise SearchError(
        f"the engine {engine.name} cannot search parts of a database exactly; leave out the number of shards,"
        " or use the engine pyhmmer"
    )


def _batches(
    queries: Sequence[int], sequences: Sequence[str], engine: Engine, memory: int
) -> list[list[int]]:
    if not engine.batches:
        return [[query] for query in queries]
    most = min(_MAX_QUERY_RESIDUES, memory // (8 * _QUERY_RESIDUE_BYTES))
    batches: list[list[int]] = [[]]
    residues = 0
    for query in queries:
        residues += len(sequences[query])
        if residues > most and batches[-1]:
            batches.append([])
            residues = len(sequences[query])
        batches[-1].append(query)
    return batches


def _cost(size: int, sequences: Sequence[str]) -> float:
    return size * (_READ + sum(_COMPARE + _COMPARE_RESIDUE * len(sequence) for sequence in sequences))


def _database_json(database: Database) -> dict[str, Any]:
    return {
        **dataclasses.asdict(database),
        "path": str(database.path),
        "also": [str(p) for p in database.also],
    }
