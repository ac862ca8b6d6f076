"""From the raw features of chains to those of a complex (suppl. of Evans et al., 2021).

Functions are named after the published steps, take feature dictionaries and return changed copies. Chains of
one sequence are one entity and stand next to each other in the result: see `chain_order`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from parafold.features.pairing import (
    GAP,
    MSA_FEATURES,
    create_paired_features,
    deduplicate_unpaired_sequences,
)
from parafold.features.raw import Arrays
from parafold.protein.residue import HHBLITS_TO_RESTYPE, STANDARD_ATOM_MASK

MAX_TEMPLATES = 4
MSA_CROP_SIZE = 2048
MIN_MSA_ROWS = 512  # an empty extra alignment is not a thing that the model can take

_RESIDUE_FEATURES = (
    "residue_index",
    "aatype",
    "all_atom_positions",
    "all_atom_mask",
    "asym_id",
    "sym_id",
    "entity_id",
    "entity_mask",
    "deletion_mean",
)
_TEMPLATE_FEATURES = ("template_aatype", "template_all_atom_positions", "template_all_atom_mask")
_MODEL_FEATURES = (
    *_RESIDUE_FEATURES,
    *_TEMPLATE_FEATURES,
    "assembly_num_chains",
    "bert_mask",
    "cluster_bias_mask",
    "deletion_matrix",
    "msa",
    "msa_mask",
    "num_alignments",
    "num_templates",
    "seq_length",
    "seq_mask",
)


def chain_order(sequences: Sequence[str]) -> list[int]:
    """Place in the input of each chain of the result: copies of a sequence together, as they first appear."""
    first = {sequence: number for number, sequence in reversed(list(enumerate(sequences)))}
    return sorted(range(len(sequences)), key=lambda number: (first[sequences[number]], number))


def assemble(chains: Sequence[Arrays], min_msa_rows: int = MIN_MSA_ROWS) -> Arrays:
    """A complex's features from its chains' raw ones, `*_all_seq` pairing features included."""
    by_id = add_assembly_features([convert_monomer_features(chain) for chain in chains])
    return pad_msa(pair_and_merge(by_id), min_msa_rows)


def convert_monomer_features(features: Arrays) -> Arrays:
    """Numbers instead of one-hot letters, scalars instead of repeated ones, the multimer's names."""
    converted = dict(features)
    for name in ("sequence", "domain_name", "num_alignments", "seq_length"):
        if name in features:
            converted[name] = np.asarray(features[name][0], features[name].dtype)
    converted["aatype"] = features["aatype"].argmax(-1).astype(np.int32)
    if "template_aatype" in features:
        letters = features["template_aatype"].reshape(-1, len(features["aatype"]), 22).argmax(-1)
        converted["template_aatype"] = HHBLITS_TO_RESTYPE.astype(np.int64)[letters]
        converted["template_all_atom_mask"] = converted.pop("template_all_atom_masks")
    return converted


def add_assembly_features(chains: Sequence[Arrays]) -> dict[str, Arrays]:
    """Number chains (asym_id), distinct sequences (entity_id) and copies of one (sym_id), from 1, float64.

    Returns the chains in the order of the numbers, under names such as A_1, A_2, B_1.
    """
    sequences = [str(chain["sequence"]) for chain in chains]
    entities = list(dict.fromkeys(sequences))
    copies = dict.fromkeys(entities, 0)
    named = {}
    for asym_id, number in enumerate(chain_order(sequences), start=1):
        sequence = sequences[number]
        copies[sequence] += 1
        entity_id, sym_id = entities.index(sequence) + 1, copies[sequence]
        length = int(chains[number]["seq_length"])
        named[f"{_letters(entity_id)}_{sym_id}"] = chains[number] | {
            "asym_id": np.full(length, float(asym_id)),
            "sym_id": np.full(length, float(sym_id)),
            "entity_id": np.full(length, float(entity_id)),
        }
    return named


