"""The jackhmmer program, one iteration with AlphaFold's flags: the yardstick of the engine pyhmmer.

A database is searched whole: the program prints scores to a tenth of a bit and E-values to two digits, too
few to merge the hits of parts into exactly those of the whole.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.engines.base import Chunk, Domain, Engine, Hit, Row
from parafold.msa.engines.pyhmmer import FILTERS, MAX_DOMAIN_EVALUE, MAX_EVALUE, checked
from parafold.msa.shards import Shard
from parafold.programs import program_version, run_program

_FLAGS = ["-N", "1", *(word for name, value in FILTERS.items() for word in (f"--{name}", str(value)))]
_FLAGS += ["--incE", str(MAX_EVALUE), "-E", str(MAX_EVALUE), "--noali", "--notextw", "--tformat", "fasta"]

_QUERY = b"query"
# In ASCII the bit in which a lower-case letter differs from its upper case; '-' has it, too.
_LOWER = 0x20
_TAIL_BYTES = 4096
_COUNTS = re.compile(rb"Target sequences: +(\d+) +\((\d+) residues searched\)")


class JackhmmerProgram(Engine):
    """HMMER's command-line program. It reads the database again for each query.

    The database is one FASTA file. Scores and E-values are those that the program prints; a domain's E-value
    is for the targets that it reported. `memory` bounds what the program may hold, its alignment too.

    Args:
        cpu: the program's worker threads; beyond one or two they hardly help, for one thread reads the file.
        timeout: seconds that one query may take.
    """

    name = "jackhmmer"
    can_split = False
    batches = False

    def __init__(self, cpu: int = 1, timeout: float | None = None) -> None:
        if cpu < 0:
            raise SearchError(f"engine {self.name}: cpu is {cpu}; give 0 or more threads")
        self.cpu = cpu
        self.timeout = timeout

    @property
    def options(self) -> Mapping[str, Any]:
        return {"cpu": self.cpu, "timeout": self.timeout}

    @property
    def version(self) -> str:
        return f"jackhmmer {program_version('jackhmmer')}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**FILTERS, "E": MAX_EVALUE, "incE": MAX_EVALUE, "incdomE": MAX_DOMAIN_EVALUE, "N": 1}

    def check(self, database: Database) -> None:
        super().check(database)
        _only_file(database)

    def prepare(self, sequence: str) -> bytes:
        return checked(sequence).encode()

    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        for index, (number, sequence) in enumerate(queries.items()):
            with tempfile.TemporaryDirectory(prefix="parafold-") as folder:
                sequences, residues, hits = self._run(Path(folder), sequence, database, memory)
            # The same sequences were searched for every query.
            yield Chunk(*((sequences, residues) if index == 0 else (0, 0)), {number: hits} if hits else {})

    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """In the program's order, which is that of `hits`."""
        return [
            Row(f"{hit.name}/{domain.start}-{domain.end}", domain.row, hit.score, hit.evalue)
            for hit in hits
            for domain in hit.domains
        ]

    def _run(self, folder: Path, query: bytes, database: Database, memory: int) -> tuple[int, int, list[Hit]]:
        """Sequences and residues searched, and the hits."""
        path = _only_file(database)
        query_path, printed, rows, table = (folder / name for name in ("query.fasta", "out", "sto", "table"))
        flags = [*_FLAGS, "--cpu", str(self.cpu), "-o", printed, "-A", rows, "--domtblout", table]
        if database.z is not None:
            flags += ["-Z", str(database.z)]
        try:
            query_path.write_bytes(b">%s\n%s\n" % (_QUERY, query))
            run_program(
                ["jackhmmer", *flags, query_path, path.absolute()],
                what=f"searching {path}",
                timeout=self.timeout,
                memory=memory,
                cwd=folder,
            )
            sequences, residues = _counts(printed)
            return sequences, residues, list(_hits(rows, table, len(query)))
        except (OSError, ValueError, IndexError) as error:
            raise SearchError(
                f"searching {path}: jackhmmer's output in {folder.parent} cannot be read ({error}); is the "
                "disk full, or the program not of version 3?"
            ) from error


class _Line(NamedTuple):
    """A line of the program's table of domains. Targets are counted, for two may have one name."""

    target: int
    name: str
    score: float
    evalue: float
    domain_evalue: float
    start: int
    end: int


def _hits(rows: Path, table: Path, length: int) -> Iterator[Hit]:
    """The targets that have rows in the alignment, in its order. Both files list domains in that order; the
    table also those that are not in the alignment."""
    _complete(table, b"# [ok]\n")
    lines = _table(table)
    found = ((_line_of(label, lines), row) for label, row in _rows(rows, length))
    for _, group in itertools.groupby(found, key=lambda pair: pair[0].target):
        domains = list(group)
        first = domains[0][0]
        yield Hit(
            first.name,
            first.score,
            first.evalue,
            first.start,
            tuple(Domain(line.domain_evalue, line.start, line.end, row) for line, row in domains),
        )


def _line_of(label: str, lines: Iterator[_Line]) -> _Line:
    for line in lines:
        if label == f"{line.name}/{line.start}-{line.end}":
            return line
    raise ValueError(f"the row {label} is not in its table of domains")


def _table(path: Path) -> Iterator[_Line]:
    target = -1
    with path.open("rb") as lines:
        for line in lines:
            if not line.startswith(b"#"):
                cells = line.split(maxsplit=22)
                target += cells[9] == b"1"
                scores = float(cells[7]), float(cells[6]), float(cells[12])
                yield _Line(target, _text(cells[0]), *scores, int(cells[17]), int(cells[18]))


def _rows(path: Path, length: int) -> Iterator[tuple[str, str]]:
    """The rows of a Stockholm alignment with one line a row, without the query, as a3m. A row at a time: an
    alignment of many rows has many columns in which only some have a residue."""
    _complete(path, b"//\n")
    in_query = np.zeros(0, bool)
    numbered = False
    with path.open("rb") as lines:
        for line in lines:
            if line.startswith((b"#", b"//")) or line == b"\n":
                continue
            name, text = line.split()
            row = np.frombuffer(text.replace(b".", b"-"), np.uint8)
            residues = row != ord("-")
            if len(in_query):
                letters = np.where(in_query, row, row | _LOWER)[in_query | residues]
                label = name.partition(b"|")[2] if numbered else name
                yield _text(label), letters.tobytes().decode("ascii")
                continue
            # Where two rows would have one name, the program numbers them all, the query too: "007|NAME".
            in_query, numbered = residues, name != _QUERY
            if np.count_nonzero(in_query) != length:
                raise ValueError("its alignment does not begin with the query")


def _text(name: bytes) -> str:
    """As `read_blocks` has it."""
    return name.decode("utf-8", "backslashreplace")


def _counts(path: Path) -> tuple[int, int]:
    """Sequences and residues searched."""
    found = _COUNTS.search(_complete(path, b"[ok]\n"))
    if not found:
        raise ValueError("it does not tell what it searched")
    return int(found.group(1)), int(found.group(2))


def _complete(path: Path, end: bytes) -> bytes:
    """The end of a file that the program should have finished with `end`."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    if not tail.endswith(end):
        raise ValueError(f"{path.name} breaks off")
    return tail


def _only_file(database: Database) -> Path:
    files = database.files
    if len(files) > 1:
        raise SearchError(
            f"database {database.name} ({database.path}) is in {len(files)} files, and the program jackhmmer "
            "reads one; join them (cat), or use the engine pyhmmer, which searches them as they are"
        )
    return files[0]
