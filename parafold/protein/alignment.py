"""Multiple sequence alignments: reading a3m and Stockholm, and the few edits that AlphaFold makes to them.

The parsers agree with the published AlphaFold on every file that it can read, and name file and line where it
would crash or, worse, go on with a damaged alignment.
"""

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
from jaxtyping import Int

from parafold.errors import InputError

_GAP = ord("-")
_NO_LOWER = {ord(letter): None for letter in string.ascii_lowercase}
_DOTS_TO_GAPS = str.maketrans(".", "-")
# UniProt's names: database | accession (and isoform) | entry name, which ends in the species (in small BFD a
# running number follows). Where two rows have one name, HMMER numbers all names: 12|sp|...
_UNIPROT_NAME = re.compile(
    r"(?:\d+\|)?(?:tr|sp)\|[A-Za-z0-9]{6,10}(?:_\d)?\|[A-Za-z0-9]+_([A-Za-z0-9]{1,5})(?:_\d+)?$"
)
# A row of a Stockholm file: what stands before its residues, and they.
_CELL = re.compile(r"(.*\s)(\S+)\s*")
_LINES_WITH_ENDS = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# Rows that the deletion count of a Stockholm file takes at a time: bounds its memory, not its result.
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Msa:
    """An alignment to a query, which is its first row.

    `sequences` hold one upper-case letter or '-' per residue of the query. `deletions[i, j]` counts the
    residues of row i that have no partner in the query and stand just before its residue j (those after the
    last one are not counted). `descriptions` are the header lines, without '>'.
    """

    sequences: list[str]
    deletions: Int[np.ndarray, "n r"]
    descriptions: list[str]

    def __post_init__(self):
        n = len(self.sequences)
        r = len(self.sequences[0]) if n else 0
        if len(self.descriptions) != n or self.deletions.shape != (n, r):
            raise InputError(
                f"alignment of {n} sequences of {r} residues has {len(self.descriptions)} descriptions and "
                f"deletion counts of shape {self.deletions.shape}; it was put together wrongly"
            )

    def __len__(self) -> int:
        return len(self.sequences)

    @classmethod
    def query_only(cls, sequence: str, description: str = "query") -> "Msa":
        """The alignment of a sequence for which nothing was found."""
        return cls([sequence], np.zeros((1, len(sequence)), np.int32), [description])

    def truncate(self, max_sequences: int) -> "Msa":
        """The first `max_sequences` rows."""
        return Msa(
            self.sequences[:max_sequences], self.deletions[:max_sequences], self.descriptions[:max_sequences]
        )


