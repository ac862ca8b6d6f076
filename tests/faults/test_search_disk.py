"""A search whose disk is full ends with one line and exit code 2, and goes on once there is space."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parafold.files import UNFINISHED

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.fasta"))


def run(
    out: Path,
    cache: Path,
    *options: str,
    file_limit: int | None = None,
    tmp: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    # The limit is set by the program itself: nothing runs between fork and exec beside JAX's threads.
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit}, {file_limit})); " if file_limit else ""
    program = f"import resource; {limit}from parafold.cli import main; main()"
    return subprocess.run(
        [
            *(sys.executable, "-c", program, "msa", *map(str, EXAMPLES), "-o", str(out)),
            *("--cache", str(cache), "--workers", "2", "--shards", "4", *options),
        ],
        capture_output=True,
        text=True,
        env=os.environ | ({"TMPDIR": str(tmp)} if tmp else {}),
    )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert all(word in line for word in ("cannot be written", *words)), line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def litter(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(UNFINISHED)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    assert run(folder / "out", folder / "cache").returncode == 0
    return contents(folder / "out")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 16 MB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes the disk's space but for `leave` bytes."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(bytes(max(0, free - leave)))
    return ballast


@pytest.mark.parametrize("leave", [0, 40_000, 150_000, 300_000, 450_000])
def test_a_full_disk_under_the_cache(disk: Path, tmp_path: Path, expected: dict[str, bytes], leave: int):
    ballast = fill(disk, leave)
    refused(run(tmp_path / "out", disk / "cache"), str(disk), "the disk is full; free some space")
    assert not litter(disk)
    ballast.unlink()
    result = run(tmp_path / "out", disk / "cache")
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(tmp_path / "out") == expected


def test_a_full_disk_under_the_output(disk: Path, tmp_path: Path, expected: dict[str, bytes]):
    ballast = fill(disk, leave=300_000)
    refused(run(disk / "out", tmp_path / "cache"), str(disk / "out"), "the disk is full; free some space")
    assert not litter(disk, tmp_path / "cache")
    written = contents(disk / "out")
    assert written.items() <= expected.items() and 0 < len(written) < len(expected)
    ballast.unlink()
    assert run(disk / "out", tmp_path / "cache").returncode == 0
    assert contents(disk / "out") == expected


def test_a_full_disk_for_temporary_files(disk: Path, tmp_path: Path):
    fill(disk, leave=100_000)
    refused(run(tmp_path / "out", tmp_path / "cache", "--no-cache", tmp=disk), "the disk is full")


def test_a_limit_on_the_size_of_files(tmp_path: Path, expected: dict[str, bytes]):
    result = run(tmp_path / "out", tmp_path / "cache", file_limit=20_000)
    refused(result, "the file is larger than")
    assert not litter(tmp_path)
    assert run(tmp_path / "out", tmp_path / "cache").returncode == 0
    assert contents(tmp_path / "out") == expected
