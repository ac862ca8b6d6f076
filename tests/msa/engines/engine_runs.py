"""Searching whole databases with an engine, and what the engines' tests search for."""

import lzma
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from parafold.msa import Database
from parafold.msa.engines import Engine, Row, make_engine
from parafold.msa.shards import whole

MEMORY = 4 << 30

QUERIES = {
    "trp_cage": "NLYIQWLKDGGPSSGRPPPS",
    "protein_g": "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE",
    "crambin": "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN",
}


def engine_or_skip(name: str, **options) -> Engine:
    """The engine, where its program is installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return make_engine(name, **options)


def found(engine: Engine, query: str, database: Database, memory: int = MEMORY) -> list[Row]:
    """The rows of one query."""
    return found_all(engine, [query], database, memory)[0]


def found_all(
    engine: Engine, queries: list[str], database: Database, memory: int = MEMORY
) -> list[list[Row]]:
    """The rows of each query. Nothing may stay among the temporary files."""
    before = temporary()
    prepared = {number: engine.prepare(query) for number, query in enumerate(queries)}
    engine.check(database)
    hits = {number: [] for number in prepared}
    sequences = 0
    try:
        for chunk in engine.search(prepared, database, whole(database), memory):
            sequences += chunk.sequences
            for number, some in chunk.hits.items():
                hits[number] += some
    finally:
        assert temporary() == before
    size = database.z or sequences
    return [engine.merge(query, hits[number], size) for number, query in enumerate(queries)]


def temporary() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("parafold-*"))


def aligned_columns(row: str) -> int:
    return sum(not letter.islower() for letter in row)


def residues(row: str) -> str:
    return row.replace("-", "").upper()


def data_folder() -> Path:
    """The folder of real data that the environment names."""
    if "PARAFOLD_DATA" not in os.environ:
        pytest.skip("PARAFOLD_DATA names no folder of real data")
    return Path(os.environ["PARAFOLD_DATA"])


def real_queries(names: list[str]) -> dict[str, str]:
    records = (data_folder() / "structures30" / "sequences.fasta").read_text().split(">")[1:]
    sequences = {name: "".join(lines) for name, *lines in map(str.split, records)}
    return {name: sequences[name] for name in names}


def real_database(name: str, folder: Path) -> Database:
    """A database of real sequences, unpacked into a folder."""
    path = folder / f"{name}.fasta"
    path.write_bytes(lzma.decompress((data_folder() / "search_db" / f"{name}.fasta.xz").read_bytes()))
    return Database(name, path)
