"""hmmsearch of the sequences of known structures (pdb_seqres), with AlphaFold's flags, in process.

Blocks of the database are searched by threads, each as if the database ended with it: that keeps every hit
that the whole would keep, so one reading does, and few hits are in memory. The thresholds are then applied
with the true numbers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pyhmmer import easel, plan7

from parafold.errors import SearchError
from parafold.machine import usable_cpus
from parafold.msa.alignment import Alignment
from parafold.msa.database import Database
from parafold.msa.fasta import ALPHABET, read_blocks
from parafold.protein.alignment import Msa, to_a3m
from parafold.templates.hits import TemplateHit, parse_hmmsearch_a3m
from parafold.templates.profile import build_profile

# AlphaFold runs `hmmsearch --F1 0.1 --F2 0.1 --F3 0.1 --incE 100 -E 100 --domE 100 --incdomE 100`.
_MAX_EVALUE = 100.0
_FLAGS: dict[str, Any] = {"F1": 0.1, "F2": 0.1, "F3": 0.1}
_FLAGS |= {name: _MAX_EVALUE for name in ("E", "incE", "domE", "incdomE")}

# Called with the number of sequences searched so far.
Progress = Callable[[int], None]


class _Domain(NamedTuple):
    pvalue: float
    start: int
    end: int
    row: str


class _Hit(NamedTuple):
    score: float
    pvalue: float
    name: str
    description: str
    start: int
    domains: tuple[_Domain, ...]


def hmmsearch(
    msa: Msa | Alignment | Iterable[str],
    database: Database | str | Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[TemplateHit]:
    """The known structures that resemble a query, best first: `hmmsearch_a3m`, read.

    Raises:
        SearchError: see `hmmsearch_a3m`.
        InputError: a record's header is not as those of pdb_seqres are.
    """
    rows = a3m_rows(msa)
    text = hmmsearch_a3m(rows, database, workers=workers, progress=progress)
    return parse_hmmsearch_a3m(rows[0], text, skip_first=False, source=str(as_database(database).path))


def hmmsearch_a3m(
    msa: Msa | Alignment | Iterable[str],
    database: Database | str | Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Search pdb_seqres with a query's alignment; the hits as a3m without the query, "" if there are none.

    The same text as AlphaFold gets from hmmbuild and hmmsearch, whatever `workers` is.

    Args:
        msa: the alignment of the query with its homologs in uniref90, or its a3m rows, the query first. An
            `Msa` has lost the letters of insertions; with them the profile is exactly the published one.
        database: a FASTA file whose headers are "4pqx_A mol:protein length:217  Free text".
        workers: threads; by default the cores that this process may use.
        progress: called with the number of sequences searched so far.

    Raises:
        SearchError: the database cannot be read or is none of structures, or no profile can be built.
    """
    database = as_database(database)
    profile = build_profile(a3m_rows(msa))
    hits: list[_Hit] = []
    size = 0
    for count, found in _search_blocks(profile, database, max(1, workers or usable_cpus())):
        size += count
        hits += found
        if progress:
            progress(size)
    _check_headers(database, hits)
    lowest = profile.evalue_parameters.f_tau
    return _a3m(_rows(hits, database.z or size, -math.inf if lowest is None else lowest))


def a3m_rows(msa: Msa | Alignment | Iterable[str]) -> list[str]:
    """The rows of an alignment with lower-case insertions, the query first.

    Raises SearchError if there is none."""
    if isinstance(msa, Alignment):
        rows = [msa.query, *(row.row for row in msa.rows)]
    else:
        rows = to_a3m(msa).splitlines()[1::2] if isinstance(msa, Msa) else list(msa)
    if not rows:
        raise SearchError("the alignment has no row; its first row is the query")
    return rows


def as_database(database: Database | str | Path) -> Database:
    """A path as a database, under the name of its file."""
    return database if isinstance(database, Database) else Database(Path(database).name, Path(database))


