"""MMseqs2's hits as rows over the query. A run takes seconds however small the database, so there are few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from engine_runs import MEMORY, QUERIES, aligned_columns, engine_or_skip, found, found_all, residues

from parafold.errors import SearchError
from parafold.msa import Database, demo_databases
from parafold.msa.engines import make_engine
from parafold.msa.shards import whole

PROTEIN_G = QUERIES["protein_g"]
# Odd letters, a stop, insertions, deletions, and a tab behind the name.
ODD = {
    "odd|U": PROTEIN_G[:20] + "U" + PROTEIN_G[21:],
    "odd|stop": PROTEIN_G[:30] + "*" + PROTEIN_G[31:],
    "odd|inserted": "mk" + PROTEIN_G[:30].lower() + "WWWW" + PROTEIN_G[30:],
    "odd|deleted": PROTEIN_G[:26] + PROTEIN_G[30:] + "AAA",
}


@pytest.fixture
def mmseqs():
    return engine_or_skip("mmseqs")


@pytest.fixture
def targets(tmp_path: Path) -> dict[str, str]:
    """Sequences of a database in two files."""
    records = demo_databases()[1].path.read_text()
    odd = "".join(f">{name}\tof this test\n{sequence}\n" for name, sequence in ODD.items())
    (tmp_path / "db.fasta-00000-of-00002").write_text(records)
    (tmp_path / "db.fasta-00001-of-00002").write_text(odd)
    lines = (record.split("\n") for record in records.split(">")[1:])
    return {header.split()[0]: "".join(parts) for header, *parts in lines} | ODD


def test_rows_of_a_batch_and_of_a_database_of_its_own_format(mmseqs, tmp_path, targets):
    queries = [QUERIES["crambin"], PROTEIN_G]
    rows = found_all(mmseqs, queries, Database("db", tmp_path / "db.fasta@2"))
    assert all(rows)
    for query, some in zip(queries, rows, strict=True):
        for row in some:
            name, _, span = row.description.rpartition("/")
            start, end = map(int, span.split("-"))
            assert residues(row.row) == targets[name][start - 1 : end].upper().replace("*", "X")
            assert aligned_columns(row.row) == len(query)
            assert 0 < row.evalue <= 1e-4 and row.score > 0
        assert [row.evalue for row in some] == sorted(row.evalue for row in some)
    by_name = {row.description.rpartition("/")[0]: row.row for row in rows[1]}
    assert set(ODD) <= set(by_name)
    assert by_name["odd|U"] == ODD["odd|U"]
    assert sum(map(str.islower, by_name["odd|inserted"])) == 4
    assert by_name["odd|deleted"].count("-") == 4

    files = sorted(str(path) for path in tmp_path.glob("db.fasta-*"))
    convert = ["mmseqs", "createdb", *files, "own", "--shuffle", "0", "-v", "1"]
    subprocess.run(convert, cwd=tmp_path, check=True)
    own = Database("own", tmp_path / "own")
    assert own.format == "mmseqs"
    (chunk,) = mmseqs.search({5: mmseqs.prepare(PROTEIN_G)}, own, whole(own), MEMORY)
    assert mmseqs.merge(PROTEIN_G, chunk.hits[5], 0) == rows[1]
    assert chunk.sequences == len(targets)
    assert chunk.residues == sum(map(len, targets.values()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b">a\nACDEF\n>b\nAC1DEF\n", r"bad\.fasta line 4: illegal character 1"),
        (b">a\n" + b"ACGT" * 100, r"bad\.fasta.* nucleotides"),
        (b"", r"bad\.fasta.*"),
    ],
)
def test_a_malformed_database_is_named_with_its_line(mmseqs, tmp_path, data, message):
    path = tmp_path / "bad.fasta"
    path.write_bytes(data)
    with pytest.raises(SearchError, match=message):
        found(mmseqs, PROTEIN_G, Database("bad", path))


def test_a_damaged_database_of_its_own_format(mmseqs, tmp_path):
    for ending in ("", ".index", ".dbtype"):
        (tmp_path / f"own{ending}").write_bytes(b"no database")
    own = Database("own", tmp_path / "own")
    with pytest.raises(SearchError, match=r"own\.index: is not an index of an MMseqs2 database"):
        found(mmseqs, PROTEIN_G, own)
    (tmp_path / "own.index").write_text("0\t0\t12\n")
    with pytest.raises(SearchError, match=r"searching .*own: mmseqs failed"):
        found(mmseqs, PROTEIN_G, own)


def test_limits_of_time_and_memory(mmseqs):
    database = demo_databases()[1]
    with pytest.raises(SearchError, match=r"small_bfd_demo\.fasta: mmseqs failed .*memory"):
        found(mmseqs, PROTEIN_G, database, memory=100 << 20)
    with pytest.raises(SearchError, match="mmseqs was stopped after"):
        found(make_engine("mmseqs", timeout=0.001), PROTEIN_G, database)


def test_a_missing_program_is_named_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SearchError, match=r"mmseqs is not installed.*apt install mmseqs2"):
        make_engine("mmseqs").check(demo_databases()[0])


def test_engine_travels_as_name_and_options():
    engine = make_engine("mmseqs", threads=2, sensitivity=5.7, max_seqs=300)
    copy = make_engine(engine.name, **json.loads(json.dumps(dict(engine.options))))
    assert copy.options == engine.options and copy.parameters == engine.parameters
    assert copy.parameters != make_engine("mmseqs").parameters
    with pytest.raises(SearchError, match="threads 0"):
        make_engine("mmseqs", threads=0)
