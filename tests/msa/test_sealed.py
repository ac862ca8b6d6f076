"""Sealed files: complete or absent, and believed only as they were written."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parafold.errors import OutputError
from parafold.msa.sealed import DamagedError, SealedWriter, last_line, read_sealed, write_sealed

PIECES = [b"one line\n", b"", b"\0\xff binary\n", b"the last line\n"]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "new folder" / "file"
    write_sealed(path, PIECES)
    return path


def test_what_was_written_is_read(sealed, tmp_path):
    assert read_sealed(sealed) == b"".join(PIECES)
    assert last_line(sealed) == b"the last line\n"
    write_sealed(tmp_path / "empty", [])
    assert read_sealed(tmp_path / "empty") == last_line(tmp_path / "empty") == b""


@pytest.mark.parametrize("length", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_the_last_line_may_begin_in_any_piece(tmp_path, length):
    path = tmp_path / "file"
    for end in (b"x\n", b"x" * (1 << 20) + b"\n"):
        write_sealed(path, [b"y" * (length - 1), b"\n", end])
        assert last_line(path) == end


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage_is_noticed(sealed, tmp_path, data):
    content = sealed.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    path = tmp_path / "damaged"
    for damaged in (flipped, content[:at], content[at + 1 :], content + content[at:]):
        path.write_bytes(damaged)
        for read in (read_sealed, last_line):
            with pytest.raises(DamagedError, match=r"damaged: is damaged.*made again"):
                read(path)


def test_what_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        for read in (read_sealed, last_line):
            with pytest.raises(DamagedError, match="cannot be read"):
                read(path)


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    with SealedWriter(path) as writer:
        writer.write(b"half")
        assert not path.exists()
    assert path.exists() and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_one_that_was_broken_off_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write_sealed(path, [b"old"])
    with pytest.raises(KeyboardInterrupt), SealedWriter(path) as writer:
        writer.write(b"new")
        raise KeyboardInterrupt
    assert read_sealed(path) == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_disk_that_takes_no_more_is_named_and_nothing_is_left(tmp_path, size):
    """A limit on file sizes stops the writing, early or as the buffer is flushed at the end."""
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom parafold.errors import OutputError\n"
        "from parafold.msa.sealed import write_sealed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        f"try: write_sealed(Path(sys.argv[1]) / 'file', [b'x' * {size}])\n"
        "except OutputError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(f"{tmp_path}/file: cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_sealed(tmp_path / "file" / "sealed", [b""])
