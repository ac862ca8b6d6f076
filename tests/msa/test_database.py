import bz2
import gzip
import hashlib
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parafold.errors import SearchError
from parafold.msa import Database, databases_in, demo_databases
from parafold.msa.database import read_blocks

ROOT = Path(__file__).resolve().parents[2]
FASTA = b">a first\nACDEFGHIKL\nMNPQRSTVWY\n\n>b\nacdefg\n>c\n\nWWWW*\n"
RECORDS = [("a", "ACDEFGHIKLMNPQRSTVWY"), ("b", "ACDEFG"), ("c", "WWWW*")]


def write(path, data):
    path.write_bytes(data)
    return Database(path.stem, path)


def records(database, residues=250_000):
    return [
        (record.name, record.textize().sequence)
        for block in read_blocks(database, residues)
        for record in block.sequences
    ]


@pytest.mark.parametrize("residues", [1, 25, 1000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_plain_and_packed_files_read_alike(tmp_path, pack, residues):
    assert records(write(tmp_path / "db", pack(FASTA)), residues) == RECORDS


def test_windows_line_ends(tmp_path):
    assert records(write(tmp_path / "db", FASTA.replace(b"\n", b"\r\n"))) == RECORDS


def test_blocks_tell_how_far_they_reach(tmp_path):
    database = write(tmp_path / "db", b"".join(b">s%d\n%s\n" % (i, b"ACDEFGHIKL" * 1000) for i in range(50)))
    fractions = [block.fraction for block in read_blocks(database, 50_000)]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] == 1.0


LONG = b"".join(b">s%d\nACDEFGHIKLMNPQRSTVWY\n" % i for i in range(5000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "holds no sequence"),
        (b"<html><body>404</body></html>", "line 1: unexpected char <"),
        (b"ACDEF\n", "line 1: unexpected char A"),
        (b">a\nACDEF\n>b\nAC1DEF\n", "line 4: illegal character 1"),
        (LONG + b">bad\nACD EF-\n", "line 10002: illegal character -"),
        (b">a\nAC\0DEF\n", "line 2: illegal character NUL"),
        (b">\nACDEF\n", "line 1: no FASTA name"),
        (b"\xef\xbb\xbf>a\nACDEF\n", "byte order mark"),
        (b">a\nACDEFGHIKL\n>b the last one\n", "ends after the header of b"),
        (b">a\n" + b"ACGT" * 100, "nucleotides"),
        (b">a\n" + b"ACDEF" * 20_001, "100005 residues"),
        (gzip.compress(LONG)[:-5000], "damaged or truncated"),
        (lzma.compress(LONG)[:-500], "damaged or truncated"),
        (gzip.compress(LONG)[:200] + b"?" * 40 + gzip.compress(LONG)[240:], "damaged or truncated"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 40, "packed by zstd"),
    ],
)
def test_what_is_no_protein_database_is_refused(tmp_path, data, message):
    database = write(tmp_path / "db.fasta", data)
    with pytest.raises(SearchError, match=message) as caught:
        records(database)
    assert str(caught.value).startswith(str(database.path))
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.integers(0, len(FASTA)), st.binary(max_size=6), st.integers(0, 6))
def test_damage_is_refused_or_harmless_but_never_another_error(tmp_path, pack, at, inserted, lost):
    packed = (bytes, gzip.compress, lzma.compress, bz2.compress)[pack](FASTA)
    damaged = packed[:at] + inserted + packed[at + lost :]
    try:
        blocks = list(read_blocks(write(tmp_path / "db.fasta", damaged)))
    except SearchError as error:
        assert str(error).startswith(str(tmp_path / "db.fasta"))
    else:
        assert sum(len(block.sequences) for block in blocks) >= 1


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent.fasta", tmp_path):
        with pytest.raises(SearchError, match="cannot be read"):
            records(Database("db", path))


def test_a_folder_gives_its_databases_in_published_order(tmp_path):
    names = ["zebra.fa", "mgy_clusters_2022.fa.gz", "uniprot.fasta", "small_bfd.fasta.xz", "uniref90.FASTA"]
    for name in [*names, "notes.txt", ".hidden.fasta"]:
        (tmp_path / name).write_bytes(FASTA)
    (tmp_path / "folder.fasta").mkdir()
    found = databases_in(tmp_path)
    assert [d.name for d in found] == ["uniref90", "small_bfd", "mgy_clusters_2022", "uniprot", "zebra"]
    assert [d.kind for d in found] == ["uniref90", "bfd", "mgnify", "uniprot", "other"]
    assert [d.max_hits for d in found] == [10_000, None, 501, 50_000, None]


def test_one_file_is_one_database(tmp_path):
    (tmp_path / "mine.seqs").write_bytes(FASTA)
    assert databases_in(tmp_path / "mine.seqs") == [Database("mine", tmp_path / "mine.seqs")]


def test_a_folder_without_databases(tmp_path):
    with pytest.raises(SearchError, match="holds no FASTA file"):
        databases_in(tmp_path)
    with pytest.raises(SearchError, match="no such folder"):
        databases_in(tmp_path / "absent")
    (tmp_path / "a.fa").write_bytes(FASTA)
    (tmp_path / "a.fasta").write_bytes(FASTA)
    with pytest.raises(SearchError, match="both give a database named a"):
        databases_in(tmp_path)


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.fasta"))
    }


def test_the_demonstration_databases_are_what_their_script_makes(tmp_path):
    script = ROOT / "experiments" / "make_demo_data.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=300)
    made = digests(tmp_path)
    assert made == digests(ROOT / "parafold" / "data" / "demo_databases")
    assert made == {
        database.path.name: digests(database.path.parent)[database.path.name] for database in demo_databases()
    }


def test_the_demonstration_databases_have_the_stated_proportions():
    databases = demo_databases()
    assert [database.kind for database in databases] == ["uniref90", "bfd", "mgnify"]
    residues = [sum(len(sequence) for _, sequence in records(database)) for database in databases]
    for count, share in zip(residues, (59, 17, 71), strict=True):
        assert count / sum(residues) == pytest.approx(share / 147, rel=0.01)
    assert sum(database.path.stat().st_size for database in databases) <= 3_000_000
