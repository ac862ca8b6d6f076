"""What is found depends neither on shards nor on executors, and is what the jackhmmer program finds.

With real databases and 30 real proteins where PARAFOLD_DATA says where they are, with the demonstration
databases and the examples always.
"""

import lzma
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import small

from parafold.machine import usable_cpus
from parafold.msa import Database, SearchResults, databases_in, demo_databases, search
from parafold.protein.alignment import Msa, parse_stockholm
from parafold.protein.sequence import read_inputs

DATA = os.environ.get("PARAFOLD_DATA")
FILTERS = ("--F1", "0.0005", "--F2", "5e-05", "--F3", "5e-07")
FLAGS = ("--noali", *FILTERS, "--incE", "0.0001", "-E", "0.0001", "-N", "1", "--cpu", "1")
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
# Shards, executor, workers. One process and one shard is what the others are compared with.
PROCESSES = [(2, "processes", 3), (5, "processes", 2), (16, "processes", 3), (60, "processes", 2)]
VARIANTS = [*((shards, "serial", 1) for shards in (2, 5, 16, 60)), *PROCESSES]


class Case(NamedTuple):
    """Queries, databases and what one process finds in the whole databases, without limits on the rows."""

    queries: dict[str, str]
    databases: list[Database]
    found: SearchResults


class Published(NamedTuple):
    """What the program wrote for one query and database: its rows; (name, E-value, score) as printed."""

    msa: Msa
    table: list[tuple[str, str, str]]


def everything(queries: dict[str, str], databases: list[Database], **options) -> SearchResults:
    limits = {database.name: None for database in databases}
    return search(queries, databases, cache=None, max_hits=limits, **options)


