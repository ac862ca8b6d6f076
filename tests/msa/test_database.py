import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa import Database, databases_in, demo_databases
from parafold.msa.database import shard_of
from parafold.msa.fasta import read_blocks

ROOT = Path(__file__).resolve().parents[2]
FASTA = b">a\nACDEFGHIKL\n"


def records(database):
    return [record for block in read_blocks(database.path) for record in block]


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


def test_shards_in_a_folder_are_one_database(tmp_path):
    for index in range(3):
        (tmp_path / f"mgnify.fasta-0000{index}-of-00003").write_bytes(FASTA)
    (database,) = databases_in(tmp_path)
    assert database == Database("mgnify", tmp_path / "mgnify.fasta@3")
    assert databases_in(tmp_path / "mgnify.fasta@3") == [database]
    assert [file.name[-5:] for file in database.files] == ["00003"] * 3
    assert database.bytes == 3 * len(FASTA)
    assert shard_of(database.files[2]) == (2, 3)
    assert shard_of(tmp_path / "mgnify.fasta") is None


def test_formats_are_known_by_their_files(tmp_path):
    for name in (
        "bfd_a3m.ffdata",
        "bfd_a3m.ffindex",
        "u_hhm.ffdata",
        "mm",
        "mm.index",
        "mm.dbtype",
        "x.fasta",
    ):
        (tmp_path / name).write_bytes(b"")
    bfd = Database("bfd", tmp_path / "bfd", also=(tmp_path / "u",))
    assert bfd.format == "hhsuite"
    assert [file.name for file in bfd.files] == ["bfd_a3m.ffdata", "bfd_a3m.ffindex", "u_hhm.ffdata"]
    assert Database("mm", tmp_path / "mm").format == "mmseqs"
    assert [file.name for file in Database("mm", tmp_path / "mm").files] == ["mm", "mm.index", "mm.dbtype"]
    assert Database("x", tmp_path / "x.fasta").format == "fasta"
    with pytest.raises(SearchError, match="no file begins with"):
        _ = Database("bfd", tmp_path / "bfd", also=(tmp_path / "absent",)).files


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"kind": "pdb"}, "no kind 'pdb'"), ({"max_hits": 0}, "max_hits is 0"), ({"z": 0}, "z is 0")],
)
def test_wrong_values_are_refused(tmp_path, wrong, message):
    with pytest.raises(SearchError, match=message):
        Database("db", tmp_path / "db.fasta", **wrong)


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
    residues = [sum(map(len, records(database))) for database in databases]
    for count, share in zip(residues, (59, 17, 71), strict=True):
        assert count / sum(residues) == pytest.approx(share / 147, rel=0.01)
    assert sum(database.path.stat().st_size for database in databases) <= 3_000_000
