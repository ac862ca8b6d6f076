"""Suppl. Sec. 1.9.11: bonds and angles that no protein has, and atoms that overlap."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from parafold.model.all_atom import by_residue_type
from parafold.model.comparison import distance
from parafold.model.primitives import masked_mean
from parafold.protein import residue

# Slots of the backbone in both atom layouts.
_N, _CA, _C = 0, 1, 2
_MAX_CA_CA_EXCESS = 1.5
_CYS_SG = residue.ATOM14_NAMES["CYS"].index("SG")
_ATOM37_RADIUS = np.array([residue.VAN_DER_WAALS_RADIUS[name[0]] for name in residue.ATOM_TYPES], np.float32)
_ATOM14_RADIUS = _ATOM37_RADIUS[residue.ATOM14_TO_ATOM37] * residue.ATOM14_MASK.astype(np.float32)


@dataclass(frozen=True)
class Atoms:
    """Predicted atoms, in 14 slots, of one structure.

    Attributes:
      positions: Å.
      mask: atoms that exist.
      aatype: residue types.
      residue_index: numbers along the chains; neighbours in sequence differ by one.
      asym_id: chain of each residue, or None for a single chain.
    """

    positions: Float[Array, "r 14 3"]
    mask: Num[Array, "r 14"]
    aatype: Int[Array, " r"]
    residue_index: Num[Array, " r"]
    asym_id: Num[Array, " r"] | None = None


def _has_next(atoms: Atoms) -> Float[Array, "r1"]:
    """1 for residues whose successor in sequence is the next residue."""
    return ((atoms.residue_index[1:] - atoms.residue_index[:-1]) == 1).astype(jnp.float32)


def _length(vector: Float[Array, "*n 3"], epsilon: float) -> Float[Array, "*n"]:
    return distance(jnp.sum(jnp.square(vector), axis=-1), epsilon)


def extreme_ca_ca_distances(atoms: Atoms) -> Float[Array, ""]:
    """Fraction of neighbours whose CA atoms are more than 1.5 Å further apart than in a trans peptide."""
    ca = atoms.positions[:, _CA]
    excess = _length(ca[1:] - ca[:-1], 1e-6) - residue.CA_CA
    mask = atoms.mask[:-1, _CA] * atoms.mask[1:, _CA] * _has_next(atoms)
    return masked_mean(mask, (excess > _MAX_CA_CA_EXCESS).astype(jnp.float32))


def peptide_bond_violations(
    atoms: Atoms, *, tolerance_factor: float, multimer: bool = False
) -> dict[str, Float[Array, "*n"]]:
    """Eq. 44 and 45: flat-bottomed losses on the bond between neighbours and on its two angles.

    Args:
      atoms: predicted atoms.
      tolerance_factor: width of the flat bottom in standard deviations.
      multimer: judge the angle at C as the published multimer code does, by the standard deviation of the
        bond's length.

    Returns:
      `c_n_loss_mean`, `ca_c_n_loss_mean`, `c_n_ca_loss_mean`: means over bonds; `per_residue_loss_sum` [r]
      and `per_residue_violation_mask` [r]: shared by the two residues of a bond.
    """
    x, mask = atoms.positions, atoms.mask
    ca, c, next_n, next_ca = x[:-1, _CA], x[:-1, _C], x[1:, _N], x[1:, _CA]
    has_ca, has_c, has_n, has_next_ca = mask[:-1, _CA], mask[:-1, _C], mask[1:, _N], mask[1:, _CA]
    bonded = has_c * has_n * _has_next(atoms)
    before_proline = (atoms.aatype[1:] == residue.RESTYPE_ORDER["P"]).astype(jnp.int32)

    bond_length = _length(next_n - c, 1e-6)
    to_ca = (ca - c) / _length(ca - c, 1e-6)[:, None]
    to_next = (next_n - c) / bond_length[:, None]
    to_next_ca = (next_ca - next_n) / _length(next_ca - next_n, 1e-6)[:, None]
    ca_c_n, ca_c_n_stddev = residue.BETWEEN_RES_COS_ANGLES_CA_C_N
    if multimer:
        ca_c_n_stddev = residue.BETWEEN_RES_BOND_LENGTH_STDDEV_C_N[0]
    terms = {
        "c_n": (
            bond_length,
            jnp.asarray(residue.BETWEEN_RES_BOND_LENGTH_C_N)[before_proline],
            jnp.asarray(residue.BETWEEN_RES_BOND_LENGTH_STDDEV_C_N)[before_proline],
            bonded,
        ),
        "ca_c_n": (
            jnp.sum(to_ca * to_next, axis=-1),
            ca_c_n,
            ca_c_n_stddev,
            bonded * has_ca,
        ),
        "c_n_ca": (
            -jnp.sum(to_next * to_next_ca, axis=-1),
            *residue.BETWEEN_RES_COS_ANGLES_C_N_CA,
            bonded * has_next_ca,
        ),
    }
    out: dict[str, Float[Array, "*n"]] = {}
    total, violated = 0.0, 0.0
    for name, (value, ideal, stddev, known) in terms.items():
        error = distance(jnp.square(value - ideal), 1e-6)
        loss = jax.nn.relu(error - tolerance_factor * stddev)
        out[f"{name}_loss_mean"] = jnp.sum(known * loss) / (jnp.sum(known) + 1e-6)
        # As published, the sum per residue counts unknown atoms too.
        total = total + loss
        violated = jnp.maximum(violated, known * (error > tolerance_factor * stddev))
    total, violated = jnp.asarray(total), jnp.asarray(violated)
    out["per_residue_loss_sum"] = 0.5 * (jnp.pad(total, (0, 1)) + jnp.pad(total, (1, 0)))
    out["per_residue_violation_mask"] = jnp.maximum(jnp.pad(violated, (0, 1)), jnp.pad(violated, (1, 0)))
    return out


def clashes_between_residues(atoms: Atoms, *, overlap_tolerance: float) -> dict[str, Float[Array, "*n"]]:
    """Eq. 46, different residues: atoms closer than their van der Waals radii allow.

    Peptide bonds and disulfide bridges are no clashes.

    Args:
      atoms: predicted atoms.
      overlap_tolerance: Å of overlap that are allowed.

    Returns:
      `mean_loss`, `per_atom_loss_sum` [r, 14], `per_atom_clash_mask` [r, 14].
    """
    x, exists = atoms.positions, atoms.mask.astype(jnp.float32)
    radius = by_residue_type(_ATOM14_RADIUS, atoms.aatype) * exists
    order = atoms.residue_index
    follows = (order[:, None] + 1) == order[None, :]
    if atoms.asym_id is not None:
        follows &= atoms.asym_id[:, None] == atoms.asym_id[None, :]
    slot = jnp.arange(14)
    peptide = (slot[:, None] == _C) & (slot[None, :] == _N)
    disulfide = (slot[:, None] == _CYS_SG) & (slot[None, :] == _CYS_SG)
    # All pairs have the axes residue, residue, slot, slot; each pair of residues counts once.
    free = ~(follows[:, :, None, None] & peptide) & ~disulfide
    mask = exists[:, None, :, None] * exists[None, :, None, :]
    mask = mask * (free & (order[:, None] < order[None, :])[:, :, None, None])
    squared = jnp.sum(jnp.square(x[:, None, :, None] - x[None, :, None]), axis=-1)
    separation = distance(squared, 1e-10)
    allowed = mask * (radius[:, None, :, None] + radius[None, :, None, :]) - overlap_tolerance
    loss = mask * jax.nn.relu(allowed - separation)
    clash = mask * (separation < allowed)
    return {
        "mean_loss": jnp.sum(loss) / (1e-6 + jnp.sum(mask)),
        "per_atom_loss_sum": jnp.sum(loss, axis=(0, 2)) + jnp.sum(loss, axis=(1, 3)),
        "per_atom_clash_mask": jnp.maximum(jnp.max(clash, axis=(0, 2)), jnp.max(clash, axis=(1, 3))),
    }


def violations_within_residues(
    atoms: Atoms, *, lower: Float[np.ndarray, "21 14 14"], upper: Float[np.ndarray, "21 14 14"]
) -> dict[str, Float[Array, "r 14"]]:
    """Eq. 46, same residue: distances outside of what bonds, angles and radii allow.

    Args:
      atoms: predicted atoms.
      lower: smallest allowed distances by residue type, Å.
      upper: largest allowed distances by residue type, Å.

    Returns:
      `per_atom_loss_sum` and `per_atom_violations`.
    """
    x, exists = atoms.positions, atoms.mask.astype(jnp.float32)
    mask = (1.0 - jnp.eye(14, dtype=jnp.float32)) * exists[:, :, None] * exists[:, None, :]
    separation = distance(jnp.sum(jnp.square(x[:, :, None] - x[:, None]), axis=-1), 1e-10)
    low, high = by_residue_type(lower, atoms.aatype), by_residue_type(upper, atoms.aatype)
    loss = mask * (jax.nn.relu(low - separation) + jax.nn.relu(separation - high))
    violated = mask * ((separation < low) | (separation > high))
    return {
        "per_atom_loss_sum": jnp.sum(loss, axis=1) + jnp.sum(loss, axis=2),
        "per_atom_violations": jnp.maximum(jnp.max(violated, axis=1), jnp.max(violated, axis=2)),
    }


def structural_violations(
    atoms: Atoms, *, tolerance_factor: float, overlap_tolerance: float, multimer: bool = False
) -> dict[str, Any]:
    """All violations of a predicted structure, as the published tree `structure_module/violations`.

    The arguments are those of the functions for each kind.
    """
    bonds = peptide_bond_violations(atoms, tolerance_factor=tolerance_factor, multimer=multimer)
    clashes = clashes_between_residues(atoms, overlap_tolerance=overlap_tolerance)
    bounds = residue.atom14_distance_bounds(overlap_tolerance, tolerance_factor)
    within = violations_within_residues(
        atoms,
        lower=bounds["lower_bound"].astype(np.float32),
        upper=bounds["upper_bound"].astype(np.float32),
    )
    per_residue = [
        bonds["per_residue_violation_mask"],
        jnp.max(clashes["per_atom_clash_mask"], axis=-1),
        jnp.max(within["per_atom_violations"], axis=-1),
    ]
    return {
        "between_residues": {
            "bonds_c_n_loss_mean": bonds["c_n_loss_mean"],
            "angles_ca_c_n_loss_mean": bonds["ca_c_n_loss_mean"],
            "angles_c_n_ca_loss_mean": bonds["c_n_ca_loss_mean"],
            "connections_per_residue_loss_sum": bonds["per_residue_loss_sum"],
            "connections_per_residue_violation_mask": bonds["per_residue_violation_mask"],
            "clashes_mean_loss": clashes["mean_loss"],
            "clashes_per_atom_loss_sum": clashes["per_atom_loss_sum"],
            "clashes_per_atom_clash_mask": clashes["per_atom_clash_mask"],
        },
        "within_residues": within,
        "total_per_residue_violations_mask": jnp.max(jnp.stack(per_residue), axis=0),
    }


def violation_metrics(
    atoms: Atoms, violations: dict[str, Any], seq_mask: Float[Array, " r"]
) -> dict[str, Float[Array, ""]]:
    """Fractions of residues with each kind of violation."""
    between, within = violations["between_residues"], violations["within_residues"]
    per_residue = {
        "violations_between_residue_bond": between["connections_per_residue_violation_mask"],
        "violations_between_residue_clash": jnp.max(between["clashes_per_atom_clash_mask"], axis=-1),
        "violations_within_residue": jnp.max(within["per_atom_violations"], axis=-1),
        "violations_per_residue": violations["total_per_residue_violations_mask"],
    }
    metrics = {name: masked_mean(seq_mask, value) for name, value in per_residue.items()}
    return metrics | {"violations_extreme_ca_ca_distance": extreme_ca_ca_distances(atoms)}


def violation_loss(violations: dict[str, Any], atom_mask: Num[Array, "r 14"]) -> Float[Array, ""]:
    """Eq. 47: all violations as one loss."""
    between = violations["between_residues"]
    per_atom = between["clashes_per_atom_loss_sum"] + violations["within_residues"]["per_atom_loss_sum"]
    return (
        between["bonds_c_n_loss_mean"]
        + between["angles_ca_c_n_loss_mean"]
        + between["angles_c_n_ca_loss_mean"]
        + jnp.sum(per_atom) / (1e-6 + jnp.sum(atom_mask.astype(jnp.float32)))
    )
