"""Sequence databases: what they are called, where they are, how much of them is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from parafold.errors import SearchError

Format = Literal["fasta", "hhsuite", "mmseqs"]

_FASTA_ENDINGS = (".fasta", ".fa", ".faa", ".fas")
_SHARD = re.compile(r"(?P<base>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_PACKED_ENDINGS = ("", ".gz", ".xz", ".bz2")
# The files beside an HH-suite database's prefix, and beside an MMseqs2 database.
_HHSUITE_ENDINGS = tuple(
    f"_{part}.ff{kind}" for part in ("a3m", "hhm", "cs219") for kind in ("data", "index")
)
_MMSEQS_ENDINGS = ("", ".index", ".dbtype", "_h", "_h.index")

# A kind is known by how the database's name begins; the number is the published limit on the rows of its
# alignment, the query among them. The order is that in which AlphaFold stacks the alignments.
_KINDS: tuple[tuple[str, tuple[str, ...], int | None], ...] = (
    ("uniref90", ("uniref90",), 10_000),
    ("bfd", ("bfd", "small_bfd", "smallbfd", "uniref30", "uniclust30"), None),
    ("mgnify", ("mgnify", "mgy_"), 501),
    ("uniprot", ("uniprot",), 50_000),
)
KINDS = (*(kind for kind, _, _ in _KINDS), "other")
# Stands for "as published for the database's kind".
PUBLISHED = -1


@dataclass(frozen=True)
class Database:
    """A sequence database under the name by which its alignment is known.

    Attributes:
        path: a FASTA file, plain or packed by gzip, xz or bzip2 (its first bytes decide, not its name);
            "FILE@64" for the shards FILE-00000-of-00064 and so on; or the prefix of an HH-suite or MMseqs2
            database.
        kind: `uniref90`, `bfd`, `mgnify`, `uniprot` (the last is for pairing chains) or `other`; by default
            what the name begins with. Alignments are stacked in this order.
        max_hits: the limit on the rows of the alignment (the query counts), None for no limit; by default the
            published one of the kind.
        z: the number of sequences that E-values are computed with; by default as many as the database holds.
        also: HH-suite databases that are searched in the same run, as AlphaFold does with BFD and UniRef30.
    """

    name: str
    path: Path
    kind: str = ""
    max_hits: int | None = PUBLISHED
    z: int | None = None
    also: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        kind = self.kind or next(
            (kind for kind, begins, _ in _KINDS if self.name.lower().startswith(begins)), "other"
        )
        if kind not in KINDS:
            raise SearchError(f"database {self.name}: no kind {kind!r}; the kinds are {', '.join(KINDS)}")
        object.__setattr__(self, "kind", kind)
        if self.max_hits == PUBLISHED:
            limit = next((rows for known, _, rows in _KINDS if known == kind), None)
            object.__setattr__(self, "max_hits", limit)
        if self.max_hits is not None and self.max_hits < 1:
            raise SearchError(f"database {self.name}: max_hits is {self.max_hits}; give 1 or more")
        if self.z is not None and self.z < 1:
            raise SearchError(f"database {self.name}: z is {self.z}; give the number of sequences, 1 or more")

    @property
    def format(self) -> Format:
        """What the files are, by the endings of those that are there."""
        if (
            self.also
            or _beside(self.path, "_a3m.ffdata").exists()
            or _beside(self.path, "_hhm.ffdata").exists()
        ):
            return "hhsuite"
        return "mmseqs" if _beside(self.path, ".dbtype").exists() else "fasta"

    @property
    def files(self) -> list[Path]:
        """The files that hold the database, in order.

        Raises:
            SearchError: one of them is missing.
        """
        if self.format == "hhsuite":
            prefixes = (self.path, *self.also)
            return [f for p in prefixes for f in _present(p, _HHSUITE_ENDINGS, self.name)]
        if self.format == "mmseqs":
            return _present(self.path, _MMSEQS_ENDINGS, self.name)
        base, at, count = str(self.path).rpartition("@")
        if not at or not count.isdigit() or self.path.exists():
            return [self.path]
        files = [shard_path(Path(base), index, int(count)) for index in range(int(count))]
        if not files:
            raise SearchError(f"{self.path}: no shards at all; give their number after the @")
        if missing := [file.name for file in files if not file.exists()]:
            raise SearchError(
                f"{self.path}: {len(missing)} of {count} shards are missing, {missing[0]} first; "
                "make them again (parafold db shard)"
            )
        return files

    @property
    def bytes(self) -> int:
        """The size of all its files.

        Raises:
            SearchError: one of them cannot be looked at.
        """
        return sum(file_size(file) for file in self.files)


def shard_path(base: Path, index: int, count: int) -> Path:
    """Where shard `index` of `count` of a FASTA file is, by AlphaFold 3's naming."""
    return base.with_name(f"{base.name}-{index:05}-of-{count:05}")


