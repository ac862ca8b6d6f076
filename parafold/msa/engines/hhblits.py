"""HH-suite's hhblits with AlphaFold's flags: a profile of the query against a database of profiles.

The E-values of its three iterations depend on the size of the whole database, which cannot be set: a database
is searched whole, and `Database.z` has no meaning for it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.engines.base import Chunk, Domain, Engine, Hit, Row
from parafold.msa.engines.pyhmmer import checked
from parafold.msa.shards import Shard
from parafold.programs import program_version, run_program

_PARAMETERS = {
    "n": 3,
    "e": 0.001,
    "maxseq": 1_000_000,
    "realign_max": 100_000,
    "maxfilt": 100_000,
    "min_prefilter_hits": 1000,
}
_FLAGS = [word for name, value in _PARAMETERS.items() for word in (f"-{name}", str(value))]

# The program writes on a full disk and ends as if all were well.
_MIN_FREE_BYTES = 1 << 20


class HHblits(Engine):
    """The rows are those of the program's a3m output, in its order, each under its whole header line.

    The program does not tell which row has which score: scores and E-values are 0, as are a domain's `start`
    and `end`. The databases in `Database.also` are searched in the same run.

    Args:
        cpu: the program's threads.
        timeout: seconds that one query may take.
    """

    name = "hhblits"
    can_split = False
    batches = False
    formats = ("hhsuite",)

    def __init__(self, cpu: int = 1, timeout: float | None = None) -> None:
        if cpu < 1:
            raise SearchError(f"engine {self.name}: cpu is {cpu}; give 1 or more threads")
        self.cpu = cpu
        self.timeout = timeout

    @property
    def options(self) -> Mapping[str, Any]:
        return {"cpu": self.cpu, "timeout": self.timeout}

    @property
    def version(self) -> str:
        return f"hhblits {program_version('hhblits')}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return dict(_PARAMETERS)

    def check(self, database: Database) -> None:
        super().check(database)
        for prefix in (database.path, *database.also):
            # Compressed alignments, of older databases, are in "ca3m".
            alignments = "ca3m" if _beside(prefix, "_ca3m.ffdata").exists() else "a3m"
            for part in ("cs219", alignments):
                for file in (_beside(prefix, f"_{part}.ffdata"), _beside(prefix, f"_{part}.ffindex")):
                    if not file.exists():
                        raise SearchError(
                            f"database {database.name}: {file} is missing, which hhblits needs to search "
                            f"{prefix}; check the prefix, or fetch the database again"
                        )

    def prepare(self, sequence: str) -> bytes:
        return checked(sequence).encode()

    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        prefixes = [prefix.absolute() for prefix in (database.path, *database.also)]
        where = " and ".join(map(str, prefixes))
        # The same profiles are searched for every query.
        sequences, residues = _counts(prefixes)
        for number, query in queries.items():
            with tempfile.TemporaryDirectory(prefix="parafold-") as folder:
                try:
                    hits = self._run(Path(folder), query.decode(), prefixes, where, memory)
                except (OSError, ValueError) as error:
                    raise SearchError(
                        f"searching {where}: hhblits's output in {Path(folder).parent} cannot be read "
                        f"({error}); is the disk full?"
                    ) from error
            yield Chunk(sequences, residues, {number: hits} if hits else {})
            sequences = residues = 0

    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """In the program's order, which is that of `hits`."""
        return [Row(hit.name, domain.row, hit.score, hit.evalue) for hit in hits for domain in hit.domains]

    def _run(self, folder: Path, query: str, prefixes: list[Path], where: str, memory: int) -> list[Hit]:
        query_path, rows = folder / "query.fasta", folder / "rows.a3m"
        query_path.write_text(f">query\n{query}\n")
        flags = [*_FLAGS, "-cpu", str(self.cpu), "-v", "1"]
        flags += [word for prefix in prefixes for word in ("-d", str(prefix))]
        run_program(
            ["hhblits", "-i", query_path, "-oa3m", rows, "-o", "/dev/null", *flags],
            what=f"searching {where}",
            timeout=self.timeout,
            memory=memory,
            cwd=folder,
        )
        if shutil.disk_usage(folder).free < _MIN_FREE_BYTES:
            raise OSError("no space is left")
        return [Hit(name, 0.0, 0.0, 0, (Domain(0.0, 0, 0, row),)) for name, row in _rows(rows, len(query))]


def _rows(path: Path, length: int) -> Iterator[tuple[str, str]]:
    """The rows of an a3m file with one line a row, without the query, the first."""
    with path.open(encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        for number, header in enumerate(lines):
            row = next(lines, "").rstrip("\n").replace(".", "")
            if not header.startswith(">") or sum(not letter.islower() for letter in row) != length:
                raise ValueError(f"row {number} does not fit the query")
            if number > 0:
                yield header[1:].strip(), row


def _counts(prefixes: Iterable[Path]) -> tuple[int, int]:
    """Profiles and their columns: a line of an index tells name, position and length of an entry, which ends
    in a zero byte."""
    sequences = residues = 0
    for prefix in prefixes:
        path = _beside(prefix, "_cs219.ffindex")
        try:
            with path.open("rb") as lines:
                for line in lines:
                    sequences += 1
                    residues += int(line.split(b"\t")[2]) - 1
        except (OSError, ValueError, IndexError) as error:
            raise SearchError(
                f"{path}: is not an index of an HH-suite database ({error}); fetch it again"
            ) from error
    return sequences, residues


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)
