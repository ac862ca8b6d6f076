"""Sequence databases: FASTA files, plain or compressed, read in blocks of bounded size."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from pyhmmer import easel

from parafold.errors import SearchError

ALPHABET: Any = easel.Alphabet.amino()

# The pipeline of HMMER takes no target longer than this.
MAX_TARGET_RESIDUES = 100_000

# Small enough that a demonstration database still splits over a few cores, large enough that the fixed cost
# of a block (a new pipeline, about a millisecond) does not show.
BLOCK_RESIDUES = 250_000

_FASTA_ENDINGS = (".fasta", ".fa", ".faa", ".fas")
_PACKED_ENDINGS = ("", ".gz", ".xz", ".bz2")
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))
_REFUSED = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"))

# A kind is known by how the database's name begins; the number is the published limit on the rows of its
# alignment, the query among them. The order is that in which AlphaFold stacks the alignments.
_KINDS: tuple[tuple[str, tuple[str, ...], int | None], ...] = (
    ("uniref90", ("uniref90",), 10_000),
    ("bfd", ("bfd", "small_bfd"), None),
    ("mgnify", ("mgnify", "mgy_"), 501),
    ("uniprot", ("uniprot",), 50_000),
)


@dataclass(frozen=True)
class Database:
    """One FASTA database under the name by which its alignment is known.

    `path` may be packed by gzip, xz or bzip2; the file's first bytes decide, not its name.
    """

    name: str
    path: Path

    @property
    def kind(self) -> str:
        """`uniref90`, `bfd`, `mgnify`, `uniprot` (the last is for pairing chains), or `other`."""
        return next((kind for kind, begins, _ in _KINDS if self.name.lower().startswith(begins)), "other")

    @property
    def max_hits(self) -> int | None:
        """The published limit on the rows of the alignment (the query counts), or None."""
        return next((rows for kind, _, rows in _KINDS if kind == self.kind), None)


def demo_databases() -> list[Database]:
    """The three small demonstration databases that come with the package (simulated families and decoys)."""
    return databases_in(Path(str(resources.files("parafold") / "data" / "demo_databases")))


def databases_in(folder: str | Path) -> list[Database]:
    """Every FASTA file of a folder, each under the name of its file without endings; or one database, when
    `folder` is a file. Files end in `.fasta`, `.fa`, `.faa` or `.fas`, plain or with `.gz`, `.xz` or `.bz2`.

    Returns them in the order in which AlphaFold stacks alignments: uniref90, bfd, mgnify, uniprot, others.

    Raises:
        SearchError: no such folder, no FASTA file in it, or two files of one name.
    """
    folder = Path(folder)
    try:
        if not folder.exists():
            raise SearchError(
                f"{folder}: no such folder of databases; give a folder that holds FASTA files "
                f"({', '.join(_FASTA_ENDINGS)}, plain or .gz, .xz, .bz2)"
            )
        files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    except OSError as error:
        raise SearchError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    databases: dict[str, Database] = {}
    for path in files:
        name = _database_name(path)
        if name is None and path == folder:
            name = path.stem
        if name is None or not path.is_file():
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
    order = [kind for kind, _, _ in _KINDS] + ["other"]
    return sorted(databases.values(), key=lambda database: (order.index(database.kind), database.name))


def _database_name(path: Path) -> str | None:
    name = path.name.lower()
    endings = sorted((fasta + packed for fasta in _FASTA_ENDINGS for packed in _PACKED_ENDINGS), key=len)
    ending = next((ending for ending in reversed(endings) if name.endswith(ending)), None)
    return path.name[: -len(ending)] if ending and len(name) > len(ending) and name[0] != "." else None


@dataclass(frozen=True)
class Block:
    """Some consecutive records of a database, and how far through the file they end (0 to 1)."""

    sequences: easel.DigitalSequenceBlock
    fraction: float


def read_blocks(database: Database, residues: int = BLOCK_RESIDUES) -> Iterator[Block]:
    """The records of a database in file order, in blocks of at least `residues` residues each.

    Raises:
        SearchError: the file is missing, unreadable, truncated, empty, or not protein FASTA; with the line
            where the format breaks.
    """
    try:
        size = database.path.stat().st_size
        raw = database.path.open("rb")
    except OSError as error:
        raise SearchError(f"{database.path}: cannot be read ({error.strerror}); check the path") from error
    with raw:
        source = _Source(database.path, raw)
        first = True
        last: Any = None
        with source.translate_errors():
            file = easel.SequenceFile(source, "fasta", digital=True, alphabet=ALPHABET)  # pyright: ignore
        with file:
            while True:
                with source.translate_errors():
                    sequences = file.read_block(residues=residues)
                if not sequences:
                    break
                _check_block(database.path, sequences, first)
                first, last = False, sequences[-1]
                yield Block(sequences, min(raw.tell() / max(size, 1), 1.0))
        if last is None:
            raise SearchError(f"{database.path}: holds no sequence; give a protein FASTA file")
        if len(last) == 0:
            raise SearchError(
                f"{database.path}: ends after the header of {_name(last)}, without its residues; "
                "the file is truncated, fetch it again"
            )


def _check_block(path: Path, sequences: easel.DigitalSequenceBlock, first: bool) -> None:
    longest = sequences.largest()
    if len(longest) > MAX_TARGET_RESIDUES:
        raise SearchError(
            f"{path}: record {_name(longest)} has {len(longest)} residues, HMMER takes "
            f"{MAX_TARGET_RESIDUES} at most; take the record out, or split it"
        )
    if first and _is_nucleotide(sequences):
        raise SearchError(f"{path}: holds nucleotides, not proteins; give a protein FASTA file")


def _is_nucleotide(sequences: easel.DigitalSequenceBlock, sample: int = 10_000) -> bool:
    """Whether nearly every residue of the first ones is a nucleotide's letter: A, C, G and T are a quarter of
    a protein's residues."""
    bases = bytes(ALPHABET.encode("ACGTUN"))
    seen = found = 0
    for sequence in sequences:
        residues = bytes(sequence.sequence)
        seen += len(residues)
        found += sum(residues.count(base) for base in bases)
        if seen >= sample:
            break
    return seen >= 50 and found >= 0.95 * seen


