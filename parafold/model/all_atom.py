"""All-atom geometry: between atom coordinates, rigid groups and torsion angles.

A residue's atoms come in two layouts: 37 slots that mean the same atom name in every residue type, and 14
slots that depend on the residue type and hold all its heavy atoms. Its rigid groups are, in order: backbone,
pre-omega and phi (both without heavy atoms of their own), psi, chi 1 to 4. Positions are in Å, angles in
radians. All functions take any leading dimensions; residue types above 20 count as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from parafold.model.rigid import Rigid, backbone_frames
from parafold.protein import residue

N, CA, C, CB, OXYGEN = (residue.ATOM_ORDER[name] for name in ("N", "CA", "C", "CB", "O"))
_PSI = 2
_BACKBONE_GROUP, _PSI_GROUP, _CHI1_GROUP = 0, 3, 4


def _group_tables() -> tuple[np.ndarray, np.ndarray]:
    """The three 37-slot atoms that span each rigid group, [21, 8, 3], and which groups exist, [21, 8]."""
    atoms = np.zeros((21, 8, 3), np.int32)
    atoms[:, _BACKBONE_GROUP] = C, CA, N
    atoms[:, _PSI_GROUP] = CA, C, OXYGEN
    # A chi group turns with the last three of the four atoms of its angle.
    atoms[:, _CHI1_GROUP:] = residue.CHI_ATOM_INDICES[:, :, 1:]
    exists = np.zeros((21, 8), np.float32)
    exists[:, (_BACKBONE_GROUP, _PSI_GROUP)] = 1.0
    exists[:, _CHI1_GROUP:] = residue.CHI_ANGLES_MASK
    return atoms, exists


def _group_rotations() -> tuple[np.ndarray, np.ndarray]:
    """Rotations from Gram-Schmidt frames to the published frames, [8, 3, 3], and to the alternative ones.

    Backbone frames are turned by 180 degrees about y. The alternative frame of a group that looks the same
    after half a turn about its chi axis is turned by that half turn, [21, 8, 3, 3].
    """
    convention = np.tile(np.eye(3, dtype=np.float32), (8, 1, 1))
    convention[_BACKBONE_GROUP] = np.diag([-1.0, 1.0, -1.0])
    half_turn = np.diag([0.0, -2.0, -2.0]).astype(np.float32)
    alternative = np.tile(np.eye(3, dtype=np.float32), (21, 8, 1, 1))
    alternative[:, _CHI1_GROUP:] += residue.CHI_PI_PERIODIC[:, :, None, None] * half_turn
    return convention, alternative


_GROUP_ATOMS, _GROUP_EXISTS = _group_tables()
_GROUP_CONVENTION, _GROUP_ALTERNATIVE = _group_rotations()
_ATOM14_IS_AMBIGUOUS = 1.0 - np.diagonal(residue.RENAMING_MATRICES, axis1=1, axis2=2).astype(np.float32)


def by_residue_type(table: np.ndarray, aatype: Int[Array, "*n"]) -> Num[Array, "*n_entry"]:
    """Rows of a table whose first axis is the residue type (21: the 20 and unknown)."""
    return jnp.take(jnp.asarray(table), aatype, axis=0, mode="clip")


def _gather_atoms(data: Shaped[Array, "... atoms"], index: Int[Array, "*index"], lead: int):
    """Pick slots of the first axis after `lead` leading ones; `index` may have any trailing axes."""
    flat = index.reshape(*index.shape[:lead], -1)
    flat = flat.reshape(*flat.shape, *(1,) * (data.ndim - lead - 1))
    picked = jnp.take_along_axis(data, flat, axis=lead)
    return picked.reshape(*index.shape, *data.shape[lead + 1 :])


def atom14_mask(aatype: Int[Array, "*n"]) -> Float[Array, "*n 14"]:
    """Which of the 14 slots the residue type has."""
    return by_residue_type(residue.ATOM14_MASK.astype(np.float32), aatype)


def atom37_mask(aatype: Int[Array, "*n"]) -> Float[Array, "*n 37"]:
    """Which of the 37 slots the residue type has."""
    return by_residue_type(residue.ATOM37_MASK.astype(np.float32), aatype)


def atom14_is_ambiguous(aatype: Int[Array, "*n"]) -> Float[Array, "*n 14"]:
    """Atoms whose names may be swapped with their symmetry partner's (suppl. table 3)."""
    return by_residue_type(_ATOM14_IS_AMBIGUOUS, aatype)


