"""FASTA files, plain or packed, read in blocks of bounded size; a part of a plain one as well."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pyhmmer import easel

from parafold.errors import SearchError
from parafold.msa.database import file_size, shard_of
from parafold.msa.fasta_text import count_line_ends, easel_position, record_position, record_starts

# Called with how many bytes of a file have been read (of a packed one, packed bytes), and how many there are.
Progress = Callable[[int, int | None], None]

ALPHABET: Any = easel.Alphabet.amino()

# The pipeline of HMMER takes no target longer than this.
MAX_TARGET_RESIDUES = 100_000

# The fixed cost of a block, about a tenth of a millisecond, does not show beside the work on it.
BLOCK_RESIDUES = 250_000
BLOCK_SEQUENCES = 10_000

_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))
_REFUSED = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"))
_UNPACK_STEP = 1 << 20

_HEADER = re.compile(rb">[^\n\r]*")
_STAR = ALPHABET.encode("*")[0]

# What is counted, not refused: jackhmmer takes it too.
EMPTY = "records without residues"
STARS = "sequences with '*'"
NAMES = "names that are not UTF-8"


def read_blocks(
    path: Path,
    start: int = 0,
    end: int | None = None,
    *,
    residues: int = BLOCK_RESIDUES,
    sequences: int = BLOCK_SEQUENCES,
    warnings: Counter[str] | None = None,
    progress: Progress | None = None,
) -> Iterator[easel.DigitalSequenceBlock]:
    """The records of a protein FASTA file in file order, in blocks of about `residues` residues and at most
    `sequences` sequences. `start` and `end`, byte positions where records begin, choose a part of a plain
    file.

    What jackhmmer reads is read alike. Names that are not UTF-8 get their bytes escaped. `warnings` counts
    what is odd but taken (`EMPTY`, `STARS`, `NAMES`), for 6 % more time, 20 % where there are stars.

    Raises:
        SearchError: the file is missing, unreadable, truncated, empty, or not protein FASTA; with the line
            where the format breaks, the same for any part that holds it.
    """
    source = _Source(path, start, end)
    with source:
        if start == 0:
            _refuse_nucleotides(path)
        count = 0
        last: Any = None
        with source.translate_errors():
            file = easel.SequenceFile(source, "fasta", digital=True, alphabet=ALPHABET)  # pyright: ignore
        with file:
            while True:
                with source.translate_errors():
                    block = file.read_block(sequences=sequences, residues=residues)
                if not block:
                    break
                longest = block.largest()
                if len(longest) > MAX_TARGET_RESIDUES:
                    line = source.line_of_record(count + block.index(longest))
                    raise SearchError(
                        f"{path} line {line}: record {_name(longest)} has {len(longest)} residues, HMMER "
                        f"takes {MAX_TARGET_RESIDUES} at most; take the record out, or split it"
                    )
                if source.saw_bytes_beyond_ascii:
                    _escape_names(block, warnings)
                if warnings is not None:
                    _count_oddities(block, source.saw_star, warnings)
                count += len(block)
                last = block[-1]
                yield block
                if progress:
                    progress(source.position, file_size(path))
        if last is None:
            raise SearchError(f"{path} line 1: holds no sequence; give a protein FASTA file")
        if len(last) == 0 and _ends_the_database(path, end):
            raise SearchError(
                f"{path} line {source.line_of_record(count - 1)}: ends after the header of {_name(last)}, "
                "without its residues; the file is truncated, fetch it again"
            )


def count_records(path: Path, progress: Progress | None = None) -> int:
    """How many records a FASTA file has, found by their '>' alone: about two seconds for each gigabyte.

    Raises:
        SearchError: the file cannot be read, is damaged or truncated.
    """
    return sum(len(starts) for _, starts in record_starts(unpacked_bytes(path, progress)))


def is_packed(path: Path) -> bool:
    """Whether the file is packed by gzip, xz or bzip2.

    Raises:
        SearchError: it cannot be read, or is packed otherwise.
    """
    with _Source(path, 0, None) as source:
        return source.packed


def unpacked_bytes(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The bytes of a file, unpacked where it is packed, in pieces.

    Raises:
        SearchError: the file cannot be read, is damaged or truncated.
    """
    with _Source(path, 0, None) as source:
        size = file_size(path)
        for piece in source.pieces():
            yield piece
            if progress:
                progress(source.position, size)


def _refuse_nucleotides(path: Path, sample: int = 10_000) -> None:
    """Refuse a file whose first residues are nearly all letters of nucleotides: A, C, G and T are a quarter
    of a protein's. A matter of how the database begins, not of each part: long ones hold odd stretches."""
    if (shard_of(path) or (0, 1))[0] > 0:
        return
    with _Source(path, 0, None) as source:
        head = source.read(2 * sample)
    residues = b"".join(_HEADER.sub(b"", head).upper().split())
    bases = sum(residues.count(base) for base in b"ACGTUN")
    if len(residues) >= 200 and bases >= 0.95 * len(residues):
        raise SearchError(f"{path} line 1: holds nucleotides, not proteins; give a protein FASTA file")


