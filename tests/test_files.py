import errno
import hashlib
import os
import stat
import subprocess
import sys

import pytest

from parafold.errors import OutputError
from parafold.files import atomic_write, make_folder, output_error, sha256_file


def test_writes_text_and_bytes_and_makes_folders(tmp_path):
    target = tmp_path / "new" / "folder" / "file"
    atomic_write(target, "Å\n")
    assert target.read_bytes() == b"\xc3\x85\n"
    atomic_write(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert sha256_file(target) == hashlib.sha256(b"\x00\xff").hexdigest()
    assert list(target.parent.iterdir()) == [target]


def test_others_may_read_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def error_in_child(target, size, *, after):
    """What atomic_write says to `size` bytes for `target`, in a process of its own after some statements."""
    program = (
        "import os, resource, sys\n"
        "from parafold.errors import OutputError\n"
        "from parafold.files import atomic_write\n"
        f"{after}\n"
        "try: atomic_write(sys.argv[1], b'n' * int(sys.argv[2]))\n"
        "except OutputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(target), str(size)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_old_file_stays_if_writing_fails(tmp_path):
    target = tmp_path / "file"
    atomic_write(target, b"old")

    # A real refusal by the system, half-way.
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    assert "choose another folder" in error_in_child(target, 100_000, after=limit)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    said = error_in_child(tmp_path / "file", 0, after="if os.geteuid() == 0: os.setuid(65534)")
    assert "no permission to write there; choose a folder that you may write to" in said


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"taken.*choose another folder|taken.*remove it"):
        make_folder(tmp_path / "taken")
    with pytest.raises(OutputError, match="not a folder"):
        atomic_write(tmp_path / "taken" / "below" / "file", b"")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "name").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is in the way"):
        atomic_write(tmp_path / "name", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError, match="shorter name"):
        atomic_write(tmp_path / ("n" * 300), b"")


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_messages_say_what_where_and_what_to_do(number, words):
    message = str(output_error("out/x.cif", OSError(number, os.strerror(number))))
    assert message.startswith("out/x.cif: ") and words in message and ";" in message and "\n" not in message
