"""Template features: a template's atoms laid along the query, as AlphaFold's features.pkl has them."""

from collections.abc import Mapping, Sequence

import numpy as np

from parafold.protein.residue import HHBLITS_ID
from parafold.templates.entry import TemplateChain

TemplateFeatures = dict[str, np.ndarray]

# Fewer atoms than an alanine has make no template.
MIN_ATOMS = 5
_GAP = HHBLITS_ID["-"]


def empty_templates(length: int) -> TemplateFeatures:
    """The features of no template for a chain of `length` residues: the shapes of `stack`, with t = 0."""
    return {
        "template_aatype": np.zeros((0, length, 22), np.float32),
        "template_all_atom_masks": np.zeros((0, length, 37), np.float32),
        "template_all_atom_positions": np.zeros((0, length, 37, 3), np.float32),
        "template_domain_names": np.zeros(0, "S1"),
        "template_sequence": np.zeros(0, "S1"),
        "template_sum_probs": np.zeros((0, 1), np.float32),
    }


def template_features(
    chain: TemplateChain, mapping: Mapping[int, int], length: int, name: str, sum_probs: float
) -> TemplateFeatures:
    """The features of one template, without the leading template axis.

    `mapping` gives for residues of the query (of `length` residues) their partner in the chain. Residues
    without a partner have the letter '-' and no atoms; a partner without coordinates has its letter, but no
    atoms.
    """
    positions, mask = chain.atoms()
    rows = np.fromiter(mapping.keys(), int, len(mapping))
    partners = np.fromiter(mapping.values(), int, len(mapping))
    out_positions = np.zeros((length, 37, 3), np.float32)
    out_mask = np.zeros((length, 37), np.float32)
    out_positions[rows], out_mask[rows] = positions[partners], mask[partners]
    letters = ["-"] * length
    for row, partner in mapping.items():
        letters[row] = chain.sequence[partner]
    ids = [HHBLITS_ID[letter] for letter in letters]
    return {
        "template_aatype": np.eye(22, dtype=np.float32)[ids],
        "template_all_atom_masks": out_mask,
        "template_all_atom_positions": out_positions,
        "template_domain_names": np.array(name.encode()),
        "template_sequence": np.array("".join(letters).encode()),
        "template_sum_probs": np.array([sum_probs], np.float32),
    }


def stack(templates: Sequence[TemplateFeatures], length: int) -> TemplateFeatures:
    """The features of t templates of one chain (r = `length`), from those of each.

    template_aatype [t, r, 22] one-hot in HHblits' order, template_all_atom_masks [t, r, 37],
    template_all_atom_positions [t, r, 37, 3] in Å, template_sum_probs [t, 1], all float32;
    template_domain_names [t] and template_sequence [t], bytes.
    """
    if not templates:
        return empty_templates(length)
    return {key: np.stack([template[key] for template in templates]) for key in templates[0]}
