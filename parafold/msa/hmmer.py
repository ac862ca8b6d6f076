"""One query against any part of a database, with HMMER's jackhmmer (one iteration) and AlphaFold's flags.

The parts' hits merge exactly: a part is searched as if the database held one sequence, which keeps every
hit that any larger database would keep, and `merge` then applies the thresholds with the true number of
sequences. So the rows do not depend on how the database was cut, and its size need not be known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyhmmer import easel, plan7

from parafold.errors import SearchError
from parafold.msa.database import ALPHABET

# AlphaFold runs `jackhmmer -N 1 --F1 0.0005 --F2 5e-05 --F3 5e-07 --incE 0.0001 -E 0.0001`.
FILTERS: dict[str, Any] = {"F1": 0.0005, "F2": 5e-05, "F3": 5e-07}
MAX_EVALUE = 1e-4
# jackhmmer's own default for domains, which AlphaFold leaves as it is.
MAX_DOMAIN_EVALUE = 1e-3


@dataclass(frozen=True)
class Domain:
    """One aligned stretch of a target; `row` is its a3m row over the whole query."""

    index: int
    pvalue: float
    start: int
    end: int
    row: str


@dataclass(frozen=True)
class Hit:
    """One target that passed the filters, with the domains that could enter the alignment."""

    name: str
    score: float
    pvalue: float
    start: int
    domains: tuple[Domain, ...]


class Query:
    """A query's profile, built once and usable by many threads.

    Raises:
        SearchError: the sequence is too short, or holds a letter that is no amino acid, or nothing but X.
    """

    def __init__(self, sequence: str) -> None:
        self.sequence = _checked(sequence)
        background = plan7.Background(ALPHABET)
        digital = easel.TextSequence(name="query", sequence=self.sequence).digitize(ALPHABET)
        _, _, self._profile = plan7.Builder(ALPHABET).build(digital, background)

    def search(self, targets: easel.DigitalSequenceBlock[Any]) -> list[Hit]:
        """The hits among some targets. Releases the interpreter lock while HMMER works.

        Raises:
            SearchError: a target's name is not UTF-8, or HMMER ran out of memory or of number range.
        """
        pipeline = plan7.Pipeline(
            ALPHABET,
            **FILTERS,
            Z=1,
            domZ=1,
            E=MAX_EVALUE,
            incE=MAX_EVALUE,
            incdomE=MAX_DOMAIN_EVALUE,
        )
        # The pipeline sets the profile's length model for each target, so a thread needs its own copy.
        length = len(self.sequence)
        try:
            hits = pipeline.search_hmm(self._profile.copy(), targets)
            return [_hit(hit, length) for hit in hits.reported]
        except (OverflowError, MemoryError) as error:
            raise SearchError(
                f"HMMER gave up on a query of {length} residues ({error}); split it or use fewer cpus"
            ) from error
        except UnicodeDecodeError as error:
            raise SearchError(f"the name {error.object!r} is not UTF-8; rewrite it in plain ASCII") from error


def merge(hits: Iterable[Hit], database_size: int) -> list[tuple[str, str]]:
    """The rows of one database's alignment in jackhmmer's order, each (name/start-end, a3m row), no query.

    `hits` come from any partition of the database, `database_size` is its number of sequences.
    """
    reported = [hit for hit in hits if hit.pvalue * database_size <= MAX_EVALUE]
    reported.sort(key=lambda hit: (-hit.score, hit.name.encode(), hit.start))
    return [
        (f"{hit.name}/{domain.start}-{domain.end}", domain.row)
        for hit in reported
        for domain in hit.domains
        if domain.pvalue * len(reported) <= MAX_DOMAIN_EVALUE
    ]


def _checked(sequence: str) -> str:
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
    domains = tuple(
        _domain(index, domain, length) for index, domain in enumerate(hit.domains) if domain.included
    )
    start = hit.domains[0].alignment.target_from
    return Hit(hit.name, hit.score, hit.pvalue, start, domains)


def _domain(index: int, domain: plan7.Domain, length: int) -> Domain:
    alignment = domain.alignment
    row = "-" * (alignment.hmm_from - 1) + alignment.target_sequence + "-" * (length - alignment.hmm_to)
    return Domain(index, domain.pvalue, alignment.target_from, alignment.target_to, row)
