"""Finished alignments, one sealed file each, found again by what decides their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parafold import files
from parafold.msa.alignment import Alignment
from parafold.msa.engines.base import Row
from parafold.msa.sealed import DamagedError, read_sealed, write_sealed

_FORMAT = 1


def default_cache() -> Path:
    """The user's cache folder for searches, `~/.cache/parafold/msa` unless XDG_CACHE_HOME says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parafold" / "msa"


class Cache:
    """A folder of finished alignments. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Alignment | None:
        """The alignment of that key, or None.

        Raises:
            DamagedError: there is one, but it is not what was stored. It has been removed.
        OutputError: the cache's folder may not be looked into.
        """
        path = self._path(key)
        try:
            if not path.exists():
                return None
            head, _, packed = read_sealed(path).partition(b"\n")
            entry = json.loads(head)
            if entry.pop("key") != key:
                raise DamagedError(f"{path}: is not the alignment of its name; it will be made again")
            rows = json.loads(zlib.decompress(packed))
            return Alignment(rows=[Row(*row) for row in rows], **entry)
        except DamagedError:
            _remove(path)
            raise
        except (ValueError, TypeError, KeyError, zlib.error) as error:
            _remove(path)
            raise DamagedError(f"{path}: cannot be understood; it will be made again") from error
        except OSError as error:
            raise files.output_error(path, error) from error

    def put(self, key: str, alignment: Alignment) -> None:
        """Keep an alignment.

        Raises:
            OutputError: it cannot be written.
        """
        entry = {
            "key": key,
            "query": alignment.query,
            "database": alignment.database,
            "kind": alignment.kind,
            "num_sequences": alignment.num_sequences,
        }
        write_sealed(self._path(key), [json.dumps(entry).encode(), b"\n", *_packed(alignment.rows)])

    def _path(self, key: str) -> Path:
        return self.folder / "alignments" / key[:2] / key


def _packed(rows: Sequence[Row]) -> Iterator[bytes]:
    """The rows as compressed JSON, one after the other: their text may be as large as they are."""
    packer = zlib.compressobj(1)
    for number, row in enumerate(rows):
        yield packer.compress((("," if number else "[") + json.dumps(row)).encode())
    yield packer.compress(b"]" if rows else b"[]") + packer.flush()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def cache_key(sequence: str, engine: Mapping[str, Any], database: Mapping[str, Any]) -> str:
    """The digest of all that decides an alignment: the query, the engine with version and parameters, the
    database with its fingerprint and limits."""
    content = [_FORMAT, sequence, engine, database]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
