"""Features of one chain as searches leave them, before any sampling (suppl. 1.2 of the paper).

Text is kept as fixed-width bytes, so that no array in parafold ever holds Python objects.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parafold.errors import FeaturesError
from parafold.protein.alignment import species_id
from parafold.protein.residue import HHBLITS_ID, RESTYPE_ORDER_WITH_X
from parafold.templates import empty_templates

if TYPE_CHECKING:
    from parafold.protein.alignment import Msa

Arrays = dict[str, np.ndarray]

_NOT_A_LETTER = 255
_HHBLITS_LOOKUP = np.full(256, _NOT_A_LETTER, np.uint8)
for _letter, _index in HHBLITS_ID.items():
    _HHBLITS_LOOKUP[ord(_letter)] = _index


def sequence_features(sequence: str, description: str = "") -> Arrays:
    """What is known from the sequence alone.

    Returns:
      aatype [r, 21] one-hot, between_segment_residues [r], residue_index [r] from 0, seq_length [r], all
      int32; domain_name [1] and sequence [1], bytes. A letter outside the twenty counts as X.
    """
    length = len(sequence)
    letters = [RESTYPE_ORDER_WITH_X.get(letter, RESTYPE_ORDER_WITH_X["X"]) for letter in sequence]
    return {
        "aatype": np.eye(21, dtype=np.int32)[np.asarray(letters, np.intp)],
        "between_segment_residues": np.zeros(length, np.int32),
        "domain_name": np.array([description.encode()]),
        "residue_index": np.arange(length, dtype=np.int32),
        "seq_length": np.full(length, length, np.int32),
        "sequence": np.array([sequence.encode()]),
    }


def msa_features(msas: "Sequence[Msa]") -> Arrays:
    """One alignment out of several: rows in order, each aligned string kept once, letters as HHblits numbers.

    Returns:
      msa [n, r] 0..21 and deletion_matrix_int [n, r] (deletions to the left of each residue), num_alignments
      [r], all int32; msa_species_identifiers [n], bytes, empty where the description names no species.

    Raises:
      FeaturesError: no alignment, an empty one, alignments of different widths, or a row with a wrong letter.
    """
    if not msas or any(len(msa) == 0 for msa in msas):
        raise FeaturesError("features need an alignment with at least the query in it; give Msa.query_only")
    width = len(msas[0].sequences[0])
    rows: list[np.ndarray] = []
    deletions: list[np.ndarray] = []
    species: list[bytes] = []
    seen: set[str] = set()
    for number, msa in enumerate(msas, start=1):
        for row, sequence in enumerate(msa.sequences):
            if sequence in seen:
                continue
            seen.add(sequence)
            rows.append(_hhblits_row(sequence, width, f"alignment {number} row {row + 1}"))
            deletions.append(np.asarray(msa.deletions[row], np.int32))
            species.append(species_id(msa.descriptions[row]).encode())
    return {
        "deletion_matrix_int": np.stack(deletions),
        "msa": np.stack(rows).astype(np.int32),
        "num_alignments": np.full(width, len(rows), np.int32),
        "msa_species_identifiers": np.array(species),
    }


def chain_features(
    sequence: str, description: str, msas: "Sequence[Msa]", templates: Mapping[str, np.ndarray] | None
) -> Arrays:
    """Sequence, alignment and template features of one chain, as AlphaFold's features.pkl has them.

    Raises:
      FeaturesError: the alignments do not belong to the sequence.
    """
    for number, msa in enumerate(msas, start=1):
        query = msa.sequences[0] if len(msa) else ""
        if len(query) != len(sequence):
            raise FeaturesError(
                f"alignment {number} has {len(query)} columns, its query {len(sequence)} residues; "
                "search with this sequence again"
            )
    found = {key: np.asarray(value) for key, value in (templates or empty_templates(len(sequence))).items()}
    return sequence_features(sequence, description) | msa_features(msas) | found


def _hhblits_row(sequence: str, width: int, where: str) -> np.ndarray:
    if len(sequence) != width:
        raise FeaturesError(
            f"{where}: {len(sequence)} columns, the first row has {width}; align every row to the same query"
        )
    numbers = _HHBLITS_LOOKUP[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    if (wrong := numbers == _NOT_A_LETTER).any():
        letter = sequence[int(wrong.argmax())]
        raise FeaturesError(f"{where}: {letter!r} is not an amino acid or '-'; replace it by X")
    return numbers
