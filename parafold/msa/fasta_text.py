"""Where records and lines stand in the text of a FASTA file, given in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# As Easel reads it: a '>' begins a record wherever it stands outside of a header, and a header ends with its
# line, which ends in LF, CR or both.
_HEADER = re.compile(rb">[^\n\r]*")
_LINE_END = re.compile(rb"[\n\r]")
_HEADER_OR_LINE_ENDS = re.compile(rb"(>)|[\n\r]+")
_SPACE = b" \t\n\r\v\f"


def record_starts(pieces: Iterable[bytes]) -> Iterator[tuple[int, list[int]]]:
    """For each piece where it begins in the text, and where in the piece records begin."""
    position, in_header = 0, False
    for piece in pieces:
        begin = 0
        if in_header:
            ended = _LINE_END.search(piece)
            begin = ended.start() if ended else len(piece)
        yield position, [header.start() for header in _HEADER.finditer(piece, begin)]
        line = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
        in_header = piece.find(b">", line) >= 0 or (in_header and line == 0)
        position += len(piece)


def record_position(pieces: Iterable[bytes], number: int) -> int:
    """Where a record begins, the first being number 0; 0 where there are fewer."""
    for position, starts in record_starts(pieces):
        if number < len(starts):
            return position + starts[number]
        number -= len(starts)
    return 0


def easel_position(pieces: Iterable[bytes], line_ends: int) -> int:
    """Where the line begins before which Easel has counted so many line ends.

    It counts only one after a header, however many blank lines follow, none before the first record, and in
    sequences no CR.
    """
    position, in_header, leading, header_ended = 0, False, True, False
    for piece in pieces:
        # Blanks before the first record, and line ends that belong with those that end the piece before.
        skipped = _SPACE if leading else b"\r\n" if header_ended or line_ends <= 0 else b""
        begin = len(piece) - len(piece.lstrip(skipped)) if skipped else 0
        leading = leading and begin == len(piece)
        header_ended = header_ended and begin == len(piece)
        if line_ends <= 0 and begin < len(piece):
            return position + begin
        for match in _HEADER_OR_LINE_ENDS.finditer(piece, begin):
            if match[1]:
                in_header = True
                continue
            line_ends -= 1 if in_header else match[0].count(b"\n")
            header_ended = in_header and match.end() == len(piece)
            in_header = False
            if line_ends <= 0 and match.end() < len(piece):
                return position + match.end()
        position += len(piece)
    return position


def count_line_ends(pieces: Iterable[bytes]) -> int:
    """How many line ends there are: LF, CR, or both as one."""
    count, after_cr = 0, False
    for piece in pieces:
        count += piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n")
        count -= after_cr and piece.startswith(b"\n")
        after_cr = piece.endswith(b"\r")
    return count