def pair_and_merge(chains_by_id: Mapping[str, Arrays]) -> Arrays:
    """Pair by species where there is more than one sequence, crop, and merge the chains."""
    chains = process_unmerged_features(list(chains_by_id.values()))
    pair_msa_sequences = not is_homomer_or_monomer(chains)
    if pair_msa_sequences:
        chains = deduplicate_unpaired_sequences(create_paired_features(chains))
    chains = [_crop_single_chain(chain, pair_msa_sequences) for chain in chains]
    return process_final(merge_chain_features(chains, pair_msa_sequences))


def is_homomer_or_monomer(chains: Sequence[Arrays]) -> bool:
    """Whether all chains have one sequence: there is nothing to pair then."""
    return len({int(chain["entity_id"][0]) for chain in chains}) == 1


def process_unmerged_features(chains: Sequence[Arrays]) -> list[Arrays]:
    """Deletions as float32 and their column means; the atoms of each residue; the number of chains."""
    processed = []
    for chain in chains:
        features = dict(chain)
        for suffix in ("", "_all_seq"):
            if "deletion_matrix_int" + suffix in features:
                counts = features.pop("deletion_matrix_int" + suffix)
                features["deletion_matrix" + suffix] = counts.astype(np.float32)
        mask = STANDARD_ATOM_MASK[features["aatype"]]
        processed.append(
            features
            | {
                "deletion_mean": features["deletion_matrix"].mean(axis=0),
                "all_atom_mask": mask,
                "all_atom_positions": np.zeros((*mask.shape, 3)),
                "assembly_num_chains": np.asarray(len(chains)),
                "entity_mask": (features["entity_id"] != 0).astype(np.int32),
            }
        )
    return processed


def merge_chain_features(chains: Sequence[Arrays], pair_msa_sequences: bool) -> Arrays:
    """One alignment of the whole complex: paired rows on top, then each entity's own rows, gaps elsewhere."""
    entities = _merge_homomers_dense_msa(_pad_templates(chains))
    merged = _merge_features_from_multiple_chains(entities, dense=False)
    own_rows = _block_diagonal([np.ones(entity["msa"].shape, np.float32) for entity in entities], 0)
    bias = [np.arange(len(entity["msa"])) == 0 for entity in entities]
    if pair_msa_sequences:
        for name in MSA_FEATURES:
            if name in merged:
                merged[name] = np.concatenate([merged[name + "_all_seq"], merged[name]])
        paired_rows = np.ones(merged["msa_all_seq"].shape, np.float32)
        own_rows = np.concatenate([paired_rows, own_rows])
        bias = [np.arange(len(merged["msa"])) == 0]
    return merged | {
        "seq_length": np.asarray(len(merged["aatype"]), np.int32),
        "num_alignments": np.asarray(len(merged["msa"]), np.int32),
        # Each query must become a cluster centre: the first row, or the first of every block.
        "cluster_bias_mask": np.concatenate(bias).astype(np.float64),
        "bert_mask": own_rows,  # only letters that were searched for are worth restoring
    }


def process_final(features: Arrays) -> Arrays:
    """The model's alphabet, the masks, and only what the model reads."""
    seq_mask = (features["entity_id"] > 0).astype(np.float32)
    msa = HHBLITS_TO_RESTYPE[features["msa"]].astype(np.int32)
    features = features | {
        "msa": msa,
        "seq_mask": seq_mask,
        "msa_mask": np.ones(msa.shape, np.float32) * seq_mask,
    }
    return {name: array for name, array in features.items() if name in _MODEL_FEATURES}


def pad_msa(features: Arrays, min_num_seq: int) -> Arrays:
    """Add masked rows up to `min_num_seq`."""
    missing = min_num_seq - len(features["msa"])
    if missing <= 0:
        return dict(features)
    names = ("msa", "deletion_matrix", "bert_mask", "msa_mask", "cluster_bias_mask")
    padded = {
        name: np.pad(features[name], [(0, missing)] + [(0, 0)] * (features[name].ndim - 1)) for name in names
    }
    return features | padded