def atom14_to_atom37(positions: Float[Array, "*n 14 3"], aatype: Int[Array, "*n"]) -> Float[Array, "*n 37 3"]:
    """From 14 slots to 37; slots that the residue type lacks are zero."""
    index = by_residue_type(residue.ATOM37_TO_ATOM14, aatype)
    return _gather_atoms(positions, index, aatype.ndim) * atom37_mask(aatype)[..., None]


def atom37_to_atom14(
    positions: Float[Array, "*n 37 3"], mask: Num[Array, "*n 37"], aatype: Int[Array, "*n"]
) -> tuple[Float[Array, "*n 14 3"], Float[Array, "*n 14"]]:
    """From 37 slots to 14: positions (zero where masked) and mask."""
    index = by_residue_type(residue.ATOM14_TO_ATOM37, aatype)
    mask14 = _gather_atoms(mask.astype(jnp.float32), index, aatype.ndim) * atom14_mask(aatype)
    return _gather_atoms(positions, index, aatype.ndim) * mask14[..., None], mask14


def alternative_atom14(
    positions: Float[Array, "*n 14 3"], mask: Float[Array, "*n 14"], aatype: Int[Array, "*n"]
) -> tuple[Float[Array, "*n 14 3"], Float[Array, "*n 14"]]:
    """Positions and mask with the ambiguous atom names swapped (suppl. table 3)."""
    swap = by_residue_type(residue.RENAMING_MATRICES.astype(np.float32), aatype)
    swapped = jnp.sum(positions[..., :, None, :] * swap[..., None], axis=-3)
    return swapped, jnp.sum(mask[..., :, None] * swap, axis=-2)


@dataclass(frozen=True)
class RigidGroups:
    """Frames of the 8 rigid groups of each residue, from coordinates.

    Attributes:
      frames: the frames.
      alternative_frames: the frames when ambiguous atom names are swapped.
      frames_mask: 1 where the three atoms that span the frame are known.
      exists: 1 where the residue type has the group.
      is_ambiguous: 1 where the two frames differ.
    """

    frames: Rigid
    alternative_frames: Rigid
    frames_mask: Float[Array, "... 8"]
    exists: Float[Array, "... 8"]
    is_ambiguous: Float[Array, "... 8"]


def rigid_groups(
    aatype: Int[Array, "*n"], positions: Float[Array, "*n 37 3"], mask: Num[Array, "*n 37"]
) -> RigidGroups:
    """Frames of all rigid groups by Gram-Schmidt (suppl. alg. 21 and table 2)."""
    index = by_residue_type(_GROUP_ATOMS, aatype)
    atoms = _gather_atoms(positions, index, aatype.ndim)
    known = _gather_atoms(mask.astype(jnp.float32), index, aatype.ndim)
    exists = by_residue_type(_GROUP_EXISTS, aatype)
    frames = Rigid.from_three_points(atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :])
    frames = frames.compose_rotation(jnp.asarray(_GROUP_CONVENTION))
    pi_periodic = by_residue_type(residue.CHI_PI_PERIODIC.astype(np.float32), aatype)
    return RigidGroups(
        frames=frames,
        alternative_frames=frames.compose_rotation(by_residue_type(_GROUP_ALTERNATIVE, aatype)),
        frames_mask=jnp.min(known, axis=-1) * exists,
        exists=exists,
        is_ambiguous=jnp.concatenate([jnp.zeros_like(pi_periodic), pi_periodic], axis=-1),
    )


def backbone_rigids(
    positions: Float[Array, "*n 37 3"], mask: Num[Array, "*n 37"]
) -> tuple[Rigid, Float[Array, "*n"]]:
    """Backbone frames of all residues, and 1 where N, CA and C are known."""
    frames = backbone_frames(positions[..., N, :], positions[..., CA, :], positions[..., C, :])
    return frames, (mask[..., N] * mask[..., CA] * mask[..., C]).astype(jnp.float32)


