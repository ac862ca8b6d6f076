import gzip
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parafold.errors import OutputError, SearchError
from parafold.msa.database import Database, databases_in, demo_databases
from parafold.msa.fasta import MAX_TARGET_RESIDUES, count_records, read_blocks
from parafold.msa.shards import Shard, split, whole, write_shards

# What texts are made of that are hard to cut: '>' in odd places, all kinds of line ends, defects.
PARTS = [
    b">", b">x\n", b">y some > text\r\n", b">z\r", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\t",
    b"ACDEF", b"acd", b"*", b"ACDEFGHIKLMNPQRSTVWY\n", b"  >w\n", b"1", b"-", b"\0", b"\xe9",
    b"\xef\xbb\xbf", b">\xe9t\n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)


def outcome(path: Path, shards: list[Shard] | None = None) -> list[tuple[str, str]] | str:
    """The records of a file, read whole or shard by shard; or the error's message."""
    records = []
    try:
        for shard in shards or [Shard(path, 0, path.stat().st_size)]:
            for block in read_blocks(shard.path, shard.start, shard.end):
                records += [(record.name, record.textize().sequence) for record in block]
    except SearchError as error:
        return str(error)
    return records


def fasta(count: int, length: int = 60) -> bytes:
    return b"".join(b">r%d\n%s\n" % (i, (b"ACDEFGHIKLMNPQRSTVWY" * length)[:length]) for i in range(count))


@settings(max_examples=250, deadline=None)
@given(TEXTS, st.integers(1, 12))
@example(b"\n" * 50 + b">a\nACDEF\n", 4)
@example(b">a\nAC>b\nDEF\n", 5)
@example(b">a\n>b\n>c\nACD\n>d\n", 4)
@example(b">a\rACD\r>b\rAC1\r", 3)
def test_shards_hold_the_records_of_the_whole_and_its_errors(text: bytes, count: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "db.fasta")
        path.write_bytes(text)
        shards = split(Database("db", path), count)
        assert [shard.start for shard in shards[1:]] == [shard.end for shard in shards[:-1]]
        assert (shards[0].start, shards[-1].end) == (0, len(text))
        assert outcome(path, shards) == outcome(path)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.integers(1, 6))
@example(b">a\nACD\n>b\n>c\nACDEFGHIKLMNPQRSTVWY\n", 4)
def test_shards_as_files_hold_the_records_of_the_whole(text: bytes, count: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "db.fasta")
        path.write_bytes(text)
        expected = outcome(path)
        try:
            written = write_shards(Database("db", path), count, Path(folder, "shards"))
        except SearchError as error:
            assert str(error) == expected
            return
        found = outcome(path, [Shard(file, 0, file.stat().st_size) for file in written.files])
        assert b"".join(file.read_bytes() for file in written.files) == text
        assert found == expected or (isinstance(found, str) and isinstance(expected, str))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_records_are_counted_as_they_are_read(text: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "db.fasta")
        path.write_bytes(text)
        records = outcome(path)
        if not isinstance(records, str):
            assert count_records(path) == len(records)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 60])
def test_shards_are_about_equal(count: int):
    for database in demo_databases():
        shards = split(database, count)
        assert len(shards) == count
        assert sum(shard.bytes for shard in shards) == whole(database).bytes
        assert max(shard.bytes for shard in shards) < 1.1 * database.bytes / count + 2000
        for shard in shards:
            with shard.path.open("rb") as file:
                file.seek(shard.start)
                assert file.read(1) == b">"


def test_fewer_records_than_shards(tmp_path: Path):
    path = tmp_path / "db.fasta"
    path.write_bytes(fasta(3))
    assert [shard.bytes for shard in split(Database("db", path), 10)] == [65, 65, 65]


def test_no_shard_spans_two_files(tmp_path: Path):
    write_shards(database_of(tmp_path / "db.fasta", fasta(100)), 3, tmp_path)
    shards = split(Database("db", tmp_path / "db.fasta@3"), 10)
    assert 9 <= len(shards) <= 11
    assert len({shard.path for shard in shards}) == 3
    for before, after in pairwise(shards):
        assert (after.start == before.end) if before.path == after.path else (after.start == 0)


def test_one_giant_record_is_not_read_for_each_shard(tmp_path: Path):
    path = tmp_path / "db.fasta"
    path.write_bytes(b">a\nACDEF\n>b\n" + b"A" * 30_000_000 + b"\n>c\nACDEF\n")
    start = time.process_time()
    assert len(split(Database("db", path), 1000)) == 2
    assert time.process_time() - start < 2


@pytest.mark.parametrize("defect", [b">bad\nAC1DEF\n", b">bad\n" + b"A" * (MAX_TARGET_RESIDUES + 1) + b"\n"])
def test_a_defect_is_told_with_its_line_whichever_shard_holds_it(tmp_path: Path, defect: bytes):
    text = fasta(40_000) + defect + fasta(20_000)
    path = tmp_path / "db.fasta"
    path.write_bytes(text)
    line = fasta(40_000).count(b"\n") + (2 if b"1" in defect else 1)
    for count in (1, 2, 7, 50):
        assert str(outcome(path, split(Database("db", path), count))).startswith(f"{path} line {line}: ")


