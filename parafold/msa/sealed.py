"""Files that carry their own digest: a damaged one is noticed when it is read, never believed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from parafold import files
from parafold.errors import SearchError

# The last line: the digest of everything before it.
_SEAL_BYTES = 65
_PIECE_BYTES = 1 << 20


class DamagedError(SearchError):
    """A sealed file is not what was written."""


class SealedWriter:
    """Writes a sealed file piece by piece; it takes its final name when it is complete, or never.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = files.make_folder(path.parent) / f".part-{secrets.token_hex(8)}~"
        self._digest = hashlib.sha256()
        self.position = 0
        try:
            self._stream = self._beside.open("xb")
        except OSError as error:
            raise files.output_error(path, error) from error

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise files.output_error(self._path, error) from error
        self._digest.update(data)
        self.position += len(data)

    def __enter__(self) -> SealedWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._stream.write(self._digest.hexdigest().encode() + b"\n")
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._beside.replace(self._path)
        except OSError as problem:
            raise files.output_error(self._path, problem) from problem
        finally:
            with contextlib.suppress(OSError):  # a full disk, told by the first error
                self._stream.close()
            with contextlib.suppress(OSError):
                self._beside.unlink(missing_ok=True)


def write_sealed(path: Path, pieces: Iterable[bytes]) -> None:
    """Raises OutputError where the disk is full, or the folder cannot be written."""
    with SealedWriter(path) as writer:
        for piece in pieces:
            writer.write(piece)


def last_line(path: Path) -> bytes:
    """The last line of what was written, once the whole file is known to be sound; reads it in pieces.

    Raises:
        DamagedError: the file is damaged, or cannot be read.
    """
    digest = hashlib.sha256()
    position = start = 0
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size - _SEAL_BYTES
            while position < end and (piece := file.read(min(end - position, _PIECE_BYTES))):
                digest.update(piece)
                # The last byte of all ends the line in question.
                newline = piece.rfind(b"\n", 0, end - position - 1)
                start = position + newline + 1 if newline >= 0 else start
                position += len(piece)
            seal = file.read()
            file.seek(start)
            line = file.read(max(0, end - start))
    except OSError as error:
        raise _unreadable(path, error) from error
    if digest.hexdigest().encode() + b"\n" != seal:
        raise _damaged(path)
    return line


def read_sealed(path: Path) -> bytes:
    """What was written.

    Raises:
        DamagedError: the file is damaged, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != seal:
        raise _damaged(path)
    return body


def _unreadable(path: Path, error: OSError) -> DamagedError:
    return DamagedError(f"{path}: cannot be read ({error.strerror}); it will be made again")


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path}: is damaged (its digest does not fit); it will be made again")
