"""Shards: record-aligned byte ranges of FASTA files, searched without being copied."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from parafold.errors import SearchError
from parafold.msa.database import Database, file_size

_STEP = 1 << 16


class Shard(NamedTuple):
    """The records of a FASTA file whose '>' stands from byte `start` to before byte `end`. A database that
    cannot be split is one shard: `path` is the database's, `start` is 0, `end` its size."""

    path: Path
    start: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.start


def whole(database: Database) -> Shard:
    """The database as one piece."""
    return Shard(database.path, 0, database.bytes)


def split(database: Database, count: int) -> list[Shard]:
    """Cut an unpacked FASTA database into about `count` shards of about equal size, none across two files.

    A record is never cut: there are fewer shards where records are few. The work is `count` short reads,
    however large the files.

    Raises:
        SearchError: a file cannot be read.
    """
    total = max(database.bytes, 1)
    shards: list[Shard] = []
    for file in database.files:
        size = file_size(file)
        pieces = max(1, round(count * size / total))
        edges = {0, size, *(_record_at(file, size * piece // pieces) for piece in range(1, pieces))}
        shards += [Shard(file, start, end) for start, end in pairwise(sorted(edges))] or [
            Shard(file, 0, size)
        ]
    return shards


def _record_at(path: Path, position: int) -> int:
    """Where the first record starts whose '>' is at or after `position`; the file's size if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(position - 1)
            tail, at = b"", position - 1
            while block := file.read(_STEP):
                found = (tail + block).find(b"\n>")
                if found >= 0:
                    return at - len(tail) + found + 1
                at += len(block)
                tail = block[-1:]
            return at
    except OSError as error:
        raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error
