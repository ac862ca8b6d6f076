"""Fixed sizes: crop, pad, and the buckets that keep the number of compiled programs small."""

import numpy as np

from parafold.errors import FeaturesError
from parafold.features.raw import Arrays

_RES, _MSA, _EXTRA, _TEMPLATES, _OTHER = "residues", "msa rows", "extra rows", "templates", "other"

# Which size each axis of a processed monomer feature follows; the keys are what the model is given.
MONOMER_AXES: dict[str, tuple[str, ...]] = {
    "aatype": (_RES,),
    "atom14_atom_exists": (_RES, _OTHER),
    "atom37_atom_exists": (_RES, _OTHER),
    "bert_mask": (_MSA, _RES),
    "extra_deletion_value": (_EXTRA, _RES),
    "extra_has_deletion": (_EXTRA, _RES),
    "extra_msa": (_EXTRA, _RES),
    "extra_msa_mask": (_EXTRA, _RES),
    "extra_msa_row_mask": (_EXTRA,),
    "msa_feat": (_MSA, _RES, _OTHER),
    "msa_mask": (_MSA, _RES),
    "msa_row_mask": (_MSA,),
    "random_crop_to_size_seed": (_OTHER,),
    "residue_index": (_RES,),
    "residx_atom14_to_atom37": (_RES, _OTHER),
    "residx_atom37_to_atom14": (_RES, _OTHER),
    "seq_length": (),
    "seq_mask": (_RES,),
    "target_feat": (_RES, _OTHER),
    "template_aatype": (_TEMPLATES, _RES),
    "template_all_atom_masks": (_TEMPLATES, _RES, _OTHER),
    "template_all_atom_positions": (_TEMPLATES, _RES, _OTHER, _OTHER),
    "template_mask": (_TEMPLATES,),
    "template_pseudo_beta": (_TEMPLATES, _RES, _OTHER),
    "template_pseudo_beta_mask": (_TEMPLATES, _RES),
    "template_sum_probs": (_TEMPLATES, _OTHER),
    "true_msa": (_MSA, _RES),
}

_MULTIMER_AXES: dict[str, tuple[str, ...]] = {
    "aatype": (_RES,),
    "all_atom_mask": (_RES, _OTHER),
    "all_atom_positions": (_RES, _OTHER, _OTHER),
    "asym_id": (_RES,),
    "bert_mask": (_MSA, _RES),
    "cluster_bias_mask": (_MSA,),
    "deletion_matrix": (_MSA, _RES),
    "deletion_mean": (_RES,),
    "entity_id": (_RES,),
    "entity_mask": (_RES,),
    "msa": (_MSA, _RES),
    "msa_mask": (_MSA, _RES),
    "residue_index": (_RES,),
    "seq_mask": (_RES,),
    "sym_id": (_RES,),
    "template_aatype": (_TEMPLATES, _RES),
    "template_all_atom_mask": (_TEMPLATES, _RES, _OTHER),
    "template_all_atom_positions": (_TEMPLATES, _RES, _OTHER, _OTHER),
}


def bucket(length: int, multiple: int = 64) -> int:
    """The padded length of a chain: the next multiple, so that many lengths share one compiled program."""
    if length < 1 or multiple < 1:
        raise FeaturesError(f"length {length} and bucket {multiple} must both be at least 1")
    return -(-length // multiple) * multiple


def select_feat(features: Arrays) -> Arrays:
    """Keep what the model reads."""
    return {name: features[name] for name in MONOMER_AXES if name in features}


def random_crop_to_size(
    features: Arrays, crop_size: int, max_templates: int, subsample_templates: bool = False
) -> Arrays:
    """Suppl. 1.2.8: keep `crop_size` consecutive residues and `max_templates` templates.

    The place follows from random_crop_to_size_seed alone, so that all passes of one example are cropped
    alike. Only templates are cut where the chain is no longer than `crop_size`.
    """
    length = int(features["seq_length"])
    kept = min(length, crop_size)
    rng = np.random.default_rng(features["random_crop_to_size_seed"].astype(np.uint32).tolist())
    first = int(rng.integers(length - kept + 1))
    residues = slice(first, first + kept)
    templates: slice | np.ndarray = slice(0, max_templates)
    if subsample_templates and "template_mask" in features:
        count = len(features["template_mask"])
        skipped = int(rng.integers(count + 1))
        templates = rng.permutation(count)[skipped : skipped + max_templates]
    cropped = {}
    for name, array in features.items():
        axes = MONOMER_AXES[name]
        if axes[:1] == (_TEMPLATES,):
            array = array[templates]
        if _RES in axes:
            array = array[(slice(None),) * axes.index(_RES) + (residues,)]
        cropped[name] = array
    return cropped | {"seq_length": np.asarray(kept, np.int32)}


def make_fixed_size(
    features: Arrays, msa_cluster_size: int, extra_msa_size: int, num_res: int, num_templates: int
) -> Arrays:
    """Pad every axis with zeros to the size that the model is compiled for."""
    sizes = {_RES: num_res, _MSA: msa_cluster_size, _EXTRA: extra_msa_size, _TEMPLATES: num_templates}
    return {name: _pad(name, array, MONOMER_AXES[name], sizes) for name, array in features.items()}


def pad_multimer(features: Arrays, num_res: int, num_msa: int) -> Arrays:
    """Pad residues and alignment rows of a complex with zeros: every mask 0, chain and entity number 0.

    Nothing real is changed by it: padded residues belong to no chain, are masked as keys of every attention,
    and padded rows are the last to become cluster centres.
    """
    sizes = {_RES: num_res, _MSA: num_msa}
    return {
        name: _pad(name, array, _MULTIMER_AXES[name], sizes) if name in _MULTIMER_AXES else array
        for name, array in features.items()
    }


def _pad(name: str, array: np.ndarray, axes: tuple[str, ...], sizes: dict[str, int]) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != len(axes):
        raise FeaturesError(f"{name} has {array.ndim} axes instead of {len(axes)}; build the features anew")
    missing = [sizes.get(axis, size) - size for axis, size in zip(axes, array.shape, strict=True)]
    if min(missing, default=0) < 0:
        at = missing.index(min(missing))
        raise FeaturesError(
            f"{name} has {array.shape[at]} {axes[at]}, more than the {sizes[axes[at]]} to pad to; "
            "choose a larger size"
        )
    return np.pad(array, [(0, count) for count in missing]) if any(missing) else array
