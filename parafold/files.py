"""Writing files so that a final name always means a complete file."""

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from pathlib import Path

from parafold.errors import OutputError

# Names of files that are still being written; after a killed run, litter.
UNFINISHED = ".part-*~"

_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another folder"),
    errno.EFBIG: ("the file is larger than this file system allows", "choose another folder"),
    errno.EACCES: ("no permission to write there", "choose a folder that you may write to"),
    errno.EPERM: ("no permission to write there", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "choose another folder"),
    errno.EISDIR: ("a folder of that name is in the way", "remove it or choose another name"),
    errno.EEXIST: ("a file of that name is in the way", "remove it or choose another folder"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "use a shorter name"),
}


def output_error(path: str | os.PathLike, error: OSError) -> OutputError:
    """The one-line error for a failed write to `path`: what, where, what to do."""
    what, remedy = _REMEDIES.get(
        error.errno or 0, (error.strerror or type(error).__name__, "check the folder and try again")
    )
    return OutputError(f"{os.fspath(path)}: cannot be written, {what}; {remedy}")


def user_data_folder() -> Path:
    """Where this platform keeps a user's data for parafold; it may not exist yet."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "parafold"


def make_folder(path: str | os.PathLike) -> Path:
    """Create the folder `path` and its parents; one that is there already is fine.

    Raises:
      OutputError: it cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, all or nothing.

    The bytes go to a file beside the target, reach the disk, and only then take the final name, so that
    neither a full disk nor a killed process leaves half a file under that name. Missing folders are made.

    Raises:
      OutputError: the disk is full, permission is missing, or the place is not a folder.
    """
    target = Path(path)
    folder = make_folder(target.parent)
    payload = data.encode() if isinstance(data, str) else data
    # A name of its own, for two processes may write the same target.
    beside = folder / f".part-{secrets.token_hex(8)}~"
    try:
        with beside.open("xb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
        _sync_folder(folder)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def sha256_file(path: str | os.PathLike) -> str:
    """The SHA-256 digest of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; some network file systems refuse this, and that loses nothing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
