"""Packed FASTA databases are unpacked once: only a plain file can be read in parts."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from parafold import files
from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.fasta import Progress, is_packed, unpacked_bytes
from parafold.msa.fingerprint import fingerprint

# What another machine left half written is taken for litter when nothing was added to it for so long.
_ABANDONED_SECONDS = 24 * 3600


def unpacked(database: Database, folder: Path, progress: Progress | None = None) -> Database:
    """The database with a plain file: itself, or what is unpacked in `folder`, now or by an earlier run.

    Processes that want the same file wait for the first one. What is unpacked has a name for the path and
    fingerprint of the packed file; unpackings of the path as it was before are removed.

    Raises:
        SearchError: the file is damaged, changes meanwhile, or is one of several packed shards.
        OutputError: the folder cannot be written, or the disk is full.
    """
    if database.format != "fasta" or not any(is_packed(file) for file in database.files):
        return database
    if len(database.files) > 1:
        raise SearchError(
            f"{database.path}: the shards are packed; unpack them, a shard must be a plain file"
        )
    files.make_folder(folder)
    source = label_of(database.path)
    with locked(folder / f".lock-{source}"):
        before = fingerprint(database)
        target = folder / f"{database.name.replace('/', '_')[:60]}-{source}-{before.key[:16]}.fasta"
        if not target.exists():
            remove_litter(folder, source)
            stream_to(target, unpacked_bytes(database.path, progress), source)
            if change := before.difference(fingerprint(database)):
                target.unlink()
                raise SearchError(f"{database.path}: changed while it was unpacked ({change}); run it again")
        for stale in folder.glob(f"*-{source}-*.fasta"):
            if stale != target:
                stale.unlink(missing_ok=True)
    return dataclasses.replace(database, path=target)


def stream_to(target: Path, pieces: Iterable[bytes], label: str) -> str:
    """Write a file that may be larger than memory; it takes its final name when it is complete, or never.

    `label` is part of the name it has until then (see `remove_litter`). Returns its SHA-256 digest.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    beside = target.with_name(f".part-{label}-{_host()}-{secrets.token_hex(8)}~")
    digest = hashlib.sha256()
    try:
        with beside.open("xb") as stream:
            for piece in pieces:
                digest.update(piece)
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    except OSError as error:
        raise files.output_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, by a lock on a file that is made for it.

    Raises:
        OutputError: the file cannot be made.
    """
    try:
        handle = path.open("a")
    except OSError as error:
        raise files.output_error(path, error) from error
    with handle:
        # On a file system without locks the work may be done twice, but not wrongly.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def label_of(path: Path) -> str:
    """What stands for a path in the names of other files."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]


def remove_litter(folder: Path, label: str) -> None:
    """What killed runs of this machine left half written: with the lock held, nobody here is at it."""
    for litter in folder.glob(f".part-{label}-*~"):
        with contextlib.suppress(OSError):
            age = time.time() - litter.stat().st_mtime
            if litter.name.startswith(f".part-{label}-{_host()}-") or age > _ABANDONED_SECONDS:
                litter.unlink()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:40]
