"""What an engine is, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from parafold.errors import SearchError
from parafold.msa.database import Database, Format
from parafold.msa.shards import Shard


class QueryError(SearchError):
    """An engine cannot search for one of its queries; `query` is its number."""

    def __init__(self, query: int, message: str) -> None:
        super().__init__(message)
        self.query = query


class Domain(NamedTuple):
    """One aligned stretch of a target: residues `start` to `end` (from 1), and its a3m row over the whole
    query. `evalue` is for a search space of one reported target where the engine's databases can be split."""

    evalue: float
    start: int
    end: int
    row: str


class Hit(NamedTuple):
    """One target that passed the engine's filters.

    `evalue` is for a database of one sequence where databases can be split, so that the parts of any
    partition merge exactly; otherwise it is the engine's own. `score` is in bits, unless the engine says
    otherwise.
    `start` is where the target's first domain starts; targets that are equal in all else stand in its order.
    """

    name: str
    score: float
    evalue: float
    start: int
    domains: tuple[Domain, ...]


class Row(NamedTuple):
    """One row of a finished alignment: a3m over the whole query, with lower-case insertions."""

    description: str
    row: str
    score: float
    evalue: float


@dataclass(frozen=True)
class Chunk:
    """What was found in some sequences of a shard: query number -> hits. `oddities` counts what is odd about
    the sequences but was searched all the same, in words."""

    sequences: int
    residues: int
    hits: Mapping[int, Sequence[Hit]] = field(default_factory=dict)
    oddities: Mapping[str, int] = field(default_factory=dict)


class Engine(ABC):
    """A way to search. Instances are cheap: worker processes make their own from `name` and `options`."""

    name: ClassVar[str]
    # Whether the hits of a database's parts merge into exactly those of the whole.
    can_split: ClassVar[bool]
    # Whether one run takes many queries at less than the cost of many runs.
    batches: ClassVar[bool] = True
    formats: ClassVar[tuple[Format, ...]] = ("fasta",)

    @property
    def options(self) -> Mapping[str, Any]:
        """What the constructor was given, JSON values only."""
        return {}

    @property
    @abstractmethod
    def version(self) -> str:
        """Of the program or library: results of another version are not taken from a cache.

        Raises:
            SearchError: it is not installed, with the ways to get it.
        """

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """Everything else that decides what is found, JSON values only: part of the cache's key."""

    def check(self, database: Database) -> None:
        """Raises SearchError where this engine cannot search the database, or is not installed."""
        _ = self.version
        if database.format not in self.formats:
            raise SearchError(
                f"database {database.name} ({database.path}) is in the format {database.format}, which the "
                f"engine {self.name} does not read; it reads {', '.join(self.formats)}"
            )

    def prepare(self, sequence: str) -> bytes:
        """What workers need of a query, made once.

        Raises:
            SearchError: the sequence cannot be searched for.
        """
        return sequence.encode()

    @abstractmethod
    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        """Search for prepared queries in a shard, in about `memory` bytes.

        Raises:
            SearchError: the database cannot be read, naming file and line; or the engine failed.
            QueryError: it failed for one of the queries.
        """

    @abstractmethod
    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """The rows of the alignment, without the query, in the engine's order. `hits` come from all shards in
        any order, `database_size` is the number of sequences."""
