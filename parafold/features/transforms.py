"""Monomer features that do not depend on chance (suppl. 1.2.9 of the paper).

Every function takes the feature dictionary and returns a changed copy; arrays are never written to. Names are
those of the published transforms.
"""

import numpy as np

from parafold.errors import FeaturesError
from parafold.features.raw import Arrays
from parafold.protein.residue import (
    ATOM14_MASK,
    ATOM14_TO_ATOM37,
    ATOM37_MASK,
    ATOM37_TO_ATOM14,
    ATOM_ORDER,
    HHBLITS_TO_RESTYPE,
    RESTYPE_ORDER,
)

# The trailing shape of each template array, for a chain without templates may bring empty arrays of any rank.
_TEMPLATE_SHAPES = {
    "template_aatype": (22,),
    "template_all_atom_positions": (37, 3),
    "template_all_atom_masks": (37,),
}


def select_raw(raw: Arrays, use_templates: bool) -> Arrays:
    """The raw features that the models read: deletions as float32, templates in full rank."""
    length = int(raw["seq_length"][0])
    names = ["aatype", "between_segment_residues", "msa", "residue_index", "seq_length"]
    features = {name: np.asarray(raw[name]) for name in names}
    deletions = raw["deletion_matrix_int"] if "deletion_matrix_int" in raw else raw["deletion_matrix"]
    features["deletion_matrix"] = np.asarray(deletions, np.float32)
    if use_templates:
        missing = [name for name in (*_TEMPLATE_SHAPES, "template_domain_names") if name not in raw]
        if missing:
            raise FeaturesError(
                f"the model uses templates, but {missing[0]} is missing; build the features anew"
            )
        count = len(raw["template_domain_names"])
        for name, shape in _TEMPLATE_SHAPES.items():
            features[name] = np.asarray(raw[name], np.float32).reshape(count, length, *shape)
        scores = raw.get("template_sum_probs", np.zeros((count, 1)))
        features["template_sum_probs"] = np.asarray(scores, np.float32).reshape(count, 1)
    return features


def correct_msa_restypes(features: Arrays) -> Arrays:
    """Renumber the alignment from HHblits' alphabet to the model's."""
    return features | {"msa": HHBLITS_TO_RESTYPE.astype(np.int32)[features["msa"]]}


def cast_64bit_ints(features: Arrays) -> Arrays:
    """int64 becomes int32."""
    return {
        name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in features.items()
    }


def squeeze_features(features: Arrays) -> Arrays:
    """One-hot sequence to numbers; the length, repeated for each residue, to a scalar."""
    return features | {
        "aatype": features["aatype"].argmax(-1).astype(np.int32),
        "seq_length": features["seq_length"][0],
    }


def randomly_replace_msa_with_unknown(
    features: Arrays, replace_proportion: float, rng: np.random.Generator
) -> Arrays:
    """Replace a share of the alignment's and the query's letters by X. The published models replace none."""
    if replace_proportion == 0:
        return features
    unknown, gap = np.int32(20), 21
    msa, aatype = features["msa"], features["aatype"]
    in_msa = (rng.random(msa.shape) < replace_proportion) & (msa != gap)
    in_query = rng.random(aatype.shape) < replace_proportion
    return features | {"msa": np.where(in_msa, unknown, msa), "aatype": np.where(in_query, unknown, aatype)}


def make_seq_mask(features: Arrays) -> Arrays:
    """Ones for every residue; padding adds zeros."""
    return features | {"seq_mask": np.ones(features["aatype"].shape, np.float32)}


def make_msa_mask(features: Arrays) -> Arrays:
    """Ones for every letter and row; padding adds zeros."""
    shape = features["msa"].shape
    return features | {"msa_mask": np.ones(shape, np.float32), "msa_row_mask": np.ones(shape[0], np.float32)}


def make_hhblits_profile(features: Arrays) -> Arrays:
    """Share of each of the 22 letters in each column of the whole alignment, [r, 22]."""
    msa = features["msa"]
    rows, length = msa.shape
    cells = (np.arange(length) * 22 + msa).ravel()
    counts = np.bincount(cells, minlength=length * 22).reshape(length, 22).astype(np.float32)
    return features | {"hhblits_profile": counts / np.float32(rows)}


def fix_templates_aatype(features: Arrays) -> Arrays:
    """Templates' one-hot HHblits letters to the model's numbers, [t, r]."""
    letters = features["template_aatype"].argmax(-1)
    return features | {"template_aatype": HHBLITS_TO_RESTYPE.astype(np.int32)[letters]}


def make_template_mask(features: Arrays) -> Arrays:
    """Ones for every template; padding adds zeros."""
    return features | {"template_mask": np.ones(len(features["template_aatype"]), np.float32)}


def pseudo_beta(
    aatype: np.ndarray, all_atom_positions: np.ndarray, all_atom_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Position [..., 3] and mask [...] of CB, or of CA for glycine."""
    is_glycine = aatype == RESTYPE_ORDER["G"]
    alpha, beta = ATOM_ORDER["CA"], ATOM_ORDER["CB"]
    positions = np.where(
        is_glycine[..., None], all_atom_positions[..., alpha, :], all_atom_positions[..., beta, :]
    )
    mask = np.where(is_glycine, all_atom_mask[..., alpha], all_atom_mask[..., beta])
    return positions, mask.astype(np.float32)


def make_pseudo_beta(features: Arrays) -> Arrays:
    """Templates' pseudo-beta positions and masks."""
    positions, mask = pseudo_beta(
        features["template_aatype"],
        features["template_all_atom_positions"],
        features["template_all_atom_masks"],
    )
    return features | {"template_pseudo_beta": positions, "template_pseudo_beta_mask": mask}


def make_atom14_masks(features: Arrays) -> Arrays:
    """Which atoms each residue has in either layout, and the maps from one layout to the other."""
    aatype = features["aatype"]
    return features | {
        "atom14_atom_exists": ATOM14_MASK.astype(np.float32)[aatype],
        "residx_atom14_to_atom37": ATOM14_TO_ATOM37.astype(np.int32)[aatype],
        "residx_atom37_to_atom14": ATOM37_TO_ATOM14.astype(np.int32)[aatype],
        "atom37_atom_exists": ATOM37_MASK.astype(np.float32)[aatype],
    }
