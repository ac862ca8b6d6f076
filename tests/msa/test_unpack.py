import bz2
import gzip
import lzma
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parafold.errors import OutputError, SearchError
from parafold.msa.database import Database
from parafold.msa.shards import write_shards
from parafold.msa.unpack import unpacked

FASTA = b"".join(b">r%d\n%s\n" % (i, b"ACDEFGHIKLMNPQRSTVWY" * 5) for i in range(20_000))


def packed(path: Path, content: bytes = FASTA) -> Database:
    pack = {".gz": gzip.compress, ".xz": lambda c: lzma.compress(c, preset=0), ".bz2": bz2.compress}[
        path.suffix
    ]
    path.write_bytes(pack(content))
    return Database("db", path, z=7)


@pytest.mark.parametrize("ending", ["gz", "xz", "bz2"])
def test_packed_once(tmp_path: Path, ending: str):
    database = packed(tmp_path / f"db.fasta.{ending}")
    steps = []
    first = unpacked(database, tmp_path / "plain", lambda done, total: steps.append((done, total)))
    assert first.path.read_bytes() == FASTA
    assert (first.name, first.z, first.max_hits, first.kind) == ("db", 7, None, "other")
    assert steps[-1] == (database.bytes, database.bytes)
    inode = first.path.stat().st_ino
    assert unpacked(database, tmp_path / "plain") == first
    assert first.path.stat().st_ino == inode


def test_what_is_plain_stays_where_it_is(tmp_path: Path):
    path = tmp_path / "db.fasta"
    path.write_bytes(FASTA)
    database = Database("db", path)
    assert unpacked(database, tmp_path / "plain") is database
    assert unpacked(write_shards(database, 3, tmp_path), tmp_path / "plain").path.name == "db.fasta@3"
    (tmp_path / "bfd_a3m.ffdata").write_bytes(b"")
    bfd = Database("bfd", tmp_path / "bfd")
    assert unpacked(bfd, tmp_path / "plain") is bfd
    assert not (tmp_path / "plain").exists()


def visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".lock")]


def test_a_changed_file_replaces_what_was_unpacked_before(tmp_path: Path):
    other = unpacked(packed(tmp_path / "other.fasta.gz"), tmp_path / "plain")
    first = unpacked(packed(tmp_path / "db.fasta.gz"), tmp_path / "plain")
    second = unpacked(packed(tmp_path / "db.fasta.gz", FASTA[: len(FASTA) // 2]), tmp_path / "plain")
    assert second.path.read_bytes() == FASTA[: len(FASTA) // 2]
    assert first.path != second.path
    assert set(visible(tmp_path / "plain")) == {other.path, second.path}


@pytest.mark.parametrize("ending", ["gz", "xz", "bz2"])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path: Path, ending: str):
    database = packed(tmp_path / f"db.fasta.{ending}")
    database.path.write_bytes(database.path.read_bytes()[:-30])
    with pytest.raises(SearchError, match=f"db.fasta.{ending}: .*damaged or truncated"):
        unpacked(database, tmp_path / "plain")
    assert visible(tmp_path / "plain") == []


def test_packed_shards_are_refused(tmp_path: Path):
    for index in range(2):
        (tmp_path / f"db.fasta-0000{index}-of-00002").write_bytes(gzip.compress(FASTA))
    with pytest.raises(SearchError, match="shards are packed"):
        unpacked(Database("db", tmp_path / "db.fasta@2"), tmp_path / "plain")


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "plain").write_bytes(b"a file")
    with pytest.raises(OutputError, match="plain"):
        unpacked(packed(tmp_path / "db.fasta.gz"), tmp_path / "plain")


PROGRAM = (
    "import sys; from pathlib import Path; from parafold.msa.unpack import unpacked\n"
    "from parafold.msa.database import Database\n"
    "print(unpacked(Database('db', Path(sys.argv[1])), Path(sys.argv[2]), lambda *_: print(flush=True)).path)"
)


def test_no_room(tmp_path: Path):
    """A limit on the size of files stands for a full disk: both fail in the middle of a write."""
    database = packed(tmp_path / "db.fasta.gz")

    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    command = [sys.executable, "-c", limit + PROGRAM, str(database.path), str(tmp_path / "plain")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert "OutputError" in process.stderr.splitlines()[-1]
    assert "larger than this file system allows" in process.stderr.splitlines()[-1]
    assert visible(tmp_path / "plain") == []


def test_a_killed_run_leaves_no_file_under_a_final_name_and_the_next_clears_up(tmp_path: Path):
    database = packed(tmp_path / "db.fasta.bz2", FASTA * 8)
    command = [sys.executable, "-c", PROGRAM, str(database.path), str(tmp_path / "plain")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    (litter,) = visible(tmp_path / "plain")
    assert litter.name.startswith(".part-")
    assert visible(tmp_path / "plain") == [litter]
    plain = unpacked(database, tmp_path / "plain")
    assert visible(tmp_path / "plain") == [plain.path]
    assert plain.path.read_bytes() == FASTA * 8


def test_processes_at_once_unpack_once(tmp_path: Path):
    database = packed(tmp_path / "db.fasta.bz2", FASTA * 2)
    command = [sys.executable, "-c", PROGRAM, str(database.path), str(tmp_path / "plain")]
    with ThreadPoolExecutor() as pool:
        run = lambda _: subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: E731
        printed = [line for lines in pool.map(run, range(3)) for line in lines]
    assert len(set(printed)) == 1
    assert Path(printed[0]).read_bytes() == FASTA * 2
    assert visible(tmp_path / "plain") == [Path(printed[0])]