def shard_of(path: Path) -> tuple[int, int] | None:
    """Index and count in the name of a shard's file, `FILE-00000-of-00064`; None for any other file."""
    match = _SHARD.fullmatch(path.name)
    return (int(match["index"]), int(match["count"])) if match else None


def file_size(path: Path) -> int:
    """Raises SearchError where the file cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def demo_databases() -> list[Database]:
    """The three small demonstration databases that come with the package (simulated families and decoys)."""
    return databases_in(Path(str(resources.files("parafold") / "data" / "demo_databases")))


def databases_in(folder: str | Path) -> list[Database]:
    """Every FASTA file of a folder, each under the name of its file without endings; or one database, when
    `folder` is a file. Files end in `.fasta`, `.fa`, `.faa` or `.fas`, plain or with `.gz`, `.xz` or `.bz2`;
    shards (`NAME.fasta-00000-of-00064`) count as one database.

    Returns them in the order in which AlphaFold stacks alignments: uniref90, bfd, mgnify, uniprot, others.

    Raises:
        SearchError: no such folder, no FASTA file in it, or two files of one name.
    """
    folder = Path(folder)
    try:
        if not folder.exists() and "@" not in folder.name:
            raise SearchError(
                f"{folder}: no such folder of databases; give a folder that holds FASTA files "
                f"({', '.join(_FASTA_ENDINGS)}, plain or .gz, .xz, .bz2)"
            )
        files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    except OSError as error:
        raise SearchError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    databases: dict[str, Database] = {}
    for path in dict.fromkeys(map(whole_path, files)):
        name = _database_name(path)
        if name is None and path == folder:
            name = path.stem
        if name is None or path.is_dir():
            continue
        if name in databases:
            raise SearchError(
                f"{path} and {databases[name].path.name} both give a database named {name}; keep one"
            )
        databases[name] = Database(name, path)
    if not databases:
        raise SearchError(
            f"{folder}: holds no FASTA file; add databases that end in {', '.join(_FASTA_ENDINGS)} "
            "(plain or .gz, .xz, .bz2)"
        )
    return in_published_order(databases.values())


def in_published_order(databases: Iterable[Database]) -> list[Database]:
    """As AlphaFold stacks their alignments: by kind, then by name."""
    return sorted(databases, key=lambda database: (KINDS.index(database.kind), database.name))


def whole_path(path: Path) -> Path:
    """The database that a shard's file belongs to, "FILE@COUNT"; any other path is its own."""
    match = _SHARD.fullmatch(path.name)
    return path.with_name(f"{match['base']}@{int(match['count'])}") if match else path


def _database_name(path: Path) -> str | None:
    file_name = path.name.rpartition("@")[0] if path.name.rpartition("@")[2].isdigit() else path.name
    name = file_name.lower()
    endings = sorted((fasta + packed for fasta in _FASTA_ENDINGS for packed in _PACKED_ENDINGS), key=len)
    ending = next((ending for ending in reversed(endings) if name.endswith(ending)), None)
    return file_name[: -len(ending)] if ending and len(name) > len(ending) and name[0] != "." else None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _present(prefix: Path, endings: Iterable[str], name: str) -> list[Path]:
    found = [file for file in (_beside(prefix, ending) for ending in endings) if file.exists()]
    if not found:
        raise SearchError(f"database {name}: no file begins with {prefix}; check the path")
    return found