@pytest.fixture(scope="module")
def demo() -> Case:
    paths = sorted(small.EXAMPLES.glob("*.fasta"))
    targets = [target for path in paths for target in read_inputs(path)]
    queries = {f"{t.name}_{chain.id}": chain.sequence for t in targets for chain in t.chains}
    return Case(queries, demo_databases(), everything(queries, demo_databases(), executor="serial", shards=1))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Case:
    if DATA is None:
        pytest.skip("needs real databases: set PARAFOLD_DATA to the folder of search_db")
    folder = tmp_path_factory.mktemp("databases")
    for packed in (Path(DATA) / "search_db").glob("*.fasta.xz"):
        with lzma.open(packed) as source, (folder / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    targets = read_inputs(Path(DATA) / "structures30" / "sequences.fasta")
    queries = {target.name: target.chains[0].sequence for target in targets}
    databases = databases_in(folder)
    return Case(queries, databases, everything(queries, databases, executor="serial", shards=1))


@pytest.fixture(scope="module")
def jackhmmer() -> str:
    program = shutil.which("jackhmmer")
    if program is None:
        if DATA or os.environ.get("CI_PARAFOLD"):
            pytest.fail("jackhmmer must be here to be compared with: apt-get install hmmer")
        pytest.skip("needs jackhmmer: apt-get install hmmer")
    return program


def published(program: str, folder: Path, sequence: str, database: Database) -> Published:
    folder.mkdir()
    query, rows, table = (folder / name for name in ("query.fasta", "rows.sto", "table.txt"))
    query.write_text(f">query\n{sequence}\n")
    command = [program, "-o", os.devnull, "-A", rows, "--tblout", table, *FLAGS, query, database.path]
    subprocess.run(command, check=True, timeout=600)
    lines = [line.split() for line in table.read_text().splitlines() if not line.startswith("#")]
    # The program says nothing where nothing is found.
    msa = parse_stockholm(rows.read_text()) if rows.exists() else Msa.query_only(sequence)
    return Published(msa, [(name, evalue, score) for name, _, _, _, evalue, score, *_ in lines])


def assert_same(found: Msa, expected: Msa):
    assert found.descriptions == expected.descriptions
    assert found.sequences == expected.sequences
    np.testing.assert_array_equal(found.deletions, expected.deletions)


def assert_is_what_jackhmmer_finds(case: Case, program: str, folder: Path):
    pairs = [(name, database) for name in case.queries for database in case.databases]
    with ThreadPoolExecutor(usable_cpus()) as pool:
        runs = {
            (name, database.name): pool.submit(
                published, program, folder / f"{name}-{database.name}", case.queries[name], database
            )
            for name, database in pairs
        }
        for name, database in pairs:
            expected = runs[name, database.name].result()
            alignment = case.found.alignments[name][database.name]
            assert_same(alignment.msa(), expected.msa)
            # Hits none of whose domains is good enough are in the table, but not in the alignment.
            printed = {}
            for row in alignment.rows:
                target = row.description.rpartition("/")[0]
                printed[target] = (target, f"{row.evalue:.2g}", f"{row.score:.1f}")
            in_rows = [line for line in expected.table if line[0] in printed]
            assert list(printed.values()) == in_rows
            assert len({line[0] for line in expected.table}) == len(expected.table)


def test_the_demonstration_has_hits(demo: Case):
    assert len(demo.queries) == 10 and len(demo.databases) == 3
    for found in demo.found.alignments.values():
        assert all(len(alignment.rows) > 30 for alignment in found.values())


@pytest.mark.parametrize(("shards", "executor", "workers"), VARIANTS)
def test_shards_and_executors_make_no_difference(demo: Case, shards: int, executor: str, workers: int):
    found = everything(demo.queries, demo.databases, shards=shards, executor=executor, workers=workers)
    assert len(found.tasks) == shards * len(demo.databases)
    assert len({record.worker for record in found.tasks}) <= workers
    assert found.alignments == demo.found.alignments


@pytest.mark.parametrize(("shards", "executor", "workers"), PROCESSES)
def test_shards_and_executors_make_no_difference_to_real_proteins(
    real: Case, shards: int, executor: str, workers: int
):
    found = everything(real.queries, real.databases, shards=shards, executor=executor, workers=workers)
    assert len(found.tasks) == shards * len(real.databases)
    assert len(found.alignments) == 30
    assert found.alignments == real.found.alignments


@pytest.mark.parametrize("which", ["demo", "real"])
def test_the_static_schedule_finds_the_same(which: str, request: pytest.FixtureRequest):
    case = request.getfixturevalue(which)
    # Databases are searched in the order given, but their alignments have names.
    found = everything(case.queries, case.databases[::-1], schedule="static", executor="processes", workers=2)
    assert [record.database for record in found.tasks] == [d.name for d in case.databases[::-1]]
    assert found.alignments == case.found.alignments


def test_equals_jackhmmer(demo: Case, jackhmmer: str, tmp_path: Path):
    assert_is_what_jackhmmer_finds(demo, jackhmmer, tmp_path)


def test_equals_jackhmmer_on_real_proteins(real: Case, jackhmmer: str, tmp_path: Path):
    assert sum(len(a.rows) for found in real.found.alignments.values() for a in found.values()) > 10_000
    assert_is_what_jackhmmer_finds(real, jackhmmer, tmp_path)


def test_the_published_limits_cut_as_alphafold_does(real: Case):
    """AlphaFold reads the program's rows up to the limit, the query among them."""

    def depth(name: str) -> int:
        return sum(len(alignment.rows) for alignment in real.found.alignments[name].values())

    deepest = sorted(real.queries, key=depth)[-3:]
    limited = search({name: real.queries[name] for name in deepest}, real.databases, cache=None)
    limits = {"uniref90_demo": 10_000, "small_bfd_demo": 10**9, "mgnify_demo": 501}
    for name, alignments in limited.alignments.items():
        for database, alignment in alignments.items():
            whole = real.found.alignments[name][database].msa()
            assert_same(alignment.msa(), whole.truncate(limits[database]))
    assert any(len(found["mgnify_demo"].msa()) == 501 for found in limited.alignments.values())


def test_records_of_one_name_are_told_apart_by_the_program_only(jackhmmer: str, tmp_path: Path):
    """Easel puts a number before all names where two rows have one; the rows and their order are the same."""
    path = tmp_path / "db.fasta"
    records = [("twin/x", UBIQUITIN), ("other", UBIQUITIN[3:70]), ("twin/x", UBIQUITIN)]
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    (database,) = databases_in(path)
    expected = published(jackhmmer, tmp_path / "run", UBIQUITIN, database).msa
    for shards in (1, 3):
        found = everything({"q": UBIQUITIN}, [database], shards=shards, executor="serial").by_database("q")
        assert found["db"].sequences == expected.sequences
        plain = [re.sub(r"^\d+\|", "", name) for name in expected.descriptions]
        assert plain != expected.descriptions
        assert found["db"].descriptions == plain