def _ends_the_database(path: Path, end: int | None) -> bool:
    index, count = shard_of(path) or (0, 1)
    return index == count - 1 and (end is None or end >= file_size(path))


def _escape_names(block: easel.DigitalSequenceBlock, warnings: Counter[str] | None) -> None:
    for sequence in block:
        try:
            _ = sequence.name
        except UnicodeDecodeError as error:
            sequence.name = error.object.decode("utf-8", "backslashreplace")
            if warnings is not None:
                warnings[NAMES] += 1


def _count_oddities(block: easel.DigitalSequenceBlock, stars: bool, warnings: Counter[str]) -> None:
    # Zero counts are left out, so that an empty counter means that nothing is odd.
    if not all(block):
        warnings[EMPTY] += sum(len(sequence) == 0 for sequence in block)
    if stars and (found := sum(_STAR in bytes(sequence.sequence) for sequence in block)):
        warnings[STARS] += found


def _name(sequence: Any) -> str:
    try:
        return sequence.name
    except UnicodeDecodeError:
        return "(a name that is not UTF-8)"


class _Source(io.RawIOBase):
    """The binary file that Easel reads from: it unpacks, ends where the part ends, and remembers the error
    that Easel would hide."""

    def __init__(self, path: Path, start: int, end: int | None) -> None:
        self.path = path
        self.start = start
        self.error: Exception | None = None
        self.packed = False
        self.saw_star = False
        self.saw_bytes_beyond_ascii = False
        try:
            self._file: IO[bytes] = path.open("rb")
            head = self._file.read(6)
            self._file.seek(start)
        except OSError as error:
            raise SearchError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        self._stream: Any = self._file
        self._left = None if end is None else end - start
        for magic, tool in _REFUSED:
            if head.startswith(magic):
                self.close()
                raise SearchError(f"{path}: is packed by {tool}; unpack it, or pack it with gzip or xz")
        if head.startswith(b"\xef\xbb\xbf"):
            self.close()
            raise SearchError(
                f"{path} line 1: begins with a byte order mark; save the file as plain ASCII text"
            )
        for magic, opener in _OPENERS:
            if head.startswith(magic):
                self._stream = opener(self._file, "rb")
                self.packed = True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        try:
            chunk = self._stream.read(wanted)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            self.error = error
            return 0
        if self._left is not None:
            if len(chunk) < wanted:
                self.error = EOFError("it has become shorter")
            self._left -= len(chunk)
        # Either costs a hundredth of the parsing.
        self.saw_star = self.saw_star or b"*" in chunk
        self.saw_bytes_beyond_ascii = self.saw_bytes_beyond_ascii or not chunk.isascii()
        buffer[: len(chunk)] = chunk
        return len(chunk)

    @property
    def position(self) -> int:
        """How far the file has been read; of a packed one, its packed bytes."""
        return self._file.tell()

    def pieces(self) -> Iterator[bytes]:
        """The rest of it."""
        while piece := self.read(_UNPACK_STEP):
            yield piece
        with self.translate_errors():
            pass

    def line_of_record(self, number: int) -> int:
        """The line of a record of the part, the first being number 0: only for an error's message."""
        with _Source(self.path, self.start, None) as again:
            return self._line_at(self.start + record_position(again.pieces(), number))

    def line_after(self, line_ends: int) -> int:
        """The line that Easel means when it has counted so many line ends: only for an error's message."""
        with _Source(self.path, self.start, None) as again:
            return self._line_at(self.start + easel_position(again.pieces(), line_ends))

    def _line_at(self, position: int) -> int:
        with _Source(self.path, 0, None) as again:
            return 1 + count_line_ends(_until(position, again.pieces()))

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
        if isinstance(error, MemoryError):
            raise SearchError(
                f"{path}: a record does not fit into memory; take it out, or see that the lines end"
            ) from error
        if isinstance(error, ValueError | RuntimeError | SystemError):
            where = _where(error, self._source)
            raise SearchError(f"{path}{where}; give a protein FASTA file") from error


def _where(error: Exception, source: _Source) -> str:
    """Easel's message with the true line: through a file object Easel counts from 0, and not all lines."""
    text = str(error).removeprefix("Could not parse file: ").strip("\n")
    line, _, what = text.removeprefix("Line ").partition(": ")
    if not line.isdigit() or not what:
        return f": {text.strip()}"
    if what.rstrip(" ").endswith((" character", " char")):
        # A NUL byte ends Easel's own message.
        what = f"{what.rstrip(' ')} NUL"
    what = what.replace("non-ASCII character \ufffd", "non-ASCII character").replace("\ufffd", "beyond ASCII")
    shown = "".join(letter if letter.isprintable() else repr(letter).strip("'") for letter in what)
    return f" line {source.line_after(int(line))}: {shown}"


def _until(position: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:position]
        position -= len(piece)
        if position <= 0:
            break
