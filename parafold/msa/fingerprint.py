"""What tells a database from a changed one: sizes, dates, and digests of samples.

A database of hundreds of gigabytes takes an hour to read, two megabytes of it no time. Sampled digests notice
every change of length and nearly every new release; `parafold db verify --full` reads everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from parafold.errors import SearchError
from parafold.msa.database import Database

_BLOCK = 1 << 16
_SAMPLES = 32


@dataclass(frozen=True)
class FileMark:
    """One file of a database: its name without folders, size, date of change, and digest of samples."""

    name: str
    bytes: int
    modified_ns: int
    sample: str


@dataclass(frozen=True)
class Fingerprint:
    """The files of a database, in order."""

    files: tuple[FileMark, ...]

    @cached_property
    def key(self) -> str:
        """A digest of everything, the dates too: the same only for the same files."""
        return _digest([[mark.name, mark.bytes, mark.modified_ns, mark.sample] for mark in self.files])

    @cached_property
    def content_key(self) -> str:
        """A digest of sizes and samples: the same for copies under other names and dates."""
        return _digest([[mark.bytes, mark.sample] for mark in self.files])

    @property
    def bytes(self) -> int:
        return sum(mark.bytes for mark in self.files)

    def difference(self, other: Fingerprint) -> str:
        """What has changed from this one to `other`, in words; empty where nothing has.

        Names of files are told only where there are several.
        """
        if len(self.files) != len(other.files):
            return f"{len(self.files)} -> {len(other.files)} files"
        changes = []
        for old, new in zip(self.files, other.files, strict=True):
            changed = [
                *([f"name {old.name} -> {new.name}"] if old.name != new.name else []),
                *([f"size {old.bytes} -> {new.bytes} bytes"] if old.bytes != new.bytes else []),
                *(["content"] if old.bytes == new.bytes and old.sample != new.sample else []),
                *(["date"] if old.modified_ns != new.modified_ns else []),
            ]
            if changed:
                prefix = f"{new.name}: " if len(self.files) > 1 else ""
                changes.append(prefix + ", ".join(changed))
        return "; ".join(changes)

    def to_json(self) -> list[dict[str, Any]]:
        """As lists and dictionaries that JSON and TOML can hold."""
        return [asdict(mark) for mark in self.files]

    @classmethod
    def from_json(cls, data: Any) -> Fingerprint:
        """The inverse of `to_json`.

        Raises:
            SearchError: it is no fingerprint.
        """
        try:
            marks = tuple(
                FileMark(str(mark["name"]), int(mark["bytes"]), int(mark["modified_ns"]), str(mark["sample"]))
                for mark in data
            )
        except (TypeError, KeyError, ValueError) as error:
            raise SearchError(f"not a database's fingerprint ({error!r}); add the database again") from error
        return cls(marks)


def fingerprint(database: Database) -> Fingerprint:
    """The fingerprint of a database's files as they are now; reads at most 2 MB of each.

    Raises:
        SearchError: a file is missing or cannot be read.
    """
    return Fingerprint(tuple(_mark(path) for path in database.files))


def _mark(path: Path) -> FileMark:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            # Of the open file: the name may come to mean another one meanwhile.
            status = os.fstat(file.fileno())
            for start in _sampled(status.st_size):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    except OSError as error:
        raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    digest.update(str(status.st_size).encode())
    return FileMark(path.name, status.st_size, status.st_mtime_ns, digest.hexdigest())


def _sampled(size: int) -> list[int]:
    """Where the sampled blocks begin: the first, the last, and between them evenly; all of a small file."""
    if size <= _SAMPLES * _BLOCK:
        return list(range(0, size, _BLOCK))
    return [(size - _BLOCK) * sample // (_SAMPLES - 1) for sample in range(_SAMPLES)]


def _digest(data: list[Any]) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
