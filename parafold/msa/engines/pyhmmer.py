"""HMMER's jackhmmer (one iteration, AlphaFold's flags), in process through pyhmmer.

The parts' hits merge exactly: a part is searched as if the database held one sequence, which keeps every
hit that any larger database would keep, and `merge` then applies the thresholds with the true number of
sequences. So the rows do not depend on how the database was cut, and its size need not be known beforehand.
"""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib import metadata
from typing import Any

from pyhmmer import easel, plan7

from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.engines.base import Chunk, Domain, Engine, Hit, QueryError, Row
from parafold.msa.fasta import ALPHABET, read_blocks
from parafold.msa.shards import Shard

# AlphaFold runs `jackhmmer -N 1 --F1 0.0005 --F2 5e-05 --F3 5e-07 --incE 0.0001 -E 0.0001`.
FILTERS: dict[str, Any] = {"F1": 0.0005, "F2": 5e-05, "F3": 5e-07}
MAX_EVALUE = 1e-4
# jackhmmer's own default for domains, which AlphaFold leaves as it is.
MAX_DOMAIN_EVALUE = 1e-3

# HMMER's two matrices hold three floats for each pair of residues.
_MATRIX_BYTES = 24
# pyhmmer's objects refer to each other in circles, 4 KB for each row: so many may wait to be collected.
_UNCOLLECTED_ROWS = 4000

_log = logging.getLogger(__name__)


class PyHmmer(Engine):
    """The default engine: needs no program, and may search any part of a database."""

    name = "pyhmmer"
    can_split = True

    def __init__(self) -> None:
        # Of the last task's queries, by the digest of what was prepared: the next task often has the same.
        self._profiles: dict[bytes, plan7.OptimizedProfile] = {}

    @property
    def version(self) -> str:
        return f"pyhmmer {metadata.version('pyhmmer')}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**FILTERS, "E": MAX_EVALUE, "incE": MAX_EVALUE, "incdomE": MAX_DOMAIN_EVALUE, "N": 1}

    @cached_property
    def _background(self) -> plan7.Background:
        return plan7.Background(ALPHABET)

    def prepare(self, sequence: str) -> bytes:
        """The profile HMM of the query, in HMMER's binary format."""
        digital = easel.TextSequence(name="query", sequence=checked(sequence)).digitize(ALPHABET)
        hmm, _, _ = plan7.Builder(ALPHABET).build(digital, self._background)
        stream = io.BytesIO()
        hmm.write(stream, binary=True)
        return stream.getvalue()

    def search(
        self, queries: Mapping[int, bytes], database: Database, shard: Shard, memory: int
    ) -> Iterator[Chunk]:
        profiles = self._profiles_of(queries)
        # A database of one sequence: see above.
        pipeline = plan7.Pipeline(
            ALPHABET, **FILTERS, Z=1, domZ=1, E=MAX_EVALUE, incE=MAX_EVALUE, incdomE=MAX_DOMAIN_EVALUE
        )
        rows = 0
        oddities: Counter[str] = Counter()
        for block in read_blocks(shard.path, shard.start, shard.end, warnings=oddities):
            longest = len(block.largest())
            hits = {}
            for number, profile in profiles.items():
                _note_lack_of_memory(number, profile.M, longest)
                try:
                    found = _search_block(pipeline, profile, block)
                except (SearchError, MemoryError) as error:
                    raise QueryError(number, f"{shard.path}: {error or 'out of memory'}") from error
                if found:
                    hits[number] = found
                    rows += sum(len(hit.domains) for hit in found)
                if rows >= _UNCOLLECTED_ROWS:
                    gc.collect()
                    rows = 0
            yield Chunk(len(block), block.total_length(), hits, dict(oddities))
            oddities.clear()

    def merge(self, query: str, hits: Iterable[Hit], database_size: int) -> list[Row]:
        """In jackhmmer's order: by score, then by name."""
        return merge(hits, database_size)

    def _profiles_of(self, queries: Mapping[int, bytes]) -> dict[int, plan7.OptimizedProfile]:
        keys = {number: hashlib.sha256(prepared).digest() for number, prepared in queries.items()}
        # The others go before new ones come: a task's profiles may take an eighth of the worker's memory.
        kept = {key: self._profiles[key] for key in keys.values() if key in self._profiles}
        if len(kept) < len(self._profiles):
            self._profiles = kept
            gc.collect()
        for number, key in keys.items():
            if key not in self._profiles:
                self._profiles[key] = self._configured(queries[number])
        return {number: self._profiles[key] for number, key in keys.items()}

    def _configured(self, prepared: bytes) -> plan7.OptimizedProfile:
        with plan7.HMMFile(io.BytesIO(prepared)) as file:
            hmm = file.read()
        assert hmm is not None
        return hmm.to_profile(self._background).to_optimized()


