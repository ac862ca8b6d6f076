"""What a search found for one query: rows with their scores, and how alignments become one MSA."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from parafold.msa.engines.base import Row
from parafold.protein.alignment import Msa, parse_a3m


@dataclass(frozen=True)
class Alignment:
    """The hits of one query in one database, in the engine's order, cut to the database's limit.

    `num_sequences` is the number that E-values were computed with.
    """

    query: str
    database: str
    num_sequences: int
    rows: list[Row]

    def msa(self) -> Msa:
        """The query, then the hits. Residues inserted between two columns are counted at the column after
        them."""
        records = [("query", self.query), *((row.description, row.row) for row in self.rows)]
        return parse_a3m("".join(f">{name}\n{row}\n" for name, row in records), f"hits in {self.database}")

    def table(self) -> str:
        """Tab-separated: description, score (bits), E-value."""
        lines = [f"{row.description}\t{row.score:.2f}\t{row.evalue:.3g}\n" for row in self.rows]
        return "#hit\tscore\tevalue\n" + "".join(lines)


def stacked(msas: Iterable[Msa]) -> Msa:
    """Alignments of one query as one, in order, less the rows whose aligned residues an earlier row has: what
    AlphaFold makes its MSA features from."""
    seen: set[str] = set()
    sequences: list[str] = []
    descriptions: list[str] = []
    deletions = []
    for msa in msas:
        for sequence, description, counts in zip(msa.sequences, msa.descriptions, msa.deletions, strict=True):
            if sequence not in seen:
                seen.add(sequence)
                sequences.append(sequence)
                descriptions.append(description)
                deletions.append(counts)
    return Msa(sequences, np.stack(deletions), descriptions)