def _name(sequence: Any) -> str:
    try:
        return sequence.name
    except UnicodeDecodeError:
        return "(a name that is not UTF-8)"


class _Source(io.RawIOBase):
    """The binary file that Easel reads from: it unpacks, and remembers the error that Easel would hide."""

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        self.path = path
        self.error: Exception | None = None
        self._stream: Any = raw
        try:
            head = raw.read(6)
            raw.seek(0)
        except OSError as error:
            raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        for magic, tool in _REFUSED:
            if head.startswith(magic):
                raise SearchError(f"{path}: is packed by {tool}; unpack it, or pack it with gzip or xz")
        if head.startswith(b"\xef\xbb\xbf"):
            raise SearchError(
                f"{path} line 1: begins with a byte order mark; save the file as plain ASCII text"
            )
        for magic, opener in _OPENERS:
            if head.startswith(magic):
                self._stream = opener(raw, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._stream.read(len(buffer))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            self.error = error
            return 0
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def translate_errors(self) -> _Translated:
        return _Translated(self)


class _Translated:
    """Turns whatever reading a block raised, or hid, into a SearchError that names the file."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        path = self._source.path
        hidden = self._source.error
        if hidden is not None:
            raise SearchError(
                f"{path}: reading stopped ({hidden}); the file is damaged or truncated, fetch it again"
            )
        if isinstance(error, EOFError):
            raise SearchError(f"{path}: is empty; give a protein FASTA file") from error
        if isinstance(error, ValueError | RuntimeError | SystemError):
            raise SearchError(f"{path}{_where(error)}; give a protein FASTA file") from error


def _where(error: Exception) -> str:
    """Easel's message with the line counted from 1: through a file object it counts from 0."""
    text = str(error).removeprefix("Could not parse file: ").strip()
    line, _, what = text.removeprefix("Line ").partition(": ")
    if line.isdigit() and what:
        shown = "".join(letter if letter.isprintable() else repr(letter).strip("'") for letter in what)
        # A NUL byte ends Easel's own message.
        shown += " NUL" if shown == "illegal character" else ""
        return f" line {int(line) + 1}: {shown}"
    return f": {text}"