def _search_block(
    pipeline: plan7.Pipeline, profile: plan7.OptimizedProfile, targets: easel.DigitalSequenceBlock[Any]
) -> list[Hit]:
    """The hits among some targets. Releases the interpreter lock while HMMER works.

    Raises:
        SearchError: a target's name is not UTF-8, or HMMER ran out of memory or of number range.
    """
    pipeline.clear()
    try:
        found = pipeline.search_hmm(profile, targets)
        return [_hit(hit, profile.M) for hit in found.reported]
    except (OverflowError, MemoryError, SystemError) as error:
        # A SystemError is how pyhmmer tells that HMMER could not allocate its matrices.
        reason = error if isinstance(error, OverflowError) else "out of memory"
        raise SearchError(
            f"HMMER gave up on a query of {profile.M} residues ({reason}); split the query, or give its "
            "workers more memory (--max-memory)"
        ) from error
    except UnicodeDecodeError as error:
        raise SearchError(f"the name {error.object!r} is not UTF-8; rewrite it in plain ASCII") from error


def _note_lack_of_memory(query: int, residues: int, longest: int) -> None:
    """HMMER does not survive it when it cannot allocate its matrices. They are as large as target and query
    only where the two are similar all along, so it is tried; but whoever finds this process dead should know
    why."""
    size = _MATRIX_BYTES * residues * longest
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, OverflowError):
        _log.info(
            "%d residues against sequences of up to %d may need %.1f GB of memory",
            residues,
            longest,
            size / 1e9,
            extra={"query": query},
        )


def merge(hits: Iterable[Hit], database_size: int) -> list[Row]:
    """The rows of one database's alignment in jackhmmer's order, from the hits of any partition of it."""
    reported = [hit for hit in hits if hit.evalue * database_size <= MAX_EVALUE]
    reported.sort(key=lambda hit: (-hit.score, hit.name.encode(), hit.start))
    return [
        Row(f"{hit.name}/{domain.start}-{domain.end}", domain.row, hit.score, hit.evalue * database_size)
        for hit in reported
        for domain in hit.domains
        if domain.evalue * len(reported) <= MAX_DOMAIN_EVALUE
    ]


def checked(sequence: str) -> str:
    """The query in upper case.

    Raises:
        SearchError: it is too short, or holds a letter that is no amino acid, or nothing but X.
    """
    sequence = sequence.upper()
    if len(sequence) < 2:
        raise SearchError(
            f"a query of {len(sequence)} residues cannot be searched for; give a sequence of 2 or more"
        )
    wrong = next((i for i, letter in enumerate(sequence) if not ("A" <= letter <= "Z")), None)
    if wrong is not None:
        raise SearchError(
            f"query residue {wrong + 1}: {sequence[wrong]!r} is not an amino acid; replace it by X"
        )
    if set(sequence) == {"X"}:
        raise SearchError("the query holds unknown residues (X) only; give its sequence, or skip the search")
    return sequence


def _hit(hit: plan7.Hit, length: int) -> Hit:
    domains = tuple(_domain(domain, length) for domain in hit.domains if domain.included)
    return Hit(hit.name, hit.score, hit.pvalue, hit.domains[0].alignment.target_from, domains)


def _domain(domain: plan7.Domain, length: int) -> Domain:
    alignment = domain.alignment
    row = "-" * (alignment.hmm_from - 1) + alignment.target_sequence + "-" * (length - alignment.hmm_to)
    return Domain(domain.pvalue, alignment.target_from, alignment.target_to, row)
