"""Registered databases: a TOML manifest of what they are called, where they are, and what was in them."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from parafold import files
from parafold.errors import SearchError
from parafold.msa.database import PUBLISHED, Database, databases_in, file_size, in_published_order
from parafold.msa.fasta import Progress, count_records, read_blocks, unpacked_bytes
from parafold.msa.fingerprint import Fingerprint, fingerprint
from parafold.msa.unpack import locked

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
_NO_LIMIT = "none"
_TYPES: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "kind": (str,),
    "max_hits": (int, str),
    "z": (int,),
    "sequences": (int,),
    "also": (list,),
    "added": (datetime,),
    "files": (list,),
}
_HEAD = "# Databases for parafold; `parafold db` writes this file.\n"


@dataclass(frozen=True)
class Entry:
    """A registered database: `sequences` as counted when it was added (None for a format that is not FASTA),
    its fingerprint of that time, and that time."""

    database: Database
    sequences: int | None = None
    fingerprint: Fingerprint | None = None
    added: datetime | None = None


@dataclass(frozen=True)
class Verified:
    """What `Registry.verify` saw of a database that is as it was: `change` is empty or "date"; the rest comes
    from the full check only."""

    change: str = ""
    sequences: int | None = None
    residues: int | None = None
    warnings: Counter[str] = field(default_factory=Counter)


def default_manifest() -> Path:
    """The user's own manifest."""
    return files.user_data_folder() / "databases.toml"