def _search_blocks(profile: plan7.HMM, database: Database, workers: int) -> Iterator[tuple[int, list[_Hit]]]:
    """Sequences and hits of each block, in the order of the database."""
    optimized = profile.to_profile(plan7.Background(ALPHABET)).to_optimized()
    waiting: deque[tuple[int, Future[list[_Hit]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="hmmsearch") as threads:
        try:
            size = 0
            for file in database.files:
                for block in read_blocks(file):
                    size += len(block)
                    # The search sets the profile's length model for each sequence: a copy for each thread.
                    future = threads.submit(_search_block, optimized.copy(), block, database.z or size, file)
                    waiting.append((len(block), future))
                    # Blocks that wait take memory: two for each thread keep all of them busy.
                    while len(waiting) >= 2 * workers:
                        count, future = waiting.popleft()
                        yield count, future.result()
            while waiting:
                count, future = waiting.popleft()
                yield count, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _search_block(
    profile: plan7.OptimizedProfile, block: easel.DigitalSequenceBlock[Any], size: int, file: Path
) -> list[_Hit]:
    """The hits that would be reported if the database had `size` sequences; all their domains."""
    pipeline = plan7.Pipeline(ALPHABET, **_FLAGS, Z=size, domZ=1)
    try:
        return [_hit(hit, profile.M) for hit in pipeline.search_hmm(profile, block).reported]
    except (OverflowError, MemoryError) as error:
        raise SearchError(
            f"{file}: HMMER gave up on a query of {profile.M} residues ({error or 'out of memory'}); "
            "split the query, or use fewer workers"
        ) from error
    except UnicodeDecodeError as error:
        raise SearchError(
            f"{file}: the header {error.object!r} is not UTF-8; rewrite it in plain ASCII"
        ) from error


def _hit(hit: plan7.Hit, length: int) -> _Hit:
    domains = tuple(_domain(domain, length) for domain in hit.domains if domain.included)
    start = hit.domains[0].alignment.target_from
    return _Hit(hit.score, hit.pvalue, hit.name, hit.description or "", start, domains)


def _domain(domain: plan7.Domain, length: int) -> _Domain:
    alignment = domain.alignment
    row = "-" * (alignment.hmm_from - 1) + alignment.target_sequence + "-" * (length - alignment.hmm_to)
    return _Domain(domain.pvalue, alignment.target_from, alignment.target_to, row)


def _rows(hits: Sequence[_Hit], size: int, lowest: float) -> list[tuple[str, str, str]]:
    """Name with range, description and row of each included domain, in hmmsearch's order.

    That is by P-value, which is 1 for every score below `lowest`, then by name and start.
    """
    reported = [hit for hit in hits if hit.pvalue * size <= _MAX_EVALUE]
    reported.sort(key=lambda hit: (-max(hit.score, lowest), hit.name.encode(), hit.start))
    return [
        (f"{hit.name}/{domain.start}-{domain.end}", hit.description or hit.name, domain.row)
        for hit in reported
        for domain in hit.domains
        if domain.pvalue * len(reported) <= _MAX_EVALUE
    ]


def _a3m(rows: Sequence[tuple[str, str, str]]) -> str:
    """As AlphaFold converts the program's Stockholm file."""
    names = [name for name, _, _ in rows]
    if len(set(names)) < len(names):
        # Easel numbers all names as soon as two are equal.
        width = int(math.log10(len(names))) + 1
        names = [f"{number:0{width}}|{name}" for number, name in enumerate(names)]
    return "".join(
        f">{name} [subseq from] {description}\n{row}\n"
        for name, (_, description, row) in zip(names, rows, strict=True)
    )


def _check_headers(database: Database, hits: Sequence[_Hit]) -> None:
    if hits and not any("mol:" in hit.description for hit in hits):
        raise SearchError(
            f"{database.path}: {hits[0].name!r} and all other hits have no 'mol:protein length:...' in their "
            "headers; give the FASTA file of the PDB's sequences (pdb_seqres)"
        )
