"""Homology search of one query or many against FASTA databases."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

from parafold.errors import SearchError
from parafold.msa.database import Block, Database, read_blocks
from parafold.msa.hmmer import Hit, Query, merge
from parafold.protein.alignment import Msa, parse_a3m

# Called with a database's name and how much of it has been searched, 0 to 1.
Progress = Callable[[str, float], None]

# What Easel's bookkeeping takes for each sequence beside its residues, in bytes (measured).
_SEQUENCE_OVERHEAD = 800


@dataclass
class _Kept:
    """A database's blocks, kept in memory for the next query."""

    blocks: list[Block] = field(default_factory=list)
    complete: bool = False


class Searcher:
    """Searches many queries against the same databases.

    Databases that fit into `memory` bytes together (a quarter of the machine's memory unless given) are read
    once and kept; a larger one is read again for each query, in blocks, so that memory stays bounded.
    Threads share the work: HMMER runs outside the interpreter lock. Use it as a context manager.

    Raises:
        SearchError: no database, or two of one name.
    """

    def __init__(
        self, databases: list[Database], *, cpus: int | None = None, memory: int | None = None
    ) -> None:
        if not databases:
            raise SearchError("no database to search; name a folder that holds FASTA files")
        names = [database.name for database in databases]
        for name in names:
            if names.count(name) > 1:
                raise SearchError(f"two databases are named {name}; give each its own name")
        self.databases = list(databases)
        self._cpus = max(1, cpus or _usable_cpus())
        self._memory = _physical_memory() // 4 if memory is None else memory
        self._kept = {name: _Kept() for name in names}
        self._used = 0
        self._too_large: set[str] = set()
        self._threads = ThreadPoolExecutor(self._cpus, thread_name_prefix="search")

    def search(self, sequence: str, progress: Progress | None = None) -> dict[str, Msa]:
        """One alignment for each database, in query coordinates: the query first, then the hits as jackhmmer
        orders them, cut to the published number of rows. Residues inserted between two columns are counted in
        `Msa.deletions` at the column after them.

        Raises:
            SearchError: the query cannot be searched for, or a database cannot be read; naming file and line.
        """
        query = Query(sequence)
        return {database.name: self._search(query, database, progress) for database in self.databases}

    def close(self) -> None:
        """Stop the threads and let go of the databases."""
        self._threads.shutdown(cancel_futures=True)
        self._kept.clear()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, query: Query, database: Database, progress: Progress | None) -> Msa:
        running: deque[tuple[float, Future[list[Hit]]]] = deque()
        hits: list[Hit] = []
        size = 0

        def finish_one() -> None:
            fraction, future = running.popleft()
            hits.extend(future.result())
            if progress:
                progress(database.name, fraction)

        try:
            for block in self._blocks(database):
                size += len(block.sequences)
                running.append((block.fraction, self._threads.submit(query.search, block.sequences)))
                # Blocks that wait take memory: two for each thread keep all of them busy.
                if len(running) >= 2 * self._cpus:
                    finish_one()
            while running:
                finish_one()
        except SearchError as error:
            if str(database.path) in str(error):
                raise
            raise SearchError(f"{database.path}: {error}") from error
        finally:
            for _, future in running:
                future.cancel()
        if progress:
            progress(database.name, 1.0)
        return _alignment(query.sequence, merge(hits, size), database.max_hits)

    def _blocks(self, database: Database) -> Iterator[Block]:
        kept = self._kept[database.name]
        if kept.complete:
            yield from kept.blocks
            return
        # A reading that was broken off may have left a part behind.
        self._forget(kept)
        for block in read_blocks(database):
            if database.name not in self._too_large:
                kept.blocks.append(block)
                self._used += _bytes(block)
                if self._used > self._memory:
                    self._forget(kept)
                    self._too_large.add(database.name)
            yield block
        kept.complete = database.name not in self._too_large

    def _forget(self, kept: _Kept) -> None:
        self._used -= sum(_bytes(block) for block in kept.blocks)
        kept.blocks.clear()


def search(
    sequence: str, databases: list[Database], *, cpus: int | None = None, progress: Progress | None = None
) -> dict[str, Msa]:
    """Search one query: database name -> alignment, the query first. For many queries use a `Searcher`, which
    reads the databases once.

    Raises:
        SearchError: see `Searcher` and `Searcher.search`.
    """
    with Searcher(databases, cpus=cpus, memory=0) as searcher:
        return searcher.search(sequence, progress)


def _alignment(query: str, rows: list[tuple[str, str]], max_rows: int | None) -> Msa:
    a3m = "".join(f">{name}\n{row}\n" for name, row in [("query", query), *rows][:max_rows])
    return parse_a3m(a3m, "search result")


def _bytes(block: Block) -> int:
    return block.sequences.total_length() + _SEQUENCE_OVERHEAD * len(block.sequences)


def _usable_cpus() -> int:
    """The cores this process may run on; macOS can only tell how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
