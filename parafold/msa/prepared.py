"""What an engine made of the queries, once for all workers, who read of it what they need."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from parafold.errors import SearchError
from parafold.msa.sealed import DamagedError, SealedWriter, last_line


def save_prepared(folder: Path, engine: str, queries: Mapping[int, bytes]) -> None:
    """Keep what an engine made of the queries (by number) in a plan's folder.

    Raises:
        OutputError: it cannot be written.
    """
    with SealedWriter(_path(folder, engine)) as writer:
        index = []
        for query, data in queries.items():
            index.append((query, writer.position, len(data), zlib.crc32(data)))
            writer.write(data)
        writer.write(b"\n" + json.dumps(index).encode() + b"\n")


class Prepared:
    """What an engine made of the queries. Only its index is held in memory.

    Raises:
        SearchError: the plan's folder is damaged.
    """

    def __init__(self, folder: Path, engine: str) -> None:
        self._path = _path(folder, engine)
        try:
            index = json.loads(last_line(self._path))
            self._segments = {query: (start, size, checksum) for query, start, size, checksum in index}
        except (DamagedError, ValueError, TypeError) as error:
            raise self._damaged() from error

    def __getitem__(self, query: int) -> bytes:
        start, size, checksum = self._segments[query]
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise self._damaged() from error
        if zlib.crc32(data) != checksum:
            raise self._damaged()
        return data

    def _damaged(self) -> SearchError:
        return SearchError(f"{self._path}: is damaged or cannot be read; make the plan again")


def _path(folder: Path, engine: str) -> Path:
    return folder / "prepared" / engine