def text_lines(text: str) -> list[str]:
    """The lines of a text, which end in LF, CR or both: a name may hold what else Unicode ends lines with."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def fasta_records(text: str, source: str) -> Iterator[tuple[int, str, str]]:
    """Yields (line of the header, header without '>', sequence as written) for each record of a FASTA text.

    Raises InputError for residues before the first header. Comment lines ('#') before it are skipped, as
    ColabFold's a3m files begin with one.
    """
    header: tuple[int, str] | None = None
    parts: list[str] = []
    for number, raw in enumerate(text_lines(text), start=1):
        line = raw.strip()
        if line.startswith(">"):
            if header is not None:
                yield *header, "".join(parts)
            header, parts = (number, line[1:]), []
        elif header is not None:
            parts.append(line)
        elif line and not line.startswith("#"):
            raise InputError(
                f"{source} line {number}: sequence without a header; put a line '>NAME' above it"
            )
    if header is not None:
        yield *header, "".join(parts)


def parse_a3m(text: str, source: str = "a3m") -> Msa:
    """Reads an a3m alignment; lower-case letters are insertions, '.' is ignored.

    `source` is the name that error messages give. Raises InputError where the file is empty, holds anything
    but letters and gaps, or has a row whose length is not the query's (a truncated file).
    """
    records = [(line, name, seq.replace(".", "")) for line, name, seq in fasta_records(text, source)]
    if not records:
        raise InputError(f"{source}: no sequence in it; an a3m file begins with '>' and the query")
    joined = "".join(sequence + "\n" for _, _, sequence in records)
    if not joined.isascii():
        _refuse_letters(records, source)
    codes = np.frombuffer(joined.encode("ascii"), np.uint8)
    is_lower = (codes >= ord("a")) & (codes <= ord("z"))
    is_upper = (codes >= ord("A")) & (codes <= ord("Z"))
    is_end = codes == ord("\n")
    if not np.all(is_lower | is_upper | is_end | (codes == _GAP)):
        _refuse_letters(records, source)

    _refuse_empty(records[0][2], records[0][0], source)
    # A row's newline closes it, and takes the insertions behind its last residue.
    columns = np.flatnonzero(~is_lower)
    widths = np.diff(np.flatnonzero(is_end[columns]), prepend=-1) - 1
    _refuse_ragged(widths, [(line, name) for line, name, _ in records], source)
    deletions = np.diff(np.cumsum(is_lower, dtype=np.int32)[columns], prepend=0)
    deletions = deletions.reshape(len(records), -1)[:, :-1].astype(np.int32)
    sequences = joined.translate(_NO_LOWER).split("\n")[:-1]
    return Msa(sequences, deletions, [name for _, name, _ in records])


def parse_stockholm(text: str, source: str = "sto") -> Msa:
    """Reads a Stockholm alignment and keeps the columns in which the query, its first row, has a residue.

    Raises InputError where the file is empty or truncated: no '//' at the end, or rows of different lengths.
    """
    rows: dict[str, list[str]] = {}
    first_lines: dict[str, int] = {}
    closed = False
    for number, raw in enumerate(text_lines(text), start=1):
        line = raw.strip()
        closed = closed or line == "//"
        if not line or line.startswith(("#", "//")):
            continue
        name, residues = _split_row(line, f"{source} line {number}")
        first_lines.setdefault(name, number)
        rows.setdefault(name, []).append(residues)
    if not rows:
        raise InputError(f"{source}: no sequence in it; is it a Stockholm alignment?")
    if not closed:
        raise InputError(f"{source}: no '//' at the end, the file is truncated; make or fetch it again")
    names = list(rows)
    records = [
        (first_lines[name], name, "".join(parts).translate(_DOTS_TO_GAPS)) for name, parts in rows.items()
    ]
    _refuse_empty(records[0][2], records[0][0], source)
    widths = np.array([len(row) for _, _, row in records])
    _refuse_ragged(widths, [(line, name) for line, name, _ in records], source)
    joined = "".join(row for _, _, row in records)
    if not joined.isascii() or not joined.replace("-", "A").isalpha():
        _refuse_letters(records, source)

    # Only now: upper case makes ASCII of letters that are none.
    codes = np.frombuffer(joined.upper().encode("ascii"), np.uint8).reshape(len(names), -1)
    kept = codes[0] != _GAP
    deletions = np.empty((len(names), int(kept.sum())), np.int32)
    for start in range(0, len(names), _ROWS_AT_ONCE):
        chunk = slice(start, start + _ROWS_AT_ONCE)
        inserted = (codes[chunk] != _GAP) & ~kept
        deletions[chunk] = np.diff(np.cumsum(inserted, axis=1, dtype=np.int32)[:, kept], axis=1, prepend=0)
    sequences = [row.tobytes().decode("ascii") for row in codes[:, kept]]
    return Msa(sequences, deletions, names)


def _refuse_letters(records: Iterable[tuple[int, str, str]], source: str) -> None:
    for line, name, sequence in records:
        bad = re.search(r"[^A-Za-z-]", sequence)
        if bad:
            raise InputError(
                f"{source} line {line}: {bad.group()!r} in the sequence of {name[:40]!r} is no residue and "
                "no gap; is the file an alignment?"
            )


def _refuse_empty(query: str, line: int, source: str) -> None:
    if not query.strip("-"):
        raise InputError(f"{source} line {line}: the query, its first sequence, is empty")


def _refuse_ragged(widths: np.ndarray, records: list[tuple[int, str]], source: str) -> None:
    wrong = np.flatnonzero(widths != widths[0])
    if wrong.size:
        line, name = records[wrong[0]]
        raise InputError(
            f"{source} line {line}: {name[:40]!r} has {widths[wrong[0]]} aligned columns, the query has "
            f"{widths[0]}; the file is truncated or not an alignment, make or fetch it again"
        )


def to_a3m(msa: Msa) -> str:
    """The alignment as a3m; each deletion is an 'x', as the residues themselves are not kept."""
    lines = []
    for name, sequence, counts in zip(msa.descriptions, msa.sequences, msa.deletions, strict=True):
        lines.append(f">{name}")
        if counts.any():
            sequence = "".join("x" * count + letter for count, letter in zip(counts, sequence, strict=True))
        lines.append(sequence)
    return "\n".join(lines) + "\n"


def species_id(description: str) -> str:
    """The species mnemonic (HUMAN, ECOLI) of a UniProt description, for pairing chains; '' if none."""
    words = description.split()
    found = _UNIPROT_NAME.match(words[0].partition("/")[0]) if words else None
    return found.group(1) if found else ""


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", "//"))


def _name(row: str) -> str:
    return row.split(maxsplit=1)[0]


def _split_row(line: str, where: str) -> list[str]:
    fields = line.split()
    if len(fields) != 2:
        raise InputError(f"{where}: expected a name and aligned residues, found {line[:40]!r}")
    return fields


def convert_stockholm_to_a3m(
    text: str, max_sequences: int | None = None, remove_first_row_gaps: bool = True
) -> str:
    """A Stockholm alignment as a3m, descriptions taken from its '#=GS name DE' lines.

    With `remove_first_row_gaps` the columns in which the first row has a gap become insertions (lower case).
    """
    rows: dict[str, str] = {}
    described: dict[str, str] = {}
    for number, line in enumerate(text_lines(text), start=1):
        if _is_row(line):
            name, residues = _split_row(line, f"sto line {number}")
            if name in rows or not max_sequences or len(rows) < max_sequences:
                rows[name] = rows.get(name, "") + residues
        elif line.startswith("#=GS"):
            fields = line.split(maxsplit=3)
            if len(fields) > 2 and fields[2] == "DE":
                described[fields[1]] = fields[3] if len(fields) == 4 else ""
    if not rows:
        raise InputError("sto: no sequence in it; is it a Stockholm alignment?")
    query = next(iter(rows.values())).translate(_DOTS_TO_GAPS)
    in_query = [letter != "-" for letter in query]
    out = []
    for name, row in rows.items():
        if remove_first_row_gaps:
            letters = zip(in_query, row.translate(_DOTS_TO_GAPS), strict=False)
            row = "".join(a.upper() if keep else a.lower() for keep, a in letters if keep or a != "-")
        else:
            row = row.replace(".", "")
        out.append(f">{name} {described.get(name, '')}\n{row}\n")
    return "".join(out)


def _keep_rows(lines: Iterable[str], names: set[str]) -> Iterator[str]:
    """The lines of a Stockholm text less the rows and descriptions of sequences that are not in `names`."""
    for line in lines:
        if not line.strip() or line.strip() == "//" or line.startswith(("# STOCKHOLM", "#=GC RF")):
            yield line
        elif line.startswith("#=GS"):
            if names.intersection(line.split(maxsplit=2)[1:2]):
                yield line
        elif _is_row(line) and _name(line) in names:
            yield line


def truncate_stockholm(text: str, max_sequences: int) -> str:
    """A Stockholm text with its first `max_sequences` sequences only (one at least)."""
    lines = _LINES_WITH_ENDS.findall(text)
    names: set[str] = set()
    for line in lines:
        if _is_row(line):
            names.add(_name(line))
            if len(names) >= max_sequences:
                break
    return "".join(_keep_rows(lines, names))


def deduplicate_stockholm(text: str) -> str:
    """A Stockholm text without the sequences that repeat an earlier one in the query's columns."""
    lines = text_lines(text)
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if _is_row(line):
            name, residues = _split_row(line, f"sto line {number}")
            rows.setdefault(name, []).append(residues)
    if not rows:
        raise InputError("sto: no sequence in it; is it a Stockholm alignment?")
    in_query = [letter != "-" for letter in "".join(next(iter(rows.values())))]
    first_with: dict[str, str] = {}
    for name, parts in rows.items():
        first_with.setdefault("".join(compress("".join(parts), in_query)), name)
    return "\n".join(_keep_rows(lines, set(first_with.values()))) + "\n"


def remove_empty_columns_from_stockholm(text: str) -> str:
    """A Stockholm text without the columns that are gaps in every row; a block of gaps only goes blank."""
    out: list[str] = []
    block: list[int] = []  # where in `out` the rows of the current block are

    def close() -> None:
        cells = []
        for at in block:
            if not (cell := _CELL.fullmatch(out[at])):
                raise InputError(f"sto line {at + 1}: expected a name and aligned residues")
            cells.append(cell.groups())
            if len(cells[-1][1]) != len(cells[0][1]):
                raise InputError(f"sto line {at + 1}: its row is not as long as those above it")
        rows = [row for prefix, row in cells if not prefix.startswith("#")]
        used = [any(letter != "-" for letter in column) for column in zip(*rows, strict=True)]
        for at, (prefix, row) in zip(block, cells, strict=True):
            out[at] = f"{prefix}{''.join(compress(row, used))}" if any(used) else ""
        block.clear()

    for line in text_lines(text):
        is_reference = line.startswith("#=GC RF")
        if is_reference or _is_row(line):
            block.append(len(out))
        elif block and not line.startswith("#"):
            close()
        out.append(line)
        if is_reference:
            close()
    if block:
        close()
    return "\n".join(out)
