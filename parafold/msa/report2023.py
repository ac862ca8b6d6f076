"""The functions of the 2023 course report, and AlphaFold's `Jackhmmer`, under their own names.

The report (COMPSCI 267, group 40) gave each of three databases to one process. Its names stand here for this
package's search, and `get_msa(..., schedule="static")` for its schedule. Chunks of a database (`FILE.1`,
`FILE.2`, ...) are read from this machine's disks; nothing is streamed over a network.
"""

from __future__ import annotations

import os
import string
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from parafold.errors import SearchError
from parafold.machine import physical_memory, usable_cpus
from parafold.msa.database import Database, in_published_order
from parafold.msa.engines.base import Hit, Row
from parafold.msa.engines.pyhmmer import FILTERS, MAX_DOMAIN_EVALUE, MAX_EVALUE, PyHmmer
from parafold.msa.executors import Executor
from parafold.msa.plan import Schedule
from parafold.msa.search import Search
from parafold.msa.shards import Shard, split
from parafold.msa.unpack import unpacked
from parafold.programs import find_program, run_program
from parafold.protein.alignment import Msa, fasta_records, truncate_stockholm
from parafold.protein.text_file import read_text

# More shards than threads: the last ones to finish leave little idle time.
_SHARDS_PER_THREAD = 4


class DatabaseConfig(TypedDict):
    """A database as the report describes it: the file `db_path`, or `num_streamed_chunks` files `db_path.1`,
    `db_path.2` and so on; E-values are for `z_value` sequences, by default as many as there are."""

    db_name: str
    db_path: str | Path
    num_streamed_chunks: NotRequired[int | None]
    z_value: NotRequired[int | None]


def get_msa(
    sequences: Sequence[str],
    databases: Sequence[DatabaseConfig | Database | str | Path],
    *,
    schedule: Schedule = "longest-first",
    workers: int | None = None,
    executor: str | Executor = "processes",
    **options: Any,
) -> dict[str, dict[str, Msa]]:
    """Search for all sequences: sequence -> database name -> alignment, as features are built from.

    Both schedules find the same. "static" is the report's: one process for each database, in the order given.
    The slowest database then sets the time, however many processes there are. "longest-first" cuts databases
    into shards and keeps all workers busy to the end.

    Args:
        databases: the report's descriptions, or whatever `parafold.msa.search` takes.
        workers: one a database by default for "static", otherwise one a core.
        executor: `processes` as in the report, `ray` as in its twin, or another of `parafold.msa.EXECUTORS`.
        options: others of `parafold.msa.search`.

    Raises:
        SearchError, OutputError: see `parafold.msa.search`.
    """
    queries = {f"sequence {n}": sequence for n, sequence in enumerate(dict.fromkeys(sequences), start=1)}
    described = [_database(item) if isinstance(item, Mapping) else item for item in databases]
    work = Search(queries, described, schedule=schedule, **options)
    if schedule == "static":
        workers = workers or len(work.databases)
    found = dict(work.run(executor, workers))
    stacked = [database.name for database in in_published_order(work.databases)]
    return {
        sequence: {database: found[name][database].msa() for database in stacked}
        for name, sequence in queries.items()
        if name in found
    }


def run_jackhmmer_search(
    sequence: str,
    fasta_path: str | Path,
    db_config: DatabaseConfig,
    binary_path: str | Path | None = None,
) -> tuple[str, str, list[dict[str, Any]]]:
    """One sequence, which `fasta_path` holds, against one database: (sequence, database name, what
    `Jackhmmer.query` returns). For a pool of processes, as the report called it.

    Raises:
        SearchError: see `Jackhmmer`; or the file holds another sequence.
    """
    database = _database(db_config)
    if _query(Path(fasta_path))[1] != sequence.upper():
        raise SearchError(f"{fasta_path}: holds another sequence than the one to search for; write it anew")
    runner = Jackhmmer(
        binary_path=binary_path,
        database_path=db_config["db_path"],
        num_streamed_chunks=db_config.get("num_streamed_chunks"),
        z_value=db_config.get("z_value"),
        get_tblout=True,
    )
    return sequence, database.name, runner.query(fasta_path)