@dataclass(frozen=True)
class Torsions:
    """Torsion angles of each residue: pre-omega, phi, psi, chi 1 to 4.

    Attributes:
      sin_cos: sine and cosine.
      alternative_sin_cos: the same when ambiguous atom names are swapped.
      mask: 1 where the four atoms are known and the residue type has the angle.
    """

    sin_cos: Float[Array, "... 7 2"]
    alternative_sin_cos: Float[Array, "... 7 2"]
    mask: Float[Array, "... 7"]


def torsion_angles(
    aatype: Int[Array, "*n"],
    positions: Float[Array, "*n 37 3"],
    mask: Num[Array, "*n 37"],
    *,
    placeholder: bool = False,
) -> Torsions:
    """All seven torsion angles from coordinates; the last leading dimension is the chain.

    Args:
      aatype: residue types.
      positions: atom positions, 37 slots.
      mask: known atoms.
      placeholder: put angle zero where the mask is zero. Otherwise such angles follow from whatever stands
        at the unknown positions, as the published models were trained to see them.
    """
    mask = mask.astype(jnp.float32)

    def previous(x, axis):
        first = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        return jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, -1, axis=axis)], axis)

    before, before_mask = previous(positions, positions.ndim - 3), previous(mask, mask.ndim - 2)
    chi_atoms = by_residue_type(residue.CHI_ATOM_INDICES, aatype)

    def quadruple(previous_atoms, atoms):
        points = [before[..., i, :] for i in previous_atoms] + [positions[..., i, :] for i in atoms]
        known = [before_mask[..., i] for i in previous_atoms] + [mask[..., i] for i in atoms]
        return jnp.stack(points, axis=-2), jnp.prod(jnp.stack(known, axis=-1), axis=-1)

    backbone = [quadruple((CA, C), (N, CA)), quadruple((C,), (N, CA, C)), quadruple((), (N, CA, C, OXYGEN))]
    chi_points = _gather_atoms(positions, chi_atoms, aatype.ndim)
    chi_known = jnp.prod(_gather_atoms(mask, chi_atoms, aatype.ndim), axis=-1)
    chi_mask = by_residue_type(residue.CHI_ANGLES_MASK.astype(np.float32), aatype) * chi_known
    points = jnp.concatenate([jnp.stack([p for p, _ in backbone], axis=-3), chi_points], axis=-3)
    torsion_mask = jnp.concatenate([jnp.stack([m for _, m in backbone], axis=-1), chi_mask], axis=-1)

    # In the frame of the first three atoms, whose x axis is the torsion axis, the fourth shows the angle.
    frames = Rigid.from_three_points(points[..., 1, :], points[..., 2, :], points[..., 0, :])
    fourth = frames.apply_inverse(points[..., 3, :])
    sin_cos = jnp.stack([fourth[..., 2], fourth[..., 1]], axis=-1)
    sin_cos = sin_cos / jnp.sqrt(jnp.sum(jnp.square(sin_cos), axis=-1, keepdims=True) + 1e-8)
    # Psi was measured at O, which is opposite to the next residue's N.
    sin_cos = sin_cos * jnp.ones((7, 1), jnp.float32).at[_PSI].set(-1.0)
    mirror = 1.0 - 2.0 * by_residue_type(residue.CHI_PI_PERIODIC.astype(np.float32), aatype)
    mirror = jnp.concatenate([jnp.ones((*aatype.shape, 3), jnp.float32), mirror], axis=-1)[..., None]
    alternative = sin_cos * mirror
    if placeholder:
        known = torsion_mask[..., None]
        zero_angle = jnp.asarray([1.0, 0.0], jnp.float32)
        sin_cos = sin_cos * known + zero_angle * (1.0 - known)
        alternative = alternative * known + zero_angle * (1.0 - known)
    return Torsions(sin_cos, alternative, torsion_mask)


def chi_angles(
    aatype: Int[Array, "*n"], positions: Float[Array, "*n 37 3"], mask: Num[Array, "*n 37"]
) -> tuple[Float[Array, "*n 4"], Float[Array, "*n 4"]]:
    """Chi angles in [-pi, pi], and 1 where they are known."""
    torsions = torsion_angles(aatype, positions, mask)
    sin_cos = torsions.sin_cos[..., 3:, :]
    return jnp.arctan2(sin_cos[..., 0], sin_cos[..., 1]), torsions.mask[..., 3:]


