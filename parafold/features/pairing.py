"""Pairing of sequences across the chains of a complex by species (suppl. of Evans et al., 2021).

Chains are feature dictionaries; `*_all_seq` are the features of the alignment to pair, before and after.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from parafold.features.raw import Arrays

GAP = 21
MSA_FEATURES = ("msa", "msa_mask", "deletion_matrix", "deletion_matrix_int")
_MOST_SEQUENCES_OF_A_SPECIES = 600
_NO_PARTNER = -1


def create_paired_features(chains: Sequence[Arrays]) -> list[Arrays]:
    """Give each chain's `*_all_seq` features the paired rows only, in one order for all chains."""
    if len(chains) < 2:
        return list(chains)
    paired_rows = reorder_paired_rows(pair_sequences(chains))
    paired = []
    for number, chain in enumerate(chains):
        rows = paired_rows[:, number]
        features = {
            name: _with_gap_row(name, array)[rows] if name.endswith("_all_seq") else array
            for name, array in chain.items()
        }
        paired.append(features | {"num_alignments_all_seq": np.asarray(len(rows))})
    return paired


def pair_sequences(chains: Sequence[Arrays]) -> dict[int, Int[np.ndarray, "pairs chains"]]:
    """Rows to join, by the number of chains that take part; -1 for a chain that does not.

    Within a species the sequences most similar to their queries are joined with each other. Species of one
    chain only are left out, and those with so many sequences that nothing tells which belong together. The
    queries come first.
    """
    species = [_rows_by_species(chain) for chain in chains]
    names = sorted(set().union(*species) - {b""})
    pairs: dict[int, list[np.ndarray]] = {count: [] for count in range(len(chains) + 1)}
    pairs[len(chains)].append(np.zeros((1, len(chains)), np.int64))
    for name in names:
        rows = [of_chain.get(name) for of_chain in species]
        sizes = [len(found) for found in rows if found is not None]
        if len(sizes) < 2 or max(sizes) > _MOST_SEQUENCES_OF_A_SPECIES:
            continue
        columns = [
            np.full(min(sizes), _NO_PARTNER) if found is None else found[: min(sizes)] for found in rows
        ]
        pairs[len(sizes)].append(np.stack(columns, axis=1))
    return {count: np.concatenate(found) for count, found in pairs.items() if found}


def reorder_paired_rows(
    pairs: dict[int, Int[np.ndarray, "pairs chains"]],
) -> Int[np.ndarray, "rows chains"]:
    """Pairs of most chains first; among equals those that stand highest in their searches."""
    ordered = []
    for count in sorted(pairs, reverse=True):
        rank = np.abs(pairs[count].prod(axis=1))
        ordered.append(pairs[count][np.argsort(rank, kind="stable")])
    return np.concatenate(ordered)


def deduplicate_unpaired_sequences(chains: Sequence[Arrays]) -> list[Arrays]:
    """Drop the unpaired rows that stand in the paired alignment already."""
    kept = []
    for chain in chains:
        paired = {row.tobytes() for row in chain["msa_all_seq"]}
        rows = [number for number, row in enumerate(chain["msa"]) if row.tobytes() not in paired]
        changed = {name: chain[name][rows] for name in MSA_FEATURES if name in chain}
        kept.append(chain | changed | {"num_alignments": np.array(len(rows), np.int32)})
    return kept


def _rows_by_species(chain: Arrays) -> dict[bytes, Int[np.ndarray, " rows"]]:
    """Row numbers of each species, the most similar to the query first, equals as the search found them."""
    msa = chain["msa_all_seq"]
    similarity = (msa == msa[0]).sum(-1) / float(msa.shape[1])
    found: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, name in enumerate(chain["msa_species_identifiers_all_seq"].tolist()):
        found[name].append(row)
    return {name: np.array(sorted(rows, key=lambda row: -similarity[row])) for name, rows in found.items()}


def _with_gap_row(name: str, array: np.ndarray) -> np.ndarray:
    """Add the row that stands for 'no partner'; rows are indexed from the end with -1."""
    if name == "msa_species_identifiers_all_seq":
        return np.concatenate([array, np.array([b""], array.dtype)])
    fill = {"msa_all_seq": GAP, "msa_mask_all_seq": 1}.get(name, 0)
    return np.concatenate([array, np.full((1, *array.shape[1:]), fill, array.dtype)])
