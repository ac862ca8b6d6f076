"""Training labels of a known structure: frames, torsions, alternative names (suppl. 1.8 and 1.9.1)."""

import numpy as np
from jaxtyping import Float, Int

from parafold.features.raw import Arrays
from parafold.features.transforms import pseudo_beta
from parafold.protein.residue import (
    ATOM14_MASK,
    ATOM14_TO_ATOM37,
    ATOM_ORDER,
    CHI_ANGLES_ATOMS,
    CHI_ANGLES_MASK,
    CHI_ATOM_INDICES,
    CHI_PI_PERIODIC,
    RENAMING_MATRICES,
    RESTYPE_1TO3,
    RESTYPES,
)

_EPSILON = np.float32(1e-8)


def labels(
    aatype: Int[np.ndarray, " r"],
    atom_positions: Float[np.ndarray, "r 37 3"],
    atom_mask: Float[np.ndarray, "r 37"],
) -> Arrays:
    """Everything that the losses compare a prediction with. Positions in Angstrom.

    Returns:
      float32 arrays under the published names: all_atom_positions, all_atom_mask, pseudo_beta*,
      backbone_affine_tensor [r, 7] (quaternion, whose sign means nothing, and translation) and its mask,
      rigidgroups_* (frames [r, 8, 12]: rotation by rows, then translation), atom14_*, chi_angles [r, 4] in
      radians and chi_mask.
    """
    aatype = np.minimum(aatype, 20)
    positions, mask = atom_positions.astype(np.float32), atom_mask.astype(np.float32)
    beta, beta_mask = pseudo_beta(aatype, positions, mask)
    frames = atom37_to_frames(aatype, positions, mask)
    backbone = frames["rigidgroups_gt_frames"][:, 0]
    quaternion = rotation_to_quaternion(backbone[:, :9].reshape(-1, 3, 3))
    return {
        "all_atom_positions": positions,
        "all_atom_mask": mask,
        "pseudo_beta": beta,
        "pseudo_beta_mask": beta_mask,
        "backbone_affine_tensor": np.concatenate([quaternion, backbone[:, 9:]], axis=-1),
        "backbone_affine_mask": frames["rigidgroups_gt_exists"][:, 0],
        **frames,
        **make_atom14_positions(aatype, positions, mask),
        **make_chi_angles(aatype, positions, mask),
    }