def _crop_single_chain(chain: Arrays, pair_msa_sequences: bool) -> Arrays:
    """Limit a chain's rows to 2048, at most half of them paired, and its templates to four."""
    rows, paired_rows = MSA_CROP_SIZE, 0
    if pair_msa_sequences:
        paired_rows = min(int(chain["num_alignments_all_seq"]), MSA_CROP_SIZE // 2)
        # A chain that takes part in few pairs may keep more rows of its own.
        taking_part = (chain["msa_all_seq"][:paired_rows] != GAP).any(axis=1).sum()
        rows = max(MSA_CROP_SIZE - int(taking_part), 0)
    rows = min(rows, int(chain["num_alignments"]))
    cropped = dict(chain)
    for name in MSA_FEATURES:
        if name in chain:
            cropped[name] = chain[name][:rows]
        if pair_msa_sequences and name + "_all_seq" in chain:
            cropped[name + "_all_seq"] = chain[name + "_all_seq"][:paired_rows]
    cropped["num_alignments"] = np.asarray(rows, np.int32)
    for name in _TEMPLATE_FEATURES:
        if name in chain:
            cropped[name] = chain[name][:MAX_TEMPLATES]
            cropped["num_templates"] = np.asarray(len(cropped[name]), np.int32)
    return cropped


def _pad_templates(chains: Sequence[Arrays]) -> list[Arrays]:
    padded = []
    for chain in chains:
        changed = {}
        for name in _TEMPLATE_FEATURES:
            if name in chain:
                missing = MAX_TEMPLATES - len(chain[name])
                changed[name] = np.pad(chain[name], [(0, missing)] + [(0, 0)] * (chain[name].ndim - 1))
        padded.append(chain | changed)
    return padded


def _merge_homomers_dense_msa(chains: Sequence[Arrays]) -> list[Arrays]:
    """Join the copies of each sequence side by side, row by row: they have one alignment."""
    copies: dict[int, list[Arrays]] = {}
    for chain in chains:
        copies.setdefault(int(chain["entity_id"][0]), []).append(chain)
    return [_merge_features_from_multiple_chains(copies[entity], dense=True) for entity in sorted(copies)]


def _merge_features_from_multiple_chains(chains: Sequence[Arrays], dense: bool) -> Arrays:
    """Join along the residues; unpaired alignments side by side if `dense`, else as blocks among gaps."""
    merged = {}
    for name in chains[0]:
        parts = [chain[name] for chain in chains]
        base = name.split("_all_seq")[0]
        if base in MSA_FEATURES:
            fill = {"msa": GAP, "msa_mask": 1}.get(base, 0)
            side_by_side = dense or name != base
            merged[name] = np.concatenate(parts, axis=1) if side_by_side else _block_diagonal(parts, fill)
        elif base in _RESIDUE_FEATURES:
            merged[name] = np.concatenate(parts, axis=0)
        elif base in _TEMPLATE_FEATURES:
            merged[name] = np.concatenate(parts, axis=1)
        else:
            merged[name] = parts[0]
    return merged


def _block_diagonal(blocks: Sequence[np.ndarray], fill: int) -> np.ndarray:
    shape = [sum(block.shape[axis] for block in blocks) for axis in (0, 1)]
    result = np.full(shape, fill, blocks[0].dtype)
    row = column = 0
    for block in blocks:
        result[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return result


def _letters(number: int) -> str:
    """1 = A, 26 = Z, 27 = AA, 28 = BA: reverse spreadsheet style, as mmCIF files name chains."""
    name = ""
    while number > 0:
        number, letter = divmod(number - 1, 26)
        name += chr(ord("A") + letter)
    return name
