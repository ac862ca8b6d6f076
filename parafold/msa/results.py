"""What one task found: a sealed file with a line of hits for each query and block, a summary as its end."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from parafold.msa.engines.base import Chunk, Domain, Hit
from parafold.msa.sealed import DamagedError, SealedWriter, last_line


@dataclass(frozen=True)
class TaskRecord:
    """What a finished task was and took. `started` is in seconds since the epoch, `cpu_seconds` count the
    programs that it started, `peak_bytes` is the greatest resident memory that its process had until then.
    `oddities` counts what is odd about the database but was searched all the same."""

    task: int
    database: str
    bytes: int
    queries: int
    query_residues: int
    sequences: int
    residues: int
    started: float
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    worker: str
    oddities: Mapping[str, int] = field(default_factory=dict)


class ResultWriter:
    """Collects the chunks of one task in a file that is there when it is complete. `plan` is the plan's key.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self._file = SealedWriter(path)
        self._plan = plan
        self._segments: list[tuple[int, int, int, int]] = []
        self.sequences = 0
        self.residues = 0
        self.oddities: Counter[str] = Counter()

    def add(self, chunk: Chunk) -> None:
        self.sequences += chunk.sequences
        self.residues += chunk.residues
        self.oddities.update(chunk.oddities)
        for query, hits in chunk.hits.items():
            line = json.dumps(hits, separators=(",", ":")).encode() + b"\n"
            self._segments.append((query, self._file.position, len(line), zlib.crc32(line)))
            self._file.write(line)

    def finish(self, record: TaskRecord) -> None:
        summary = {"plan": self._plan, "segments": self._segments, "record": asdict(record)}
        self._file.write(json.dumps(summary, separators=(",", ":")).encode() + b"\n")

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.__exit__(kind, error, trace)


class Result:
    """A finished task's result. Only its index is held in memory.

    With `plan`, the plan's key, it must be a result of that plan: another one's tasks have the same numbers.

    Raises:
        DamagedError: the file is not what the task wrote.
    """

    def __init__(self, path: Path, plan: str | None = None) -> None:
        self._path = path
        self._segments: dict[int, list[tuple[int, int, int]]] = {}
        try:
            summary = json.loads(last_line(path))
            for query, *segment in summary["segments"]:
                start, length, checksum = segment
                self._segments.setdefault(query, []).append((start, length, checksum))
            self.record = TaskRecord(**summary["record"])
            made_for = summary["plan"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path}: is no result of this version; it will be made again") from error
        if plan not in (None, made_for):
            raise DamagedError(f"{path}: belongs to another plan; it will be made again")

    def hits(self, query: int) -> Iterator[Hit]:
        """The hits of one query.

        Raises:
            DamagedError: the file has changed since it was opened.
        """
        if query not in self._segments:
            return
        try:
            with self._path.open("rb") as file:
                for start, length, checksum in self._segments[query]:
                    file.seek(start)
                    line = file.read(length)
                    if zlib.crc32(line) != checksum:
                        raise DamagedError(f"{self._path}: has changed since it was made; search again")
                    for name, score, evalue, first, domains in json.loads(line):
                        yield Hit(name, score, evalue, first, tuple(Domain(*domain) for domain in domains))
        except OSError as error:
            raise DamagedError(f"{self._path}: cannot be read any more; search again") from error
