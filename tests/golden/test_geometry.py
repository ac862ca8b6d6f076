"""Geometry, violations and scores against the published functions, key by key."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from parafold.model import all_atom, comparison, losses, violations
from parafold.model.config import model_config
from parafold.model.rigid import Rigid, quaternion_to_rotation
from parafold.protein import residue

REFERENCE = dict(np.load(Path(__file__).parent / "oracle" / "geometry" / "geometry.npz"))
INPUTS = {key[3:]: jnp.asarray(value) for key, value in REFERENCE.items() if key.startswith("in/")}
# `labels`, `rc` and `rc_atom14_dists_bounds` are not geometry of the model: the features and the residue
# tables have their own tests.
OTHERS = ("in/", "labels/", "rc/", "rc_atom14_dists_bounds/", "mm_sm_loss/in/")
KEYS = sorted(key for key in REFERENCE if not key.startswith(OTHERS))
# Angles of unknown atoms, which stand at the origin: at these (residue, angle) the three atoms of the frame
# lie on a line, or nearly so, and the angle is rounding noise.
NOISE = {
    f"atom37_to_torsion_angles/{name}": ((0, 1), (17, 2))
    for name in ("torsion_angles_sin_cos", "alt_torsion_angles_sin_cos")
}


def _with_prefix(prefix, tree):
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _with_prefix(f"{prefix}/{key}", value)
        else:
            flat[f"{prefix}/{key}"] = value
    return flat


def _frames():
    groups = all_atom.rigid_groups(INPUTS["aatype"], INPUTS["all_atom_positions"], INPUTS["all_atom_mask"])
    out = {}
    for prefix, encode in (("", Rigid.to_tensor12), ("mm_", Rigid.to_matrix)):
        named = {
            "rigidgroups_gt_frames": encode(groups.frames),
            "rigidgroups_alt_gt_frames": encode(groups.alternative_frames),
            "rigidgroups_gt_exists": groups.frames_mask,
            "rigidgroups_group_exists": groups.exists,
            "rigidgroups_group_is_ambiguous": groups.is_ambiguous,
        }
        out |= _with_prefix(f"{prefix}atom37_to_frames", named)
    frames, mask = all_atom.backbone_rigids(INPUTS["all_atom_positions"], INPUTS["all_atom_mask"])
    return out | _with_prefix("mm_make_backbone_affine", {"rigid": frames.to_matrix(), "mask": mask})


def _torsions():
    args = INPUTS["aatype"], INPUTS["all_atom_positions"], INPUTS["all_atom_mask"]
    out = {}
    for name, placeholder in (
        ("atom37_to_torsion_angles", False),
        ("atom37_to_torsion_angles_placeholder", True),
    ):
        torsions = all_atom.torsion_angles(*args, placeholder=placeholder)
        named = {
            "torsion_angles_sin_cos": torsions.sin_cos,
            "alt_torsion_angles_sin_cos": torsions.alternative_sin_cos,
            "torsion_angles_mask": torsions.mask,
        }
        out |= _with_prefix(name, named)
    chi, mask = all_atom.chi_angles(*args)
    return out | _with_prefix("mm_compute_chi_angles", {"chi": chi, "mask": mask})


def _coordinates():
    aatype = INPUTS["aatype"]
    rigid = Rigid.from_quaternion(INPUTS["quat"], INPUTS["trans"])
    frames = all_atom.torsion_angles_to_frames(aatype, rigid, INPUTS["torsions"])
    positions = INPUTS["all_atom_positions"]
    beta = all_atom.pseudo_beta(aatype, positions)
    return {
        "quat_to_rot": quaternion_to_rotation(INPUTS["quat"]),
        "pre_compose": rigid.update(INPUTS["affine_update"]).to_tensor7(),
        "torsion_angles_to_frames": frames.to_tensor12(),
        "atom14_pos": all_atom.frames_to_atom14(aatype, frames),
        "atom14_atom_exists": all_atom.atom14_mask(aatype),
        "mm_atom37_mask": all_atom.atom37_mask(aatype),
        "atom14_to_atom37": all_atom.atom14_to_atom37(INPUTS["pred_atom14"], aatype),
        "atom14_radius": all_atom.by_residue_type(violations._ATOM14_RADIUS, aatype),
        "pseudo_beta/pos": beta,
        "pseudo_beta/mask": all_atom.pseudo_beta_mask(aatype, INPUTS["all_atom_mask"]),
        "dgram_prev_pos": all_atom.distogram_features(beta, num_bins=15, min_bin=3.25, max_bin=20.75),
        "dgram_template": all_atom.distogram_features(beta, num_bins=39, min_bin=3.25, max_bin=50.75),
    }


def _violations():
    def atoms(asym_id):
        return violations.Atoms(
            positions=INPUTS["pred_atom14"],
            mask=all_atom.atom14_mask(INPUTS["aatype"]),
            aatype=INPUTS["aatype"],
            residue_index=INPUTS["residue_index"],
            asym_id=asym_id,
        )

    one_chain = atoms(None)
    bounds = residue.atom14_distance_bounds(1.5, 12.0)
    lower, upper = (bounds[key].astype(np.float32) for key in ("lower_bound", "upper_bound"))
    bonds = violations.peptide_bond_violations(one_chain, tolerance_factor=12.0)
    return (
        _with_prefix("between_residue_bond_loss", bonds)
        | _with_prefix(
            "between_residue_clash_loss",
            violations.clashes_between_residues(one_chain, overlap_tolerance=1.5),
        )
        | _with_prefix(
            "mm_between_residue_clash_loss",
            violations.clashes_between_residues(atoms(INPUTS["asym_id"]), overlap_tolerance=1.5),
        )
        | _with_prefix(
            "within_residue_violations",
            violations.violations_within_residues(one_chain, lower=lower, upper=upper),
        )
        | {"extreme_ca_ca": violations.extreme_ca_ca_distances(one_chain)}
    )


def _scores():
    aatype, positions, mask = (INPUTS[k] for k in ("aatype", "all_atom_positions", "all_atom_mask"))
    true, true_mask = all_atom.atom37_to_atom14(positions, mask, aatype)
    swapped, _ = all_atom.alternative_atom14(true, true_mask, aatype)
    predicted = INPUTS["pred_atom14"]
    renaming = comparison.alternative_naming_is_better(
        predicted, true, swapped, true_mask, all_atom.atom14_is_ambiguous(aatype)
    )
    frames = Rigid.from_quaternion(INPUTS["quat"], INPUTS["trans"])
    target, target_mask = all_atom.backbone_rigids(positions, mask)
    out = {"find_optimal_renaming": renaming}
    for name, clamp in (("clamped", 10.0), ("unclamped", None)):
        out[f"fape_backbone_{name}"] = comparison.frame_aligned_point_error(
            (frames, frames.translation),
            (target, target.translation),
            target_mask[:, None] * target_mask[None, :],
            length_scale=10.0,
            clamp_distance=clamp,
        )
    ca = predicted[None, :, 1], positions[None, :, all_atom.CA], mask[None, :, all_atom.CA]
    out["lddt_per_residue"] = comparison.lddt(*ca, per_residue=True)
    out["lddt_global"] = comparison.lddt(*ca)
    return out


def _multimer_loss():
    value = {}
    for key, array in REFERENCE.items():
        if key.startswith("mm_sm_loss/in/"):
            *path, name = key.removeprefix("mm_sm_loss/in/").split("/")
            node = value.setdefault(path[0], {}) if path else value
            node[name] = jnp.asarray(array)
    batch = {
        key: INPUTS[key]
        for key in ("aatype", "residue_index", "asym_id", "all_atom_positions", "all_atom_mask")
    }
    batch["seq_mask"] = value.pop("seq_mask")
    config = model_config("model_1_multimer_v3").model.heads.structure_module
    out = losses.structure_module_loss(value, batch, config)
    published = ("loss", "metrics", "fape", "bb_loss", "sidechain_fape", "chi_loss", "angle_norm_loss")
    return _with_prefix("mm_sm_loss/out", {key: out[key] for key in published})


@pytest.fixture(scope="module")
def computed():
    return _frames() | _torsions() | _coordinates() | _violations() | _scores() | _multimer_loss()


def test_every_reference_key_is_computed(computed):
    assert sorted(computed) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_equals_published(computed, key):
    ours, reference = np.asarray(computed[key], np.float64), REFERENCE[key].astype(np.float64)
    assert ours.shape == reference.shape
    for place in NOISE.get(key, ()):
        assert REFERENCE["atom37_to_torsion_angles/torsion_angles_mask"][place] == 0
        ours[place] = reference[place] = 0
    scale = np.sqrt(np.mean(np.square(reference)))
    assert np.max(np.abs(ours - reference)) <= 1e-5 * scale