def test_a_file_cut_in_its_last_header_is_refused_by_its_last_shard(tmp_path: Path):
    path = tmp_path / "db.fasta"
    path.write_bytes(fasta(100) + b">last one")
    for count in (1, 3, 100):
        shards = split(Database("db", path), count)
        assert "line 201: ends after the header of last" in str(outcome(path, shards))
        assert not isinstance(outcome(path, shards[:-1]), str) or count == 1


def test_a_stretch_of_nucleotides_in_a_protein_database_is_no_defect(tmp_path: Path):
    path = tmp_path / "db.fasta"
    path.write_bytes(fasta(50) + b"".join(b">n%d\n%s\n" % (i, b"ACGT" * 25) for i in range(50)))
    assert len(outcome(path, split(Database("db", path), 10))) == 100
    written = write_shards(Database("db", path), 10, tmp_path / "shards")
    assert len(outcome(path, [Shard(file, 0, file.stat().st_size) for file in written.files])) == 100


def database_of(path: Path, content: bytes) -> Database:
    path.write_bytes(content)
    return Database("db", path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_written_shards_are_a_database(tmp_path: Path, pack):
    ending = {bytes: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]
    database = database_of(tmp_path / f"db.fasta{ending}", pack(fasta(1000)))
    steps = []
    written = write_shards(database, 4, tmp_path / "shards", lambda done, total: steps.append((done, total)))
    assert written == Database("db", tmp_path / "shards/db.fasta@4")
    names = [f"db.fasta-0000{i}-of-00004" for i in range(4)]
    assert [file.name for file in written.files] == names
    visible = {path.name for path in (tmp_path / "shards").iterdir() if not path.name.startswith(".lock")}
    assert visible == {*names, "db.fasta@4.sha256"}
    assert databases_in(tmp_path / "shards") == [written]
    assert steps[-1] == (len(fasta(1000)),) * 2


def test_shards_that_are_there_and_intact_are_kept(tmp_path: Path):
    database = database_of(tmp_path / "db.fasta", fasta(1000))
    files = write_shards(database, 5, tmp_path / "shards").files
    before = [file.stat().st_ino for file in files]
    content = files[1].read_bytes()
    files[1].write_bytes(content[:-1] + b"X")
    files[3].unlink()
    assert write_shards(database, 5, tmp_path / "shards").files == files
    assert files[1].read_bytes() == content
    kept = [a == b.stat().st_ino for a, b in zip(before, files, strict=True)]
    assert [kept[0], kept[2], kept[4]] == [True] * 3
    database.path.write_bytes(fasta(999) + fasta(1))
    write_shards(database, 5, tmp_path / "shards")
    assert b"".join(file.read_bytes() for file in files) == fasta(999) + fasta(1)


def test_a_killed_run_leaves_whole_shards_and_the_next_one_finishes(tmp_path: Path):
    database = database_of(tmp_path / "db.fasta", fasta(100_000))
    shards = tmp_path / "shards"
    program = (
        "import sys; from pathlib import Path; from parafold.msa.shards import write_shards\n"
        "from parafold.msa.database import Database\n"
        "database, folder = Database('db', Path(sys.argv[1])), Path(sys.argv[2])\n"
        "write_shards(database, 200, folder, lambda *_: print(flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(database.path), str(shards)], stdout=subprocess.PIPE
    )
    assert process.stdout
    with process:
        for _ in range(30):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    (shards / f".part-{'0' * 12}-other-00~").write_bytes(b"of another database")
    done = {path: path.stat().st_ino for path in shards.glob("*-of-00200")}
    assert 30 <= len(done) < 200
    written = write_shards(database, 200, shards)
    assert b"".join(file.read_bytes() for file in written.files) == fasta(100_000)
    assert sum(path.stat().st_ino != inode for path, inode in done.items()) <= 1
    assert [path.name for path in shards.glob(".part-*")] == [f".part-{'0' * 12}-other-00~"]


def test_what_cannot_be_split_is_refused(tmp_path: Path):
    with pytest.raises(SearchError, match="cannot be read"):
        split(Database("db", tmp_path / "absent.fasta"), 3)
    database = database_of(tmp_path / "db.fasta", fasta(10))
    write_shards(database, 2, tmp_path)
    with pytest.raises(SearchError, match="in shards already"):
        write_shards(Database("db", tmp_path / "db.fasta@2"), 2, tmp_path / "again")
    (tmp_path / "hh_a3m.ffdata").write_bytes(b"")
    with pytest.raises(SearchError, match="hhsuite"):
        write_shards(Database("hh", tmp_path / "hh"), 2, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="folder"):
        write_shards(database, 2, tmp_path / "file")


def test_missing_shards_are_named(tmp_path: Path):
    database = write_shards(database_of(tmp_path / "db.fasta", fasta(10)), 4, tmp_path)
    (tmp_path / "db.fasta-00002-of-00004").unlink()
    with pytest.raises(SearchError, match=r"1 of 4 shards are missing, db.fasta-00002-of-00004 first"):
        _ = database.files