class Registry:
    """The databases of one manifest. Nothing is kept in memory: each call reads the file.

    Raises:
        SearchError: (all methods) the manifest is damaged, with the place; or no such database.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_manifest() if path is None else Path(path)

    def add(self, database: Database, progress: Progress | None = None) -> Entry:
        """Count the database's sequences, take its fingerprint, and write both into the manifest. One that is
        there under that name and path is entered anew. Without `z`, the count becomes it.

        Raises:
            SearchError: the database cannot be read or holds no sequence, or another has its name.
            OutputError: the manifest cannot be written.
        """
        if not _NAME.fullmatch(database.name):
            raise SearchError(
                f"{database.name!r}: a database's name begins with a letter or digit and holds nothing but "
                "those, '_', '.', '+' and '-'; choose another (--name)"
            )
        database = _absolute(database)
        known = self._entries().get(database.name)
        if known and known.database.path != database.path:
            raise SearchError(
                f"{database.name}: {known.database.path} is registered under this name; choose another name "
                f"(--name), or remove that one first (parafold db remove {database.name})"
            )
        before = fingerprint(database)
        sequences = _counted(database, progress) if database.format == "fasta" else None
        if change := before.difference(fingerprint(database)):
            raise SearchError(f"{database.path}: changed while it was read ({change}); add it again")
        if sequences is not None and database.z is None:
            database = dataclasses.replace(database, z=sequences)
        entry = Entry(database, sequences, before, datetime.now(UTC).replace(microsecond=0))
        self._change(lambda entries: entries | {database.name: entry})
        return entry

    def remove(self, name: str) -> None:
        """Take a database out of the manifest; its files stay.

        Raises:
            OutputError: the manifest cannot be written.
        """
        self.get(name)
        self._change(lambda entries: {known: entry for known, entry in entries.items() if known != name})

    def entries(self) -> list[Entry]:
        """All of them, in the order in which alignments are stacked."""
        entries = self._entries()
        return [entries[d.name] for d in in_published_order(entry.database for entry in entries.values())]

    def databases(self) -> list[Database]:
        """All of them, in the order in which alignments are stacked."""
        return [entry.database for entry in self.entries()]

    def get(self, name: str) -> Entry:
        """The database of that name."""
        entries = self._entries()
        if name not in entries:
            known = f"registered are {', '.join(entries)}" if entries else "none is registered"
            raise SearchError(f"no database named {name}; {known} (parafold db list, parafold db add)")
        return entries[name]

    def current(self, name: str, warn: Callable[[str], None] | None = None) -> Database:
        """The database of that name, if it is as it was when it was added. `warn` is told where only the date
        has changed.

        Raises:
            SearchError: its size or content has changed.
        """
        entry = self.get(name)
        if _change_of(entry) and warn:
            warn(f"database {name} ({entry.database.path}): its date has changed, size and samples have not")
        return entry.database

    def verify(self, name: str, full: bool = False, progress: Progress | None = None) -> Verified:
        """Compare a database with its fingerprint; in full, read every record and compare their number too.

        Raises:
            SearchError: it is not as it was when it was added, or damaged, with the line.
        """
        entry = self.get(name)
        change = _change_of(entry)
        if not full:
            return Verified(change)
        if entry.database.format != "fasta":
            _check_indices(entry.database)
            return Verified(change)
        verified = _read_all(entry.database, change, progress)
        stated = entry.sequences if entry.sequences is not None else entry.database.z
        if stated is not None and verified.sequences != stated:
            raise SearchError(
                f"database {name} ({entry.database.path}): holds {verified.sequences} sequences, {stated} "
                "when it was added; fetch it again, or add it again as it is (parafold db add)"
            )
        return verified

    def _change(self, edit: Callable[[dict[str, Entry]], dict[str, Entry]]) -> None:
        files.make_folder(self.path.parent)
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            entries = edit(self._entries())
            content = {"databases": {name: _to_toml(entry) for name, entry in entries.items()}}
            files.atomic_write(self.path, _HEAD + tomli_w.dumps(content))

    def _entries(self) -> dict[str, Entry]:
        try:
            content = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SearchError(f"{self.path}: cannot be read ({error.strerror}); check the path") from error
        except ValueError as error:
            raise SearchError(f"{self.path}: not a TOML file ({error}); mend or remove it") from error
        tables = content.get("databases", {})
        if not isinstance(tables, dict):
            raise SearchError(f"{self.path}: 'databases' is no table; write [databases.NAME]")
        return {name: self._from_toml(name, table) for name, table in tables.items()}

    def _from_toml(self, name: str, table: Any) -> Entry:
        try:
            return _from_toml(name, table, self.path.parent)
        except (SearchError, ValueError, RuntimeError) as error:
            raise SearchError(
                f"{self.path}: database {name}: {error}; mend the entry, or add it again"
            ) from error


def resolve(
    items: Iterable[str | Path | Database],
    registry: Registry | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Database]:
    """The databases meant by registered names, paths of FASTA files, "FILE@64", prefixes of HH-suite and
    MMseqs2 databases, and folders of FASTA files (see `databases_in`), in the order given.

    A registered database must be as it was when it was added; `warn` is told where only its date has changed.

    Raises:
        SearchError: an item is none of these, or a registered database has changed.
    """
    registry = registry or Registry()
    known = [database.name for database in registry.databases()]
    found: list[Database] = []
    for item in items:
        if isinstance(item, Database):
            found.append(item)
        elif str(item) in known:
            found.append(registry.current(str(item), warn))
        else:
            found += databases_at(item)
    return found


def databases_at(path: str | Path) -> list[Database]:
    """The databases at a path: a FASTA file, "FILE@64", the prefix of an HH-suite or MMseqs2 database, or a
    folder of FASTA files.

    Raises:
        SearchError: nothing of the kind is there.
    """
    path = Path(path)
    database = Database(path.name, path) if path.name else None
    return [database] if database and database.format != "fasta" else databases_in(path)


def state(entry: Entry) -> str:
    """How a registered database is now, in a word or two."""
    try:
        now = fingerprint(entry.database)
    except SearchError:
        return "missing"
    if entry.fingerprint is None:
        return "never read"
    change = entry.fingerprint.difference(now)
    return f"changed: {change}" if change else "as added"


def _change_of(entry: Entry) -> str:
    """ "date" or nothing.

    Raises:
        SearchError: size or content have changed.
    """
    database = entry.database
    now = fingerprint(database)
    if entry.fingerprint is None:
        return ""
    change = entry.fingerprint.difference(now)
    if entry.fingerprint.content_key != now.content_key:
        raise SearchError(
            f"database {database.name} ({database.path}) has changed since it was added: {change}; if it is "
            "as it should be, add it again (parafold db add), otherwise fetch it again"
        )
    return "date" if change else ""


def _counted(database: Database, progress: Progress | None) -> int:
    count = 0
    for path, advance in _with_progress(database, progress):
        count += count_records(path, advance)
    if count == 0:
        raise SearchError(f"{database.path}: holds no sequence; give a protein FASTA file")
    # How it begins tells whether it is protein FASTA at all.
    next(iter(read_blocks(database.files[0])))
    return count


def _read_all(database: Database, change: str, progress: Progress | None) -> Verified:
    warnings: Counter[str] = Counter()
    sequences = residues = 0
    for path, advance in _with_progress(database, progress):
        for block in read_blocks(path, warnings=warnings, progress=advance):
            sequences += len(block)
            residues += block.total_length()
    return Verified(change, sequences, residues, warnings)


def _with_progress(database: Database, progress: Progress | None) -> Iterable[tuple[Path, Progress | None]]:
    """Each file with a progress that goes on from the files before it."""
    total, before = database.bytes, 0
    for path in database.files:
        offset = before
        yield path, progress and (lambda here, _, offset=offset: progress(offset + here, total))
        before += file_size(path)


def _check_indices(database: Database) -> None:
    """An index whose entries lie beyond the end of its data tells of a truncated file."""
    paths = set(database.files)
    for index in sorted(paths):
        if index.name.endswith(".ffindex"):
            data = index.with_suffix(".ffdata")
        elif index.name.endswith(".index"):
            data = index.with_suffix("")
        else:
            continue
        size = file_size(data)
        for number, line in enumerate(b"".join(unpacked_bytes(index)).splitlines(), 1):
            fields = line.split(b"\t")
            if len(fields) < 3 or not fields[1].isdigit():
                raise SearchError(f"{index} line {number}: is no entry of an index; fetch the file again")
            if int(fields[1]) >= size:
                where = f"line {number} of {index.name} leads beyond its end"
                raise SearchError(f"{data}: is truncated, {where}; fetch it again")


def _absolute(database: Database) -> Database:
    return dataclasses.replace(
        database,
        path=database.path.absolute(),
        also=tuple(path.absolute() for path in database.also),
    )


def _from_toml(name: str, table: Any, folder: Path) -> Entry:
    """The inverse of `_to_toml`; relative paths are relative to the folder.

    Raises:
        ValueError, SearchError: the table is no entry.
    """
    if not isinstance(table, dict) or "path" not in table:
        raise ValueError("it has no path")
    for key, value in table.items():
        # Not isinstance: to Python true is an int.
        if type(value) not in _TYPES.get(key, ()):
            raise ValueError(f"{key} = {value!r} is not understood")
    paths = [table["path"], *table.get("also", ())]
    if wrong := [path for path in paths if not isinstance(path, str) or not path or "\0" in path]:
        raise ValueError(f"{wrong[0]!r} is no path")
    path, *also = [folder / Path(path).expanduser() for path in paths]
    limit = table.get("max_hits", PUBLISHED)
    database = Database(
        name,
        path,
        table.get("kind", ""),
        None if limit == _NO_LIMIT else int(limit),
        table.get("z"),
        tuple(also),
    )
    marks = Fingerprint.from_json(table["files"]) if "files" in table else None
    return Entry(database, table.get("sequences"), marks, table.get("added"))


def _to_toml(entry: Entry) -> dict[str, Any]:
    database = entry.database
    table = {
        "path": str(database.path),
        "kind": database.kind,
        "max_hits": _NO_LIMIT if database.max_hits is None else database.max_hits,
        "z": database.z,
        "sequences": entry.sequences,
        "also": [str(path) for path in database.also] or None,
        "added": entry.added,
        "files": entry.fingerprint.to_json() if entry.fingerprint else None,
    }
    return {key: value for key, value in table.items() if value is not None}
