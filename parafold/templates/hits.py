"""What template searches found: the outputs of hhsearch (hhr) and hmmsearch (a3m)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from parafold.errors import InputError
from parafold.protein.alignment import fasta_records

# Columns 1 to 17 of an alignment line in an hhr file: 'Q ' or 'T ', then the name, cut and padded.
_NAME_WIDTH = 17
_ALIGNED = re.compile(r"\s*(\d{1,9}) ([A-Z-]+)\s*(\d{1,9}) \(\d+\)")
_NOT_RESIDUES = ("ss_dssp", "ss_pred", "Consensus")
# 4pqx_A/2-217 [subseq from] mol:protein length:217  Free text
# With "12|" before it where two hits have one name and range.
_HMMSEARCH_NAME = re.compile(r"(?:\d+\|)?([a-z0-9]+)_(\w+)/([0-9]{1,9})-[0-9]+.*protein length:[0-9]+")
_ALIGNED_ROW = re.compile("[A-Za-z-]*")
# The sum of probabilities cannot be more than there are columns.
_MAX_SUM_PROBS = 1e6


@dataclass(frozen=True)
class TemplateHit:
    """One alignment of the query with a known structure.

    `query` and `hit_sequence` are aligned, with '-' for gaps (hmmsearch: `hit_sequence` holds insertions
    too). `indices_query` and `indices_hit` give each aligned column's 0-based residue in the whole chains, -1
    for a gap. `sum_probs` is hhsearch's score, None from hmmsearch.
    """

    index: int
    name: str
    aligned_cols: int
    sum_probs: float | None
    query: str
    hit_sequence: str
    indices_query: list[int]
    indices_hit: list[int]


def parse_hhr(text: str, source: str = "hhr") -> list[TemplateHit]:
    """The hits of an hhsearch or hhblits output, in its order. Raises InputError where it is damaged."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("No ")]
    return [
        _parse_hhr_hit(lines[start:end], f"{source} line {start + 1}")
        for start, end in pairwise([*starts, len(lines)])
    ]


def _parse_hhr_hit(lines: list[str], where: str) -> TemplateHit:
    rows: dict[str, tuple[list[str], list[int]]] = {"Q": ([], []), "T": ([], [])}
    try:
        index = int(lines[0].split()[-1])
        name = lines[1].removeprefix(">")
        scores = dict(field.split("=", 1) for field in lines[2].split())
        aligned_cols, sum_probs = int(float(scores["Aligned_cols"])), float(scores["Sum_probs"])
        if not 0 <= sum_probs <= _MAX_SUM_PROBS:
            raise ValueError(sum_probs)
        for line in lines[3:]:
            if line[:2] in ("Q ", "T ") and not line[2:].startswith(_NOT_RESIDUES):
                found = _ALIGNED.match(line[_NAME_WIDTH:])
                if found is None:
                    raise ValueError(line)
                first, residues, last = int(found[1]) - 1, found[2], int(found[3])
                if last - first != len(residues) - residues.count("-"):
                    raise ValueError(line)
                parts, indices = rows[line[0]]
                parts.append(residues)
                indices += _indices(residues, first)
    except (IndexError, KeyError, ValueError, OverflowError):
        raise InputError(f"{where}: damaged hit; make or fetch the hhr file again") from None
    (query, indices_query), (hit, indices_hit) = (
        ("".join(parts), indices) for parts, indices in rows.values()
    )
    if len(query) != len(hit):
        raise InputError(f"{where}: query and hit are not aligned; make or fetch the hhr file again")
    return TemplateHit(index, name, aligned_cols, sum_probs, query, hit, indices_query, indices_hit)


def parse_hmmsearch_a3m(
    query_sequence: str, text: str, skip_first: bool = True, source: str = "a3m"
) -> list[TemplateHit]:
    """The protein hits of an hmmsearch of pdb_seqres, as a3m; `skip_first` where its first row is the query.

    Raises InputError for a hit whose header does not say what it is.
    """
    return list(iterate_hmmsearch_a3m(query_sequence, text, skip_first, source))


def iterate_hmmsearch_a3m(
    query_sequence: str, text: str, skip_first: bool = True, source: str = "a3m"
) -> Iterator[TemplateHit]:
    """As `parse_hmmsearch_a3m`, one by one: there may be very many hits, few of which are looked at."""
    records = islice(fasta_records(text, source), int(skip_first), None)
    indices_query = _indices(query_sequence, 0)
    for index, (line, description, sequence) in enumerate(records, start=1):
        if "mol:protein" not in description:
            continue
        found = _HMMSEARCH_NAME.match(description.strip())
        if found is None:
            raise InputError(f"{source} line {line}: expected a header such as '4pqx_A/2-217 ... length:217'")
        columns = sum(not letter.islower() for letter in sequence)
        if columns != len(query_sequence) or not _ALIGNED_ROW.fullmatch(sequence):
            raise InputError(
                f"{source} line {line}: {found[1]}_{found[2]} is not aligned with the query's "
                f"{len(query_sequence)} residues by letters and gaps; make the file again"
            )
        yield TemplateHit(
            index=index,
            name=f"{found[1]}_{found[2]}",
            aligned_cols=sum(letter.isupper() for letter in sequence),
            sum_probs=None,
            query=query_sequence,
            hit_sequence=sequence.upper(),
            indices_query=indices_query,
            indices_hit=_indices(sequence, int(found[3]) - 1),
        )


def _indices(aligned: str, first: int) -> list[int]:
    """The residue number of each column, -1 for gaps; lower-case letters count but have no column."""
    indices = []
    for letter in aligned:
        if letter == "-":
            indices.append(-1)
            continue
        if not letter.islower():
            indices.append(first)
        first += 1
    return indices
