"""The profile HMM that templates are searched with: what AlphaFold's `hmmbuild --hand --amino` makes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pyhmmer import easel, plan7

from parafold.errors import SearchError
from parafold.msa.fasta import ALPHABET

_INSERTED = re.compile("[a-z]+")
_NO_LOWER = {code: None for code in range(ord("a"), ord("z") + 1)}
_GAP = ord("-")
# jackhmmer marks the query's columns thus, and hmmbuild's --hand keeps those that are marked.
_COLUMN, _NO_COLUMN = ord("x"), ord(".")


def build_profile(rows: Iterable[str]) -> plan7.HMM:
    """The profile of an alignment, one match state for each residue of the query.

    `rows` are a3m rows with the query first; those that repeat an earlier one in the query's columns do not
    count. The letters of insertions do not change what the profile finds, their number does.

    Raises:
        SearchError: there is no row, they are not aligned, or HMMER makes no profile of them.
    """
    rows = distinct_rows(rows)
    columns = [row.translate(_NO_LOWER) for row in rows]
    if not columns or not columns[0].strip("-"):
        raise SearchError("no query to build a profile of; give an alignment whose first row is the query")
    if wrong := next((row for row in columns if len(row) != len(columns[0])), None):
        raise SearchError(
            f"a row of {len(wrong)} columns in the alignment of a query of {len(columns[0])} residues; "
            "make the alignment again"
        )
    try:
        alignment = _with_insertions(columns, rows).digitize(ALPHABET)
        hmm, _, _ = plan7.Builder(ALPHABET, architecture="hand").build_msa(
            alignment, plan7.Background(ALPHABET)
        )
        return _as_written(hmm)
    except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise SearchError(
            f"HMMER makes no profile of the alignment of a query of {len(columns[0])} residues "
            f"({' '.join(str(error).split())[:200] or type(error).__name__}); check the alignment's letters"
        ) from error


def distinct_rows(rows: Iterable[str]) -> list[str]:
    """The a3m rows that do not repeat an earlier one in the query's columns."""
    first_with: dict[str, str] = {}
    for row in rows:
        first_with.setdefault(row.translate(_NO_LOWER), row)
    return list(first_with.values())


def _with_insertions(columns: Sequence[str], rows: Sequence[str]) -> easel.TextMSA:
    """The alignment with columns of their own for insertions, as jackhmmer writes it."""
    length = len(columns[0])
    inserted = [list(_insertions(row, length)) if len(row) > length else [] for row in rows]
    widest = np.zeros(length, np.int64)
    for runs in inserted:
        for column, letters in runs:
            widest[column] = max(widest[column], len(letters))
    places = np.cumsum(widest + 1) - 1
    grid = np.full((len(rows), int(places[-1]) + 1), _GAP, np.uint8)
    grid[:, places] = np.frombuffer("".join(columns).encode("ascii"), np.uint8).reshape(len(rows), length)
    for line, runs in zip(grid, inserted, strict=True):
        for column, letters in runs:
            start = places[column] - widest[column]
            line[start : start + len(letters)] = np.frombuffer(letters.upper().encode("ascii"), np.uint8)
    # In jackhmmer's file the hits stand before the query, which decides how HMMER's sums are rounded.
    sequences = [
        easel.TextSequence(name=str(number), sequence=grid[number].tobytes().decode("ascii"))
        for number in (*range(1, len(rows)), 0)
    ]
    reference = np.full(grid.shape[1], _NO_COLUMN, np.uint8)
    reference[places] = _COLUMN
    alignment = easel.TextMSA(name="query", sequences=sequences)
    alignment.reference = reference.tobytes().decode("ascii")
    return alignment


def _insertions(row: str, length: int) -> Iterable[tuple[int, str]]:
    """Each stretch of insertions with the column that it stands before; none behind the last column."""
    before = 0
    for found in _INSERTED.finditer(row):
        column = found.start() - before
        before += len(found.group())
        if column < length:
            yield column, found.group()


def _as_written(hmm: plan7.HMM) -> plan7.HMM:
    """The profile with the five digits that HMMER's text form keeps, as hmmsearch reads it from a file."""
    stream: Any = io.BytesIO()
    hmm.write(stream)
    stream.seek(0)
    with plan7.HMMFile(stream) as file:
        written = file.read()
    if written is None:
        raise ValueError("its profile cannot be read back")
    return written
