"""Doing a plan's tasks, and merging what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from parafold.errors import SearchError
from parafold.msa.alignment import Alignment
from parafold.msa.executors import Executor
from parafold.msa.plan import Plan, result_path
from parafold.msa.results import Result
from parafold.msa.sealed import DamagedError


@dataclass(frozen=True)
class Progress:
    """How far a search has come.

    Attributes:
        doing: the step in words.
        databases: name -> fraction of its work that is done.
        fraction: of all the work.
        queries_done: queries whose alignments are complete, of `queries`.
        seconds_left: what the rest will take at the speed so far, None while that is unknown.
    """

    doing: str
    databases: Mapping[str, float]
    fraction: float
    queries_done: int
    queries: int
    seconds_left: float | None = None

    @property
    def time_left(self) -> str:
        """ "about 3 min left", as precise as such an estimate is; empty while nothing is known."""
        if self.seconds_left is None:
            return ""
        minutes = self.seconds_left / 60
        if minutes < 1:
            return "under a minute left"
        return f"about {minutes:.0f} min left" if minutes < 90 else f"about {minutes / 60:.1f} h left"


def execute(
    folder: Path,
    plan: Plan,
    executor: Executor,
    results: dict[int, Result],
    report: Callable[[Mapping[str, float], float, float | None], None],
) -> None:
    """Do the tasks of a plan that `results` (task number -> result) lacks, and add theirs.

    `report` is called with the fraction done of each database and of all, and the seconds the rest will take.

    Raises:
        SearchError: a task failed, or the executor cannot start.
        OutputError: a result cannot be written.
    """
    clock = _Clock(plan, results)
    report(clock.fractions(), clock.fraction(), None)
    missing = [number for number in plan.order if number not in results]
    if missing:
        for number in executor.run(folder, missing):
            results[number] = Result(result_path(folder, number), plan.key)
            clock.finished(number)
            report(clock.fractions(), clock.fraction(), clock.seconds_left())


def finished(folder: Path, plan: Plan, warn: Callable[[str], None]) -> dict[int, Result]:
    """The results that are complete and undamaged, by task number; damaged ones are removed."""
    results = {}
    for task in plan.tasks:
        path = result_path(folder, task.number)
        if path.exists():
            try:
                results[task.number] = Result(path, plan.key)
            except DamagedError as error:
                warn(str(error))
                path.unlink(missing_ok=True)
    return results


def merge(plan: Plan, results: Mapping[int, Result], query: int, database: int) -> Alignment:
    """The alignment of a query and a database, by number, from the results of all tasks.

    Raises:
        SearchError: a task's result is missing.
    """
    tasks = [task for task in plan.tasks if task.database == database and query in task.queries]
    lacking = [task.number for task in tasks if task.number not in results]
    if lacking:
        raise SearchError(
            f"{len(lacking)} of {len(tasks)} results of {plan.databases[database].name} are missing, that of "
            f"task {lacking[0]} first; let the workers finish, or start those again that were broken off"
        )
    source = plan.databases[database]
    size = source.z or sum(results[task.number].record.sequences for task in tasks)
    hits = (hit for task in tasks for hit in results[task.number].hits(query))
    rows = plan.engine(database).merge(plan.sequences[query], hits, size)
    # The limit counts the query.
    limit = None if source.max_hits is None else source.max_hits - 1
    return Alignment(plan.sequences[query], source.name, source.kind, size, rows[:limit])


def merged(plan: Plan, results: Mapping[int, Result]) -> Iterator[tuple[str, dict[str, Alignment]]]:
    """Each query's name with its alignments: database name -> alignment.

    Raises:
        SearchError: a task's result is missing.
    """
    for name, query in plan.names.items():
        yield (
            name,
            {
                database.name: merge(plan, results, query, index)
                for index, database in enumerate(plan.databases)
            },
        )


class _Clock:
    """Estimates, from the tasks' estimated costs and the time that the finished ones took."""

    def __init__(self, plan: Plan, done: Iterable[int]) -> None:
        self._plan = plan
        self._total = [0.0] * len(plan.databases)
        self._done = [0.0] * len(plan.databases)
        for task in plan.tasks:
            self._total[task.database] += task.cost
        for number in done:
            self.finished(number)
        self._before = sum(self._done)
        self._started = time.monotonic()

    def finished(self, number: int) -> None:
        task = self._plan.tasks[number]
        self._done[task.database] += task.cost

    def fractions(self) -> dict[str, float]:
        parts = zip(self._plan.databases, self._done, self._total, strict=True)
        return {database.name: min(1.0, done / total) for database, done, total in parts if total}

    def fraction(self) -> float:
        total = sum(self._total)
        return min(1.0, sum(self._done) / total) if total else 1.0

    def seconds_left(self) -> float | None:
        here = sum(self._done) - self._before
        left = max(0.0, sum(self._total) - sum(self._done))
        return left / here * (time.monotonic() - self._started) if here else None