def torsion_angles_to_frames(
    aatype: Int[Array, "*n"], backbone: Rigid, sin_cos: Float[Array, "*n 7 2"]
) -> Rigid:
    """Suppl. Alg. 24, lines 2-10, and Alg. 25: frames of all rigid groups, [*n, 8], from torsion angles."""
    default = Rigid.from_matrix(
        by_residue_type(residue.RIGID_GROUP_DEFAULT_FRAMES.astype(np.float32), aatype)
    )
    no_turn = jnp.broadcast_to(jnp.asarray([0.0, 1.0], jnp.float32), (*aatype.shape, 1, 2))
    angles = jnp.concatenate([no_turn, sin_cos], axis=-2)
    sin, cos = angles[..., 0], angles[..., 1]
    zero, one = jnp.zeros_like(sin), jnp.ones_like(sin)
    rows = [[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]]
    about_x = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    local = default.compose_rotation(about_x)

    def group(k):
        return Rigid(local.rotation[..., k, :, :], local.translation[..., k, :])

    # Chi 2, 3 and 4 turn with the group before them, all others with the backbone.
    chain = [group(k) for k in range(_CHI1_GROUP + 1)]
    for k in range(_CHI1_GROUP + 1, 8):
        chain.append(chain[-1].compose(group(k)))
    to_backbone = Rigid(
        jnp.stack([g.rotation for g in chain], axis=-3), jnp.stack([g.translation for g in chain], axis=-2)
    )
    return Rigid(backbone.rotation[..., None, :, :], backbone.translation[..., None, :]).compose(to_backbone)


def frames_to_atom14(aatype: Int[Array, "*n"], frames: Rigid) -> Float[Array, "*n 14 3"]:
    """Suppl. Alg. 24, line 11: ideal atom positions placed by their rigid groups' frames, [*n, 8]."""
    group = by_residue_type(residue.ATOM14_RIGID_GROUP, aatype)
    # A sum over one-hot groups, not a gather: its gradient needs no scatter, which is not deterministic
    # on accelerators.
    member = jax.nn.one_hot(group, 8, dtype=jnp.float32)
    rotation = jnp.sum(frames.rotation[..., None, :, :, :] * member[..., None, None], axis=-3)
    translation = jnp.sum(frames.translation[..., None, :, :] * member[..., None], axis=-2)
    ideal = by_residue_type(residue.ATOM14_RIGID_GROUP_POSITIONS.astype(np.float32), aatype)
    return Rigid(rotation, translation).apply(ideal) * atom14_mask(aatype)[..., None]


def pseudo_beta(aatype: Int[Array, "*n"], positions: Float[Array, "*n 37 3"]) -> Float[Array, "*n 3"]:
    """CB, or CA for glycine."""
    is_glycine = (aatype == residue.RESTYPE_ORDER["G"])[..., None]
    return jnp.where(is_glycine, positions[..., CA, :], positions[..., CB, :])


def pseudo_beta_mask(aatype: Int[Array, "*n"], mask: Num[Array, "*n 37"]) -> Float[Array, "*n"]:
    """1 where the atom of `pseudo_beta` is known."""
    is_glycine = aatype == residue.RESTYPE_ORDER["G"]
    return jnp.where(is_glycine, mask[..., CA], mask[..., CB]).astype(jnp.float32)


def distogram_features(
    positions: Float[Array, "*n r 3"], *, num_bins: int, min_bin: float, max_bin: float
) -> Float[Array, "*n r r bins"]:
    """One-hot distance bins, Å. The last bin has no upper end; distances below `min_bin` are all zero."""
    lower = jnp.square(jnp.linspace(min_bin, max_bin, num_bins))
    upper = jnp.concatenate([lower[1:], jnp.full((1,), 1e8, lower.dtype)])
    squared = squared_distances(positions, positions)[..., None]
    return ((squared > lower) & (squared < upper)).astype(jnp.float32)


def squared_distances(a: Float[Array, "*n i 3"], b: Float[Array, "*n j 3"]) -> Float[Array, "*n i j"]:
    """Squared distances between all points of two sets, summed over x, y, z in this order."""
    total = 0.0
    for axis in range(3):
        total = total + jnp.square(a[..., :, None, axis] - b[..., None, :, axis])
    return jnp.asarray(total)
