"""Shards: record-aligned byte ranges of FASTA files, searched without being copied; copies for programs."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from parafold import files
from parafold.errors import SearchError
from parafold.msa.database import Database, file_size, shard_path
from parafold.msa.fingerprint import fingerprint
from parafold.msa.unpack import label_of, locked, remove_litter, stream_to, unpacked

_STEP = 1 << 16
_COPIED = 1 << 20
# A '>' may begin a record elsewhere too, but here it always does.
_RECORD = re.compile(rb"[\n\r]>")
_DIGEST = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>.+)\n")


class Shard(NamedTuple):
    """The records of a FASTA file whose '>' stands from byte `start` to before byte `end`. A database that
    cannot be split is one shard: `path` is the database's, `start` is 0, `end` its size."""

    path: Path
    start: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.start


def whole(database: Database) -> Shard:
    """The database as one piece."""
    return Shard(database.path, 0, database.bytes)


def split(database: Database, count: int) -> list[Shard]:
    """Cut an unpacked FASTA database into about `count` shards of about equal size, none across two files.

    A record is never cut: there are fewer shards where records are few. Of each file `count` short pieces are
    read, however large it is.

    Raises:
        SearchError: a file cannot be read.
    """
    total = max(database.bytes, 1)
    shards: list[Shard] = []
    for file in database.files:
        size = file_size(file)
        pieces = max(1, round(count * size / total))
        # The first record stays with what stands before it.
        first = edge = _record_at(file, 0)
        edges = [0]
        for piece in range(1, pieces):
            if (position := size * piece // pieces) > edge:
                edge = _record_at(file, position)
            if first < edge < size and edge != edges[-1]:
                edges.append(edge)
        shards += [Shard(file, start, end) for start, end in pairwise([*edges, size])]
    return shards


def write_shards(
    database: Database,
    count: int,
    folder: Path,
    progress: Callable[[int, int | None], None] | None = None,
) -> Database:
    """Copy a FASTA database into `count` files of about equal size, `FILE-00000-of-00064` and so on, for
    programs that cannot read a part of a file; there are fewer where records are few.

    A run that was broken off goes on where it stopped. A packed database is unpacked beside the shards for as
    long as it takes. `progress` is called with the bytes that are done, and the bytes there are.

    Returns the database of the shards: its path is `FILE@64`.

    Raises:
        SearchError: the database is not FASTA, cannot be read, or changes meanwhile.
        OutputError: the folder cannot be written, or the disk is full.
    """
    if database.format != "fasta":
        raise SearchError(
            f"{database.path}: is in the format {database.format}, which cannot be split exactly; FASTA can"
        )
    if len(database.files) > 1:
        raise SearchError(f"{database.path}: is in shards already; give the whole database")
    base = folder / re.sub(r"\.(gz|xz|bz2)$", "", database.path.name)
    unpacking = folder / f".unpacked-{base.name}"
    label = label_of(base)
    files.make_folder(folder)
    with locked(folder / f".lock-{label}"):
        remove_litter(folder, label)
        before = fingerprint(database)
        shards = split(unpacked(database, unpacking), count)
        record = base.with_name(f"{base.name}@{len(shards)}.sha256")
        digests = _recorded(record, before.key)
        files.atomic_write(record, _head(before.key) + "".join(map(_line, digests.values(), digests)))
        total, done = sum(shard.bytes for shard in shards), 0
        for index, shard in enumerate(shards):
            path = shard_path(base, index, len(shards))
            if not (path.exists() and files.sha256_file(path) == digests.get(path.name)):
                _append(record, _line(stream_to(path, _bytes_of(shard), label), path.name))
            done += shard.bytes
            if progress:
                progress(done, total)
        if change := before.difference(fingerprint(database)):
            record.unlink()
            raise SearchError(f"{database.path}: changed while it was split ({change}); run it again")
        shutil.rmtree(unpacking, ignore_errors=True)
    return dataclasses.replace(database, path=base.with_name(f"{base.name}@{len(shards)}"))


def _recorded(record: Path, source: str) -> dict[str, str]:
    """The shards that an earlier run made from the same source: file name -> digest."""
    try:
        lines = record.read_text().splitlines(keepends=True)
    except (OSError, ValueError):
        return {}
    if lines[:1] != [_head(source)]:
        return {}
    # The last line may be torn.
    return {match["name"]: match["digest"] for line in lines if (match := _DIGEST.fullmatch(line))}


def _head(source: str) -> str:
    return f"# made from {source}\n"


def _line(digest: str, name: str) -> str:
    """As the program sha256sum writes and checks it."""
    return f"{digest}  {name}\n"


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a") as file:
            file.write(line)
    except OSError as error:
        raise files.output_error(path, error) from error


def _bytes_of(shard: Shard) -> Iterator[bytes]:
    try:
        with shard.path.open("rb") as file:
            file.seek(shard.start)
            left = shard.bytes
            while left > 0:
                if not (piece := file.read(min(left, _COPIED))):
                    raise SearchError(f"{shard.path}: has become shorter; fetch it again")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise SearchError(f"{shard.path}: cannot be read ({error.strerror}); check the path") from error


def _record_at(path: Path, position: int) -> int:
    """Where the first '>' begins a line at or after `position`; the file's size if none does."""
    try:
        with path.open("rb") as file:
            file.seek(max(position - 1, 0))
            # The file's begin is the begin of a line.
            tail, at = (b"\n", 0) if position == 0 else (b"", position - 1)
            while block := file.read(_STEP):
                if found := _RECORD.search(tail + block):
                    return at - len(tail) + found.start() + 1
                at += len(block)
                tail = block[-1:]
            return at
    except OSError as error:
        raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error
