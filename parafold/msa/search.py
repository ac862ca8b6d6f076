"""The search: queries and databases to alignments, over many processes or machines, resumable and cached."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parafold import files
from parafold.errors import OutputError, SearchError
from parafold.machine import physical_memory, usable_cpus
from parafold.msa.alignment import Alignment, SearchResults
from parafold.msa.cache import Cache, cache_key, default_cache
from parafold.msa.database import Database, in_published_order
from parafold.msa.engines import Engine, make_engine
from parafold.msa.execute import Progress, execute, finished, merge
from parafold.msa.executors import Executor, make_executor
from parafold.msa.fingerprint import fingerprint
from parafold.msa.plan import (
    SCHEDULES,
    Plan,
    Schedule,
    estimated_seconds,
    make_plan,
)
from parafold.msa.prepared import Prepared, save_prepared
from parafold.msa.registry import resolve
from parafold.msa.results import Result, TaskRecord
from parafold.msa.sealed import DamagedError
from parafold.msa.unpack import unpacked
from parafold.msa.work_folder import locked, temporary_folder

Databases = str | Path | Database | Mapping[str, str | Path] | Sequence[str | Path | Database]
# A query's sequence and the index of a database.
_Pair = tuple[str, int]

# Less work than this is not worth a process of its own.
_SECONDS_PER_WORKER = 1.0
# Of this the interpreter and its libraries take 100 MB, a block of a database and its hits 50.
MIN_MEMORY = 200 * 10**6
# What the machine's other processes keep.
_MEMORY_SHARE = 0.8
# Stands for `cache.default_cache()`.
DEFAULT_CACHE = Path("~/.cache/parafold/msa")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def search(
    queries: Mapping[str, str],
    databases: Databases,
    *,
    engine: str | Engine = "pyhmmer",
    workers: int | None = None,
    executor: str | Executor = "processes",
    shards: int | None = None,
    schedule: Schedule = "longest-first",
    cache: str | Path | None = DEFAULT_CACHE,
    max_hits: int | Mapping[str, int | None] | None = None,
    max_memory: int | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = _warn,
    on_error: Callable[[str, SearchError], None] | None = None,
) -> SearchResults:
    """Search for all queries in all databases: query name -> MSA.

    Args:
        queries: name -> sequence.
        databases: a folder, a file, a registered name, or several of them; or name -> path.
        engine: `pyhmmer`, `jackhmmer`, `hhblits`, `mmseqs` or `needleman-wunsch`. HH-suite databases are
            searched with hhblits, whatever the engine of the others.
        workers: how many processes or jobs; as many as there are cores by default, fewer for little work.
        executor: `serial`, `processes`, `ray`, `slurm`, or an `Executor`.
        shards: into how many parts each database is cut; what is found does not depend on it.
        schedule: `longest-first`, or `static`: one task for each whole database, in the order given.
        cache: folder of finished alignments and unfinished work; None for neither.
        max_hits: limit on the rows of each alignment, the query among them, or database name -> limit (None:
            no limit). By default each database's own.
        max_memory: bytes that a worker may use; by default the workers share the machine's memory.
        progress: called whenever something has been done.
        warn: called with what stops nothing but is worth knowing; Python's warnings by default.
        on_error: called with a query's name and error where it cannot be searched for; without it, raised.

    Raises:
        SearchError: no database, a database or query that cannot be searched, an engine that is missing.
        OutputError: the cache cannot be written. What was finished is kept; the same call goes on from there.
    """
    work = Search(
        queries,
        databases,
        engine=engine,
        shards=shards,
        schedule=schedule,
        cache=cache,
        max_hits=max_hits,
        max_memory=max_memory,
        progress=progress,
        warn=warn,
        on_error=on_error,
    )
    found = dict(work.run(executor, workers))
    alignments = {name: found[name] for name in queries if name in found}
    return SearchResults(alignments, work.tasks, work.seconds)


class Search:
    """A search in steps, for those who take alignments as they come, or plan here and run elsewhere.

    The arguments are those of `search`.

    Attributes:
        queries: name -> sequence.
        databases: in the order in which their alignments are stacked.
        tasks, seconds: see `SearchResults`; they grow while the search runs.

    Raises:
        SearchError: no database, one that cannot be searched, or an engine that is not installed.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        databases: Databases,
        *,
        engine: str | Engine = "pyhmmer",
        shards: int | None = None,
        schedule: Schedule = "longest-first",
        cache: str | Path | None = DEFAULT_CACHE,
        max_hits: int | Mapping[str, int | None] | None = None,
        max_memory: int | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
        warn: Callable[[str], None] = _warn,
        on_error: Callable[[str, SearchError], None] | None = None,
    ) -> None:
        if shards is not None and shards < 1:
            raise SearchError(f"{shards} shards; give 1 or more")
        if schedule not in SCHEDULES:
            raise SearchError(f"no schedule {schedule!r}; the schedules are {', '.join(SCHEDULES)}")
        self.queries = {name: sequence.upper() for name, sequence in queries.items()}
        self._names: dict[str, list[str]] = {}
        for name, sequence in self.queries.items():
            self._names.setdefault(sequence, []).append(name)
        given = _limited(_resolved(databases, warn), max_hits)
        # The order in which databases are given is what the static schedule is about.
        self.databases = given if schedule == "static" else in_published_order(given)
        chosen = make_engine(engine) if isinstance(engine, str) else engine
        self._engines = [_engine_for(database, chosen) for database in self.databases]
        self._fingerprints = [fingerprint(database) for database in self.databases]
        self._shards = shards
        self._schedule: Schedule = schedule
        self._cache = (
            _default_cache(warn) if cache == DEFAULT_CACHE else Cache(Path(cache)) if cache else None
        )
        if max_memory is not None and max_memory < MIN_MEMORY:
            raise SearchError(
                f"max_memory is {max_memory / 1e6:.0f} MB; give workers {MIN_MEMORY // 10**6} MB or more"
            )
        self._memory = max_memory
        self._progress = progress
        self._warn = warn
        self._on_error = on_error
        self.tasks: list[TaskRecord] = []
        self.seconds: dict[str, float] = {}

    def run(
        self, executor: str | Executor = "processes", workers: int | None = None
    ) -> Iterator[tuple[str, dict[str, Alignment]]]:
        """Yields each query's name with its alignments (database name -> alignment), first of those queries
        that are in the cache.

        Raises:
            SearchError, OutputError: see `search`.
        """
        pairs = list(itertools.product(self._names, range(len(self.databases))))
        with contextlib.ExitStack() as stack:
            cache = self._cache or Cache(stack.enter_context(temporary_folder()))
            folder = cache.folder / "work" / self._identity()
            missing = self._missing(cache, pairs)
            if missing:
                # Another process may be at the same search: wait, then take what it found.
                stack.enter_context(locked(folder, self._warn))
                missing = self._missing(cache, missing)
            lacking = {sequence for sequence, _ in missing}
            ready = [name for name, sequence in self.queries.items() if sequence not in lacking]
            if ready:
                self._say("found before", {}, len(ready) / len(self.queries), len(ready))
            for name in ready:
                yield name, self._alignments(self.queries[name], cache)
            if missing:
                if executor == "slurm" and self._cache is None:
                    raise SearchError("Slurm's nodes must see the work: name a cache folder that they share")
                crew = stack.enter_context(self._crew(executor, workers, missing))
                yield from self._find(missing, cache, folder, crew, len(ready))
                shutil.rmtree(folder, ignore_errors=True)

    def plan(self, folder: str | Path, workers: int) -> Plan:
        """Cut the whole search into tasks for `workers` workers and write them to a folder, to be done by
        `parafold msa worker` wherever the folder and the databases are seen, and merged by `merge`.

        Raises:
            SearchError: the folder holds another plan, or a query cannot be searched for.
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        pairs = list(itertools.product(self._names, range(len(self.databases))))
        if (folder / "plan.json").exists():
            raise SearchError(f"{folder}: holds a plan already; choose another folder, or remove this one")
        return self._planned(pairs, folder, folder / "databases", workers)

    def _find(
        self, missing: list[_Pair], cache: Cache, folder: Path, crew: Executor, done: int
    ) -> Iterator[tuple[str, dict[str, Alignment]]]:
        with self._timed("plan"):
            plan = self._resumed(missing, folder)
            crew.start(folder)
            if plan is None:
                plan = self._planned(
                    missing, folder, cache.folder / "databases", crew.workers or usable_cpus()
                )

        def report(parts: Mapping[str, float], fraction: float, seconds_left: float | None) -> None:
            self._say("searching", parts, fraction, done, seconds_left)

        with self._timed("search"):
            results = finished(folder, plan, self._warn)
            before = set(results)
            execute(folder, plan, crew, results, report)
        self._check_unchanged()
        self._warn_of_oddities(results.values())
        self.tasks += [result.record for number, result in sorted(results.items()) if number not in before]
        parts = {database.name: 1.0 for database in self.databases}
        numbers = {sequence: number for number, sequence in enumerate(plan.sequences)}
        for sequence, pairs in itertools.groupby(missing, key=lambda pair: pair[0]):
            if sequence not in numbers:
                continue
            with self._timed("merge"):
                fresh = {index: merge(plan, results, numbers[sequence], index) for _, index in pairs}
                for index, alignment in fresh.items():
                    cache.put(self._key(sequence, index), alignment)
                alignments = self._alignments(sequence, cache, fresh)
            for name in self._names[sequence]:
                done += 1
                self._say("merging", parts, 1.0, done)
                yield name, alignments

    def _resumed(self, missing: list[_Pair], folder: Path) -> Plan | None:
        """The plan of a run that was broken off, if it serves."""
        if not (folder / "plan.json").exists():
            return None
        try:
            plan = Plan.load(folder)
            for name, _ in plan.engines:
                Prepared(folder, name)
        except SearchError:
            self._warn(f"{folder}: the plan of the unfinished search is damaged; it starts again")
            return None
        if self._shards not in (None, plan.shards):
            return None
        covered = {(plan.sequences[query], task.database) for task in plan.tasks for query in task.queries}
        lacking = [pair for pair in missing if pair not in covered]
        refused = {
            sequence: error for sequence, index in lacking if (error := self._refusal(sequence, index))
        }
        if any(sequence not in refused for sequence, _ in lacking):
            return None
        for sequence, error in refused.items():
            self._refuse(sequence, error)
        if self._memory is not None and self._memory != plan.memory:
            plan = dataclasses.replace(plan, memory=self._memory)
            plan.save(folder)
        return plan

    def _planned(self, pairs: list[_Pair], folder: Path, unpacking: Path, workers: int) -> Plan:
        """A new plan in the folder, without the queries that cannot be searched for."""
        prepared: dict[str, dict[str, bytes]] = {engine.name: {} for engine in self._engines}
        wanted: dict[int, list[str]] = {index: [] for _, index in pairs}
        names: dict[str, str] = {}
        for sequence, some in itertools.groupby(pairs, key=lambda pair: pair[0]):
            indices = [index for _, index in some]
            try:
                for engine in {self._engines[index].name: self._engines[index] for index in indices}.values():
                    prepared[engine.name][sequence] = engine.prepare(sequence)
            except SearchError as error:
                self._refuse(sequence, error)
                continue
            names |= dict.fromkeys(self._names[sequence], sequence)
            for index in indices:
                wanted[index].append(sequence)
        databases = [
            unpacked(database, unpacking) if index in wanted else database
            for index, database in enumerate(self.databases)
        ]
        plan = make_plan(
            names,
            databases,
            self._engines,
            wanted=wanted,
            memory=self._memory or max(MIN_MEMORY, int(_MEMORY_SHARE * physical_memory() / workers)),
            workers=workers,
            shards=self._shards,
            schedule=self._schedule,
        )
        # An earlier plan has other numbers for queries and tasks: it goes before anything of this one comes.
        (folder / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "tasks", ignore_errors=True)
        for name, queries in prepared.items():
            numbered = {number: queries[s] for number, s in enumerate(plan.sequences) if s in queries}
            save_prepared(folder, name, numbered)
        plan.save(folder)
        return plan

    def _refusal(self, sequence: str, index: int) -> SearchError | None:
        """Why a database's engine cannot search for a sequence, if so."""
        try:
            self._engines[index].prepare(sequence)
        except SearchError as error:
            return error
        return None

    def _refuse(self, sequence: str, error: SearchError) -> None:
        for name in self._names[sequence]:
            if self._on_error is None:
                raise SearchError(f"{name}: {error}") from error
            self._on_error(name, error)

    def _crew(self, executor: str | Executor, workers: int | None, missing: list[_Pair]) -> Executor:
        if workers is not None and workers < 1:
            raise SearchError(f"{workers} workers; give 1 or more")
        if executor == "processes" and workers is None:
            work = sum(estimated_seconds([self.databases[index]], [sequence]) for sequence, index in missing)
            workers = min(usable_cpus(), math.ceil(work / _SECONDS_PER_WORKER))
            # This process keeps to no limit.
            if workers <= 1 and self._memory is None:
                executor = "serial"
        return make_executor(executor, workers)

    def _missing(self, cache: Cache, pairs: Iterable[_Pair]) -> list[_Pair]:
        """The pairs of which the cache has no alignment, or a damaged one."""
        missing = []
        for pair in pairs:
            try:
                if cache.get(self._key(*pair)) is None:
                    missing.append(pair)
            except DamagedError as error:
                self._warn(str(error))
                missing.append(pair)
        return missing

    def _check_unchanged(self) -> None:
        """What was found in a database that changed meanwhile must not be taken for either."""
        for database, before in zip(self.databases, self._fingerprints, strict=True):
            if change := before.difference(fingerprint(database)):
                raise SearchError(f"{database.path}: changed while it was searched ({change}); search again")

    def _warn_of_oddities(self, results: Iterable[Result]) -> None:
        counts: dict[str, Counter[str]] = {}
        for record in [result.record for result in results]:
            counts.setdefault(record.database, Counter()).update(record.oddities)
        for database, oddities in counts.items():
            if said := ", ".join(f"{count:,} {oddity}" for oddity, count in oddities.items() if count):
                self._warn(f"database {database} holds {said}; they were searched as they are")

    def _alignments(
        self, sequence: str, cache: Cache, fresh: Mapping[int, Alignment] | None = None
    ) -> dict[str, Alignment]:
        """Database name -> alignment: those just found, the others from the cache."""
        alignments = {}
        for index, database in enumerate(self.databases):
            alignment = (fresh or {}).get(index) or cache.get(self._key(sequence, index))
            if alignment is None:
                raise SearchError(f"{cache.folder}: an alignment has disappeared from it; search again")
            # Another name may stand in the cache: it has no part in what is found.
            alignments[database.name] = dataclasses.replace(
                alignment, database=database.name, kind=database.kind
            )
        # The static schedule searches in another order, but stacks alike.
        return {database.name: alignments[database.name] for database in in_published_order(self.databases)}

    def _key(self, sequence: str, index: int) -> str:
        return cache_key(sequence, *self._conditions[index])

    @functools.cached_property
    def _conditions(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Of each database, what decides an alignment beside the query."""
        return [
            (
                {"name": engine.name, "version": engine.version, "parameters": dict(engine.parameters)},
                {"fingerprint": print_.key, "max_hits": database.max_hits, "z": database.z},
            )
            for database, engine, print_ in zip(
                self.databases, self._engines, self._fingerprints, strict=True
            )
        ]

    def _identity(self) -> str:
        """The same for two runs of one search, whatever part of it the cache holds by then."""
        content = [sorted(set(self.queries.values())), self._conditions, self._schedule]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def _say(
        self,
        doing: str,
        parts: Mapping[str, float],
        fraction: float,
        queries_done: int,
        seconds_left: float | None = None,
    ) -> None:
        self._progress(Progress(doing, parts, fraction, queries_done, len(self.queries), seconds_left))

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def _resolved(databases: Databases, warn: Callable[[str], None]) -> list[Database]:
    if isinstance(databases, Mapping):
        found = [Database(name, Path(path)) for name, path in databases.items()]
    else:
        found = resolve([databases] if isinstance(databases, str | Path | Database) else databases, warn=warn)
    if not found:
        raise SearchError("no database to search; name a folder that holds FASTA files")
    names = [database.name for database in found]
    for name in names:
        if names.count(name) > 1:
            raise SearchError(f"two databases are named {name}; give each its own name")
    # A plan is for processes in other folders too.
    return [
        dataclasses.replace(d, path=d.path.absolute(), also=tuple(path.absolute() for path in d.also))
        for d in found
    ]


def _limited(
    databases: Sequence[Database], max_hits: int | Mapping[str, int | None] | None
) -> list[Database]:
    if max_hits is None:
        return list(databases)
    if isinstance(max_hits, int):
        return [dataclasses.replace(database, max_hits=max_hits) for database in databases]
    if unknown := set(max_hits).difference(database.name for database in databases):
        raise SearchError(f"max_hits names {', '.join(sorted(unknown))}, which is none of the databases")
    return [dataclasses.replace(d, max_hits=max_hits.get(d.name, d.max_hits)) for d in databases]


def _engine_for(database: Database, chosen: Engine) -> Engine:
    engine = make_engine("hhblits") if database.format == "hhsuite" else chosen
    engine.check(database)
    return engine


def _default_cache(warn: Callable[[str], None]) -> Cache | None:
    """The user's, unless nothing can be written there, which nobody asked for either."""
    try:
        return Cache(files.make_folder(default_cache()))
    except OutputError as error:
        warn(f"{error}; this search is not kept")
        return None
