"""The program MMseqs2: k-mer prefilter and gapped local alignment, all queries of a batch in one run.

It is an approximation that is much faster for many queries on large databases. E-values are for the residues
of the database searched, so parts cannot be merged into the whole, and `Database.z` has no meaning for it.
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
from parafold.msa.engines.pyhmmer import MAX_EVALUE, checked
from parafold.msa.fasta import read_blocks
from parafold.msa.shards import Shard
from parafold.programs import program_version, run_program

_COLUMNS = ("query", "bits", "evalue", "tstart", "tend", "qstart", "qend", "qaln", "taln", "theader")
# Its own estimate of what it needs leaves some small things out.
_MEMORY_SHARE = 0.9
# Its copy of a FASTA database, with the index, is about as large as the file.
_COPY_SHARE = 1.5


class MMseqs(Engine):
    """MMseqs2's search of FASTA files, which are converted for each run, or of its own databases.

    Hits are local alignments, one for each target, in the program's order: by E-value. The index of the
    prefilter takes about 1 GB of memory however small the database.

    Args:
        threads: the program's threads.
        sensitivity: its `-s`, from 1 (fast) to 7.5 (sensitive).
        max_seqs: how many targets may pass the prefilter for each query.
        timeout: seconds that each step may take.
    """

    name = "mmseqs"
    can_split = False
    formats = ("fasta", "mmseqs")

    def __init__(
        self,
        threads: int = 1,
        sensitivity: float = 7.5,
        max_seqs: int = 10_000,
        timeout: float | None = None,
    ) -> None:
        if threads < 1 or max_seqs < 1 or not 1 <= sensitivity <= 7.5:
            raise SearchError(
                f"engine {self.name}: threads {threads}, sensitivity {sensitivity}, max_seqs {max_seqs}; "
                "give 1 or more threads and max_seqs, and a sensitivity from 1 to 7.5"
            )
        self.threads = threads
        self.sensitivity = sensitivity
        self.max_seqs = max_seqs
        self.timeout = timeout

    @property
    def options(self) -> Mapping[str, Any]:
        return {
            "threads": self.threads,
            "sensitivity": self.sensitivity,
            "max_seqs": self.max_seqs,
            "timeout": self.timeout,
        }

    @property
    def version(self) -> str:
        return f"mmseqs {program_version('mmseqs')}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"e": MAX_EVALUE, "s": float(self.sensitivity), "max_seqs": self.max_seqs}

    def prepare(self, sequence: str) -> bytes:
        return checked(sequence).encode()

    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        with tempfile.TemporaryDirectory(prefix="parafold-") as folder:
            try:
                chunk = self._run(Path(folder), queries, database, memory)
            except (OSError, ValueError) as error:
                raise SearchError(
                    f"searching {database.path}: mmseqs's output in {Path(folder).parent} cannot be read "
                    f"({error}); is the disk full?"
                ) from error
        yield chunk

    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """In the program's order, which is that of `hits`."""
        return [
            Row(f"{hit.name}/{domain.start}-{domain.end}", domain.row, hit.score, hit.evalue)
            for hit in hits
            for domain in hit.domains
        ]

    def _run(self, folder: Path, queries: Mapping[int, bytes], database: Database, memory: int) -> Chunk:
        def run(command: str, *arguments: str | Path) -> None:
            run_program(
                ["mmseqs", command, *arguments, "-v", "1"],
                what=f"searching {database.path}",
                timeout=self.timeout,
                memory=memory,
                cwd=folder,
            )

        queries_path, target = folder / "queries.fasta", database.path.absolute()
        queries_path.write_bytes(b"".join(b">%d\n%s\n" % item for item in queries.items()))
        run("createdb", queries_path, "queries", "--dbtype", "1", "--shuffle", "0")
        if database.format == "fasta":
            # The program takes anything for FASTA: this names the line where it is none.
            sequences, residues = _count_records(database)
            _check_room(database, folder)
            files = [file.absolute() for file in database.files]
            target = folder / "target"
            run("createdb", *files, target, "--dbtype", "1", "--shuffle", "0")
        else:
            sequences, residues = _count_index(database.path)
        search = [
            "queries",
            target,
            "found",
            "steps",
            "-a",
            "-e",
            str(MAX_EVALUE),
            "-s",
            str(self.sensitivity),
        ]
        search += ["--max-seqs", str(self.max_seqs), "--threads", str(self.threads)]
        run("search", *search, "--split-memory-limit", f"{int(memory * _MEMORY_SHARE)}B")
        columns = ["--format-output", ",".join(_COLUMNS), "--threads", str(self.threads)]
        run("convertalis", "queries", target, "found", "table", *columns)
        lengths = {number: len(query) for number, query in queries.items()}
        return Chunk(sequences, residues, _hits(folder / "table", lengths))


def _hits(path: Path, lengths: Mapping[int, int]) -> dict[int, list[Hit]]:
    hits: dict[int, list[Hit]] = {}
    with path.open("rb") as lines:
        for line in lines:
            *cells, header = line.rstrip(b"\n").split(b"\t", len(_COLUMNS) - 1)
            number, bits, evalue, start, end, first, last, query, target = (cell.decode() for cell in cells)
            row = "-" * (int(first) - 1) + _aligned(query, target) + "-" * (lengths[int(number)] - int(last))
            domain = Domain(float(evalue), int(start), int(end), row)
            name = header.split(maxsplit=1)[0] if header.strip() else b"unnamed"
            # As `read_blocks` has it.
            text = name.decode("utf-8", "backslashreplace")
            hits.setdefault(int(number), []).append(
                Hit(text, float(bits), float(evalue), int(start), (domain,))
            )
    return hits


def _aligned(query: str, target: str) -> str:
    """The target's aligned letters as a3m. A stop becomes an unknown residue: alignments have none."""
    target = target.upper().replace("*", "X")
    return "".join(t.lower() if q == "-" else t for q, t in zip(query, target, strict=True))


def _count_records(database: Database) -> tuple[int, int]:
    sequences = residues = 0
    for file in database.files:
        for block in read_blocks(file):
            sequences += len(block)
            residues += block.total_length()
    return sequences, residues


def _count_index(path: Path) -> tuple[int, int]:
    """Of a database in the program's format: a line of its index tells number, position and length of a
    sequence, which ends in a line end and a zero byte."""
    sequences = residues = 0
    path = path.with_name(f"{path.name}.index")
    try:
        with path.open("rb") as lines:
            for line in lines:
                sequences += 1
                residues += int(line.split(b"\t")[2]) - 2
    except (OSError, ValueError, IndexError) as error:
        raise SearchError(
            f"{path}: is not an index of an MMseqs2 database ({error}); make it again"
        ) from error
    return sequences, residues


def _check_room(database: Database, folder: Path) -> None:
    need, free = int(_COPY_SHARE * database.bytes), shutil.disk_usage(folder).free
    if need > free:
        raise SearchError(
            f"searching {database.path}: mmseqs needs about {need >> 20} MiB in {folder.parent}, where "
            f"{free >> 20} MiB are free; set TMPDIR to a larger folder, or use a database of its own format"
        )