def atom37_to_frames(aatype: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> Arrays:
    """Suppl. table 2: frames of the backbone (0), the carbonyl (3) and the side-chain torsions (4 to 7)."""
    atoms = _FRAME_ATOMS[aatype]
    points = np.take_along_axis(positions[:, None], atoms[..., None], axis=2)
    rotations = rotation_from_two_vectors(
        points[..., 1, :] - points[..., 0, :], points[..., 2, :] - points[..., 1, :]
    )
    rotations[:, 0] *= np.array([-1, 1, -1], np.float32)  # the backbone's x axis points from CA to C
    turned = rotations * np.where(_FRAME_AMBIGUOUS[aatype][..., None, None] == 1, _HALF_TURN, np.float32(1))
    origins = points[..., 1, :]
    exists = np.take_along_axis(mask[:, None], atoms, axis=2).min(-1) * _FRAME_MASK[aatype]
    return {
        "rigidgroups_gt_frames": _flat12(rotations, origins),
        "rigidgroups_gt_exists": exists,
        "rigidgroups_group_exists": _FRAME_MASK[aatype],
        "rigidgroups_group_is_ambiguous": _FRAME_AMBIGUOUS[aatype],
        "rigidgroups_alt_gt_frames": _flat12(turned, origins),
    }


def make_atom14_positions(aatype: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> Arrays:
    """The 14-atom layout, and the same with the names of equivalent atoms swapped (suppl. table 3)."""
    atoms = ATOM14_TO_ATOM37[aatype]
    exists = ATOM14_MASK[aatype].astype(np.float32) * np.take_along_axis(mask, atoms, axis=1)
    found = exists[..., None] * np.take_along_axis(positions, atoms[..., None], axis=1)
    renamed = RENAMING_MATRICES[aatype].astype(np.float32)
    ambiguous = (np.diagonal(RENAMING_MATRICES, axis1=1, axis2=2) == 0).astype(np.float32)
    return {
        "atom14_gt_positions": found,
        "atom14_gt_exists": exists,
        "atom14_alt_gt_positions": np.einsum("rac,rab->rbc", found, renamed),
        "atom14_alt_gt_exists": np.einsum("ra,rab->rb", exists, renamed),
        "atom14_atom_is_ambiguous": ambiguous[aatype],
    }


def make_chi_angles(aatype: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> Arrays:
    """Side-chain torsion angles, from the position of the fourth atom in the frame of the other three."""
    atoms = CHI_ATOM_INDICES[aatype]
    first, second, third, fourth = np.moveaxis(
        np.take_along_axis(positions[:, None], atoms[..., None], axis=2), 2, 0
    )
    rotations = rotation_from_two_vectors(third - second, first - third)
    local = np.einsum("rcji,rcj->rci", rotations, fourth - third)
    exists = np.take_along_axis(mask[:, None], atoms, axis=2).prod(-1)
    chi_mask = (CHI_ANGLES_MASK[aatype] * exists).astype(np.float32)
    return {"chi_angles": np.arctan2(local[..., 2], local[..., 1]) * chi_mask, "chi_mask": chi_mask}


def rotation_from_two_vectors(
    x_axis: Float[np.ndarray, "... 3"], in_xy_plane: Float[np.ndarray, "... 3"]
) -> Float[np.ndarray, "... 3 3"]:
    """Suppl. Alg. 21, rigidFrom3Points: Gram-Schmidt. Atoms that coincide give zeros."""
    first = _normalize(x_axis)
    second = _normalize(in_xy_plane - (in_xy_plane * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def rotation_to_quaternion(rotation: Float[np.ndarray, "... 3 3"]) -> Float[np.ndarray, "... 4"]:
    """Quaternion of a rotation: the leading eigenvector of a symmetric matrix, stable for every angle."""
    r = rotation
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (
        [r[..., row, column] for column in range(3)] for row in range(3)
    )
    matrix = np.stack(
        [
            np.stack([xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
            np.stack([zy - yz, xx - yy - zz, xy + yx, xz + zx], -1),
            np.stack([xz - zx, xy + yx, yy - xx - zz, yz + zy], -1),
            np.stack([yx - xy, xz + zx, yz + zy, zz - xx - yy], -1),
        ],
        -2,
    )
    return np.linalg.eigh(matrix.astype(np.float64))[1][..., -1].astype(np.float32)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors * vectors).sum(-1, keepdims=True) + _EPSILON)


def _flat12(rotations: np.ndarray, origins: np.ndarray) -> np.ndarray:
    return np.concatenate([rotations.reshape(*rotations.shape[:-2], 9), origins], axis=-1)


def _frame_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each residue type and frame: its three atoms, whether it exists, whether it is ambiguous."""
    atoms = np.zeros((21, 8, 3), np.int32)
    atoms[:, 0] = [ATOM_ORDER[name] for name in ("C", "CA", "N")]
    atoms[:, 3] = [ATOM_ORDER[name] for name in ("CA", "C", "O")]
    exists, ambiguous = np.zeros((21, 8), np.float32), np.zeros((21, 8), np.float32)
    exists[:, [0, 3]] = 1
    exists[:, 4:] = CHI_ANGLES_MASK
    ambiguous[:, 4:] = CHI_PI_PERIODIC
    for number, letter in enumerate(RESTYPES):
        for chi, names in enumerate(CHI_ANGLES_ATOMS[RESTYPE_1TO3[letter]]):
            atoms[number, 4 + chi] = [ATOM_ORDER[name] for name in names[1:]]
    return atoms, exists, ambiguous


_FRAME_ATOMS, _FRAME_MASK, _FRAME_AMBIGUOUS = _frame_tables()
_HALF_TURN = np.array([1, -1, -1], np.float32)  # about x; multiplies the columns of a rotation
