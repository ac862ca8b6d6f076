"""Needleman-Wunsch: the best global alignment of the query to every sequence, by dynamic programming.

No filter spares a comparison, so the time is proportional to the number of sequences, to their length and to
the query's: the baseline that search programs are measured against. The instructions for many cells at once
are parasail's (Daily 2016, doi:10.1186/s12859-016-0930-z).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.engines.base import Chunk, Domain, Engine, Hit, Row
from parafold.msa.engines.pyhmmer import checked
from parafold.msa.fasta import ALPHABET, read_blocks
from parafold.msa.shards import Shard

# A gap of k residues costs 11 + (k - 1), at the ends as well.
GAP_OPEN, GAP_EXTEND = 11, 1
MATRIX = "blosum62"
_MAX_MATCH = 11

# What HMMER's alphabet has beside residues, a stop among them, is an unknown residue in an alignment.
_SHOWN = bytes(ord(letter if letter.isalpha() else "X") for letter in str(ALPHABET.symbols).ljust(256, "X"))
# The matrix has no line for these: selenocysteine and pyrrolysine count as what they are made from.
_SCORED = bytes.maketrans(b"UOJ", b"CKL")
# Scores of 16 bits are enough where neither all gaps nor all matches can leave them.
_SAFE = 30_000


class NeedlemanWunsch(Engine):
    """Global alignment with BLOSUM62. A target is a hit if its score is above 0: if, by the matrix's log-odds
    and the costs of gaps, it is more likely to be related to the query than not.

    `score` is in the matrix's half bits. No statistics are known for global scores: every E-value is 0. Hits
    are in order of score, then name; the parts of a database merge exactly.
    """

    name = "needleman-wunsch"
    can_split = True

    @property
    def version(self) -> str:
        try:
            return f"parasail {importlib.metadata.version('parasail')}"
        except importlib.metadata.PackageNotFoundError as error:
            raise SearchError(
                f"the engine {self.name} needs the package parasail; install it: pip install parasail"
            ) from error

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"matrix": MATRIX, "gap_open": GAP_OPEN, "gap_extend": GAP_EXTEND}

    def prepare(self, sequence: str) -> bytes:
        return checked(sequence).encode()

    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        aligners = {number: _Aligner(query, memory) for number, query in queries.items()}
        for block in read_blocks(shard.path, shard.start, shard.end):
            targets = [bytes(sequence.sequence).translate(_SHOWN) for sequence in block]
            hits: dict[int, list[Hit]] = {}
            for number, aligner in aligners.items():
                for sequence, target in zip(block, targets, strict=True):
                    if target and (score := aligner.score(target)) > 0:
                        domain = Domain(0.0, 1, len(target), aligner.row(target))
                        hits.setdefault(number, []).append(
                            Hit(sequence.name, float(score), 0.0, 1, (domain,))
                        )
            yield Chunk(len(block), block.total_length(), hits)

    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """By score, then by name; targets of one name by their rows."""
        ordered = sorted(hits, key=lambda hit: (-hit.score, hit.name.encode(), hit.domains[0].row))
        return [
            Row(f"{hit.name}/{domain.start}-{domain.end}", domain.row, hit.score, hit.evalue)
            for hit in ordered
            for domain in hit.domains
        ]


class _Aligner:
    """One query, compared with targets."""

    def __init__(self, query: bytes, memory: int) -> None:
        # Only those who use this engine need the package.
        import parasail

        self._parasail: Any = parasail
        self._matrix = getattr(parasail, MATRIX)
        self._query = query.translate(_SCORED)
        self._memory = memory
        self._narrow = parasail.profile_create_16(self._query, self._matrix)
        self._wide = parasail.profile_create_32(self._query, self._matrix)

    def score(self, target: bytes) -> int:
        """Of the best alignment, in half bits."""
        if self._is_narrow(target):
            compare, profile = self._parasail.nw_scan_profile_16, self._narrow
        else:
            compare, profile = self._parasail.nw_scan_profile_32, self._wide
        return compare(profile, target.translate(_SCORED), GAP_OPEN, GAP_EXTEND).score

    def row(self, target: bytes) -> str:
        """The target as a row of an alignment to the query (a3m).

        Raises:
            SearchError: finding it would take more than the memory that there is.
        """
        cells = len(self._query) * len(target)
        if cells > self._memory:
            raise SearchError(
                f"a global alignment of {len(self._query)} and {len(target)} residues takes {cells >> 20} "
                "MiB of memory; split the query, or give its workers more (--max-memory)"
            )
        trace = (
            self._parasail.nw_trace_scan_16 if self._is_narrow(target) else self._parasail.nw_trace_scan_32
        )
        found = trace(self._query, target.translate(_SCORED), GAP_OPEN, GAP_EXTEND, self._matrix)
        cigar, parts, at = found.cigar, [], 0
        for operation in cigar.seq.tolist():
            kind, length = "MIDNSHP=X"[operation & 15], operation >> 4
            if kind == "I":  # residues of the query without a partner
                parts.append(b"-" * length)
                continue
            letters = target[at : at + length]
            parts.append(letters.lower() if kind == "D" else letters)
            at += length
        return b"".join(parts).decode("ascii")

    def _is_narrow(self, target: bytes) -> bool:
        lengths = len(self._query), len(target)
        return sum(lengths) < _SAFE and _MAX_MATCH * min(lengths) < _SAFE
