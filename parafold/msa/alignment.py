"""What a search found for one query: rows with their scores, and how alignments become one MSA."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parafold.msa.engines.base import Row
from parafold.msa.results import TaskRecord
from parafold.protein.alignment import Msa, parse_a3m

_NO_INSERTIONS = {ord(letter): None for letter in string.ascii_lowercase}


@dataclass(frozen=True)
class Alignment:
    """The hits of one query in one database, in the engine's order, cut to the database's limit.

    `kind` is the database's; `num_sequences` is the number that E-values were computed with.
    """

    query: str
    database: str
    kind: str
    num_sequences: int
    rows: list[Row]

    def a3m(self) -> str:
        """The query, then the hits; inserted residues are lower-case letters."""
        return f">query\n{self.query}\n" + "".join(f">{row.description}\n{row.row}\n" for row in self.rows)

    def msa(self) -> Msa:
        """The query, then the hits. Residues inserted between two columns are counted at the column after
        them."""
        return parse_a3m(self.a3m(), f"hits in {self.database}")

    def table(self) -> str:
        """Tab-separated: hit, score (bits), E-value."""
        lines = [f"{row.description}\t{row.score:.2f}\t{row.evalue:.3g}\n" for row in self.rows]
        return "#hit\tscore\tevalue\n" + "".join(lines)


def stacked(alignments: Iterable[Alignment]) -> str:
    """Alignments of one query as one a3m, in order, less the rows whose aligned residues an earlier row has:
    what AlphaFold makes its MSA features from. Those of `uniprot`, which pair chains, are left out."""
    rows: dict[str, str] = {}
    for alignment in alignments:
        rows.setdefault(alignment.query, f">query\n{alignment.query}\n")
        for row in alignment.rows if alignment.kind != "uniprot" else ():
            rows.setdefault(row.row.translate(_NO_INSERTIONS), f">{row.description}\n{row.row}\n")
    return "".join(rows.values())


class SearchResults(Mapping[str, Msa]):
    """Query name -> its MSA: the databases' alignments in published order, repeated rows dropped, as
    AlphaFold makes its MSA features from them. Alignments of `uniprot`, which serve to pair chains, are not
    in it.

    Attributes:
        alignments: query name -> database name -> `Alignment`, with scores and E-values.
        tasks: what each task took, of those that were done in this run.
        seconds: step -> wall time.
    """

    def __init__(
        self,
        alignments: Mapping[str, Mapping[str, Alignment]],
        tasks: Sequence[TaskRecord],
        seconds: Mapping[str, float],
    ) -> None:
        self.alignments = alignments
        self.tasks = tasks
        self.seconds = seconds
        self._msas: dict[str, Msa] = {}

    def by_database(self, name: str) -> dict[str, Msa]:
        """Database name -> alignment, of one query."""
        return {database: alignment.msa() for database, alignment in self.alignments[name].items()}

    def a3m(self, name: str) -> str:
        """The MSA of one query, its inserted residues as lower-case letters."""
        return stacked(self.alignments[name].values())

    def __getitem__(self, name: str) -> Msa:
        if name not in self._msas:
            self._msas[name] = parse_a3m(self.a3m(name), f"alignment of {name}")
        return self._msas[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.alignments)

    def __len__(self) -> int:
        return len(self.alignments)