class Jackhmmer:
    """AlphaFold's class of this name: the same arguments, and results of the same form.

    Args:
        binary_path: the jackhmmer program, a name or a path; without it the search runs in this process, with
            AlphaFold's parameters only.
        database_path: a FASTA file; with `num_streamed_chunks` what stands before ".1", ".2" and so on in the
            names of its chunks.
        n_cpu: threads; as many as there are cores by default.
        n_iter: iterations.
        e_value: the highest E-value of a hit.
        z_value: the number of sequences that E-values are computed with; by default as many as there are.
        get_tblout: whether results hold the table of hits.
        filter_f1, filter_f2, filter_f3: the fraction of sequences that pass each of the prefilters.
        incdom_e: the highest E-value of a domain in the alignment.
        dom_e: the highest E-value of a domain in the table.
        num_streamed_chunks: in how many files the database is.
        streaming_callback: called with 1, 2 and so on after each chunk.

    Raises:
        SearchError: a file or the program is missing, or a parameter needs the program.
    """

    def __init__(
        self,
        *,
        binary_path: str | Path | None = None,
        database_path: str | Path,
        n_cpu: int | None = None,
        n_iter: int = 1,
        e_value: float = MAX_EVALUE,
        z_value: int | None = None,
        get_tblout: bool = False,
        filter_f1: float = FILTERS["F1"],
        filter_f2: float = FILTERS["F2"],
        filter_f3: float = FILTERS["F3"],
        incdom_e: float | None = None,
        dom_e: float | None = None,
        num_streamed_chunks: int | None = None,
        streaming_callback: Callable[[int], None] | None = None,
    ) -> None:
        self.binary_path = binary_path
        self.n_cpu = usable_cpus() if n_cpu is None else n_cpu
        self.n_iter = n_iter
        self.e_value = e_value
        self.z_value = z_value
        self.get_tblout = get_tblout
        self.num_streamed_chunks = num_streamed_chunks
        self.streaming_callback = streaming_callback
        self._flags = {"-N": n_iter, "-E": e_value, "--incE": e_value, "--F1": filter_f1, "--F2": filter_f2}
        self._flags |= {"--F3": filter_f3, "--cpu": self.n_cpu}
        for flag, value in (("-Z", z_value), ("--incdomE", incdom_e), ("--domE", dom_e)):
            if value is not None:
                self._flags[flag] = value
        database = _database_of("database", database_path, num_streamed_chunks, z_value)
        one_by_one = num_streamed_chunks is not None
        self._chunks = [Database("chunk", f) for f in database.files] if one_by_one else [database]
        for chunk in self._chunks:
            PyHmmer().check(chunk)
            if not all(file.is_file() for file in chunk.files):
                raise SearchError(f"{chunk.path}: no such file; check the path of the database")
        if binary_path is not None:
            find_program(str(binary_path))
        else:
            _refuse_other_parameters(self._flags)

    def query(self, input_fasta_path: str | Path, max_sequences: int | None = None) -> list[dict[str, Any]]:
        """Search for the one sequence of a FASTA file.

        Returns one dictionary for each chunk (one, if the database is not in chunks): "sto", the alignment in
        Stockholm format, of `max_sequences` rows at most, the query first; "tbl", the table of hits, empty
        without `get_tblout`; "stderr", what the program said; "n_iter" and "e_value".

        In this process the chunks' rows are together exactly those of the whole database: E-values count all
        chunks, and so does the threshold of domains. The program sees one chunk at a time: its thresholds of
        domains count that chunk's hits, and without `z_value` its E-values that chunk's sequences.

        Raises:
            SearchError: the file holds no sequence or several, one that cannot be searched for, or the search
                failed.
        """
        path = Path(input_fasta_path)
        name, sequence = _query(path)
        if self.binary_path is None:
            found = self._in_this_process(name, sequence, max_sequences)
        else:
            found = [
                self._by_program(path, max_sequences, *numbered) for numbered in enumerate(self._chunks, 1)
            ]
        return [
            {"sto": sto, "tbl": tbl, "stderr": said, "n_iter": self.n_iter, "e_value": self.e_value}
            for sto, tbl, said in found
        ]

    def _finished(self, number: int) -> None:
        if self.streaming_callback and self.num_streamed_chunks is not None:
            self.streaming_callback(number)

    def _in_this_process(
        self, name: str, sequence: str, max_sequences: int | None
    ) -> list[tuple[str, str, bytes]]:
        engine = PyHmmer()
        prepared = engine.prepare(sequence)
        chunks: list[list[Hit]] = []
        sequences = 0
        for number, chunk in enumerate(self._chunks, start=1):
            count, hits = _search(prepared, chunk, max(1, self.n_cpu))
            sequences += count
            chunks.append(hits)
            self._finished(number)
        size = self.z_value or sequences
        chunks = [[hit for hit in hits if hit.evalue * size <= MAX_EVALUE] for hits in chunks]
        reported = sum(map(len, chunks))
        results = []
        for hits in chunks:
            # What no merge of this chunk alone would leave out: a domain counts the hits of all chunks.
            kept = [
                hit._replace(
                    domains=tuple(d for d in hit.domains if d.evalue * reported <= MAX_DOMAIN_EVALUE)
                )
                for hit in hits
            ]
            rows = engine.merge(sequence, kept, size)
            limit = None if max_sequences is None else max(0, max_sequences - 1)
            table = _table(name, hits, size) if self.get_tblout else ""
            results.append((_stockholm(name, sequence, rows[:limit]), table, b""))
        return results

    def _by_program(
        self, query: Path, max_sequences: int | None, number: int, chunk: Database
    ) -> tuple[str, str, bytes]:
        if len(chunk.files) > 1:
            raise SearchError(
                f"{chunk.path}: is in {len(chunk.files)} files, and the program jackhmmer reads one; leave "
                "out binary_path, or give num_streamed_chunks"
            )
        with tempfile.TemporaryDirectory(prefix="parafold-") as folder:
            alignment, table = Path(folder) / "alignment.sto", Path(folder) / "table"
            flags = ["--noali", "-o", os.devnull, "-A", alignment, "--tblout", table]
            flags += [word for flag, value in self._flags.items() for word in (flag, str(value))]
            ran = run_program(
                [str(self.binary_path), *flags, query.absolute(), chunk.path.absolute()],
                what=f"searching {chunk.path}",
            )
            try:
                sto, tbl = (file.read_text(errors="backslashreplace") for file in (alignment, table))
            except OSError as error:
                raise SearchError(
                    f"searching {chunk.path}: its results in {folder} cannot be read ({error.strerror}); is "
                    "the disk full?"
                ) from error
        self._finished(number)
        if max_sequences is not None:
            sto = truncate_stockholm(sto, max_sequences)
        return sto, tbl if self.get_tblout else "", ran.stdout.encode()


class _Chunked(Database):
    """A database in AlphaFold's chunks: its path is FILE@59, its files are FILE.1 to FILE.59."""

    @property
    def files(self) -> list[Path]:
        prefix, _, count = str(self.path).rpartition("@")
        files = [Path(f"{prefix}.{number}") for number in range(1, int(count) + 1)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise SearchError(
                f"{prefix}: {len(missing)} of {count} chunks are missing, {missing[0]} first; fetch them"
            )
        return files


def _database(config: Mapping[str, Any]) -> Database:
    required, others = {"db_name", "db_path"}, {"num_streamed_chunks", "z_value"}
    if lacking := required.difference(config):
        raise SearchError(f"a database's description lacks {', '.join(sorted(lacking))}; see DatabaseConfig")
    if unknown := set(config).difference(required, others):
        raise SearchError(f"database {config['db_name']}: {', '.join(sorted(unknown))} means nothing here")
    return _database_of(
        config["db_name"], config["db_path"], config.get("num_streamed_chunks"), config.get("z_value")
    )


def _database_of(name: str, path: str | Path, chunks: int | None, z: int | None) -> Database:
    if "://" in str(path):
        raise SearchError(f"database {name}: {path} is not on this machine; download its files first")
    # AlphaFold's notebook writes it so.
    kind = "bfd" if name.startswith("smallbfd") else ""
    if chunks is None:
        return Database(name, Path(path), kind, z=z)
    if chunks < 1:
        raise SearchError(f"database {name}: {chunks} chunks; give 1 or more, or None for a whole file")
    return _Chunked(name, Path(f"{path}@{chunks}"), kind, z=z)


def _refuse_other_parameters(flags: Mapping[str, Any]) -> None:
    expected = {"-N": 1, "-E": MAX_EVALUE, "--incE": MAX_EVALUE, "--incdomE": MAX_DOMAIN_EVALUE}
    expected |= {f"--{name}": value for name, value in FILTERS.items()}
    # The number of threads and of sequences may be any; what the table tells of domains is the program's.
    other = [
        f"{flag} {value}" for flag, value in flags.items() if flag in expected and value != expected[flag]
    ]
    other += [f"--domE {flags['--domE']}"] if "--domE" in flags else []
    if other:
        raise SearchError(
            "without the program, jackhmmer searches with AlphaFold's parameters, not with "
            f"{', '.join(other)}; give binary_path"
        )


def _query(path: Path) -> tuple[str, str]:
    """Name and sequence of a FASTA file's only record."""
    records = [
        (header, "".join(text.split()))
        for _, header, text in fasta_records(read_text(path, "FASTA"), str(path))
    ]
    if len(records) != 1:
        raise SearchError(f"{path}: holds {len(records)} sequences; give a FASTA file with one")
    header, sequence = records[0]
    return (header.split() or ["query"])[0], sequence.upper()


def _search(prepared: bytes, database: Database, threads: int) -> tuple[int, list[Hit]]:
    """How many sequences the database has, and the hits; HMMER works outside the interpreter's lock."""

    def searched(shard: Shard) -> tuple[int, list[Hit]]:
        # An engine of its own: HMMER adjusts a profile to the length of the target.
        chunks = list(PyHmmer().search({0: prepared}, database, shard, physical_memory() // threads))
        return sum(c.sequences for c in chunks), [hit for chunk in chunks for hit in chunk.hits.get(0, ())]

    with tempfile.TemporaryDirectory(prefix="parafold-") as folder, ThreadPoolExecutor(threads) as pool:
        plain = unpacked(database, Path(folder))
        shards = split(plain, _SHARDS_PER_THREAD * threads if threads > 1 else 1)
        parts = list(pool.map(searched, shards))
    return sum(count for count, _ in parts), [hit for _, hits in parts for hit in hits]


def _table(query: str, hits: Sequence[Hit], size: int) -> str:
    """jackhmmer's table of hits, as far as it is known. E-values have all their digits, so that the hits of
    chunks sort as those of the whole."""
    lines = ["# target name  accession  query name  accession  E-value  score\n"]
    for hit in sorted(hits, key=lambda hit: (-hit.score, hit.name.encode(), hit.start)):
        lines.append(f"{hit.name:<20} - {query:<20} - {hit.evalue * size:.8g} {hit.score:.1f}\n")
    return "".join([*lines, "# [ok]\n"])


def _stockholm(name: str, query: str, rows: Sequence[Row]) -> str:
    """The query and a3m rows in Stockholm format, one line a row."""
    names = [name, *(row.description for row in rows)]
    if len(set(names)) < len(names):
        # As HMMER does it.
        digits = len(str(len(names)))
        names = [f"{number:0{digits}}|{name}" for number, name in enumerate(names)]
    letters = [np.frombuffer(text.encode("ascii"), np.uint8) for text in (query, *(row.row for row in rows))]
    inserted = [np.isin(row, _LOWER) for row in letters]
    # Residues inserted before each column of the query and after the last: the most of any row.
    room = np.zeros(len(query) + 1, int)
    for row in inserted:
        if row.any():
            np.maximum(room, np.bincount(np.cumsum(~row)[row], minlength=len(room)), out=room)
    first = np.arange(len(room)) + np.concatenate(([0], np.cumsum(room[:-1])))
    blank = np.full(len(query) + room.sum(), ord("."), np.uint8)
    width = max(map(len, names))
    lines = ["# STOCKHOLM 1.0\n\n"]
    for name, row, lower in zip(names, letters, inserted, strict=True):
        line = blank.copy()
        line[(first + room)[:-1]] = row[~lower]
        if lower.any():
            column = np.cumsum(~lower)[lower]
            # Inserted residues in a row stand side by side.
            line[first[column] + np.arange(len(column)) - np.searchsorted(column, column)] = row[lower]
        lines.append(f"{name:<{width}} {line.tobytes().decode('ascii')}\n")
    return "".join([*lines, "//\n"])


_LOWER = np.frombuffer(string.ascii_lowercase.encode("ascii"), np.uint8)
