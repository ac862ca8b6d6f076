"""What is known of the twenty amino acids before any prediction: alphabets, atoms, ideal geometry.

Arrays are indexed by residue type: the order of `RESTYPES`, then X (unknown), whose rows are empty. Atoms
come in two layouts: `ATOM_TYPES`, 37 names that are the same for every residue, and `ATOM14_NAMES`, the
at most 14 heavy atoms that a residue of a given type has. Lengths are in Å. All arrays are read-only.
"""

import numpy as np
from jaxtyping import Float, Int

from parafold.protein.residue_tables import BOND_ANGLES, BOND_LENGTHS, RIGID_GROUP_ATOMS

# Alphabets.
RESTYPES = "ARNDCQEGHILKMFPSTWYV"
RESTYPES_WITH_X = RESTYPES + "X"
RESTYPES_WITH_X_AND_GAP = RESTYPES_WITH_X + "-"
RESTYPE_ORDER = {letter: index for index, letter in enumerate(RESTYPES)}
RESTYPE_ORDER_WITH_X = {letter: index for index, letter in enumerate(RESTYPES_WITH_X)}
UNKNOWN = "UNK"

_NAMES = list(RIGID_GROUP_ATOMS)  # in the order of RESTYPES
RESTYPE_1TO3 = dict(zip(RESTYPES, _NAMES, strict=True))
RESTYPE_3TO1 = {name: letter for letter, name in RESTYPE_1TO3.items()}

# Alignments are encoded in the alphabet of HHblits: alphabetical, then X and gap; rare letters share an id.
_HHBLITS = "ACDEFGHIKLMNPQRSTVWYX-"
HHBLITS_ID = {letter: index for index, letter in enumerate(_HHBLITS)} | {
    rare: _HHBLITS.index(common)
    for rare, common in {"B": "D", "J": "X", "O": "X", "U": "C", "Z": "E"}.items()
}
HHBLITS_TO_RESTYPE: Int[np.ndarray, "22"] = np.array(
    [RESTYPES_WITH_X_AND_GAP.index(letter) for letter in _HHBLITS]
)

# Atom layouts.
# fmt: off
ATOM_TYPES = [
    "N", "CA", "C", "CB", "O", "CG", "CG1", "CG2", "OG", "OG1", "SG", "CD", "CD1", "CD2", "ND1", "ND2",
    "OD1", "OD2", "SD", "CE", "CE1", "CE2", "CE3", "NE", "NE1", "NE2", "OE1", "OE2", "CH2", "NH1", "NH2",
    "OH", "CZ", "CZ2", "CZ3", "NZ", "OXT",
]
# fmt: on
ATOM_ORDER = {name: index for index, name in enumerate(ATOM_TYPES)}
ATOM14_NAMES = {
    name: [row[0] for row in rows] + [""] * (14 - len(rows)) for name, rows in RIGID_GROUP_ATOMS.items()
} | {UNKNOWN: [""] * 14}

# Side-chain torsions: the four atoms of chi1, chi2, ... of each residue (arginine's chi5 is always near 0).
CHI_ANGLES_ATOMS = {
    name: [atoms.split() for atoms in text.split(",")] if text else []
    for name, text in {
        "ALA": "",
        "ARG": "N CA CB CG,CA CB CG CD,CB CG CD NE,CG CD NE CZ",
        "ASN": "N CA CB CG,CA CB CG OD1",
        "ASP": "N CA CB CG,CA CB CG OD1",
        "CYS": "N CA CB SG",
        "GLN": "N CA CB CG,CA CB CG CD,CB CG CD OE1",
        "GLU": "N CA CB CG,CA CB CG CD,CB CG CD OE1",
        "GLY": "",
        "HIS": "N CA CB CG,CA CB CG ND1",
        "ILE": "N CA CB CG1,CA CB CG1 CD1",
        "LEU": "N CA CB CG,CA CB CG CD1",
        "LYS": "N CA CB CG,CA CB CG CD,CB CG CD CE,CG CD CE NZ",
        "MET": "N CA CB CG,CA CB CG SD,CB CG SD CE",
        "PHE": "N CA CB CG,CA CB CG CD1",
        "PRO": "N CA CB CG,CA CB CG CD",
        "SER": "N CA CB OG",
        "THR": "N CA CB OG1",
        "TRP": "N CA CB CG,CA CB CG CD1",
        "TYR": "N CA CB CG,CA CB CG CD1",
        "VAL": "N CA CB CG1",
    }.items()
}
# Torsions that a half turn maps onto themselves, and the atom pairs whose names that turn exchanges.
_CHI_PI_PERIODIC = {"ASP": 1, "GLU": 2, "PHE": 1, "TYR": 1}
_AMBIGUOUS_ATOMS = {
    "ASP": [("OD1", "OD2")],
    "GLU": [("OE1", "OE2")],
    "PHE": [("CD1", "CD2"), ("CE1", "CE2")],
    "TYR": [("CD1", "CD2"), ("CE1", "CE2")],
}

VAN_DER_WAALS_RADIUS = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8}
# Distance of neighbouring CA atoms across a trans peptide bond.
CA_CA = 3.80209737096
# The peptide bond; each pair is (before any residue but proline, before proline).
BETWEEN_RES_BOND_LENGTH_C_N = (1.329, 1.341)
BETWEEN_RES_BOND_LENGTH_STDDEV_C_N = (0.014, 0.016)
# Cosines of the angles at the peptide bond; each pair is (mean, standard deviation).
BETWEEN_RES_COS_ANGLES_C_N_CA = (-0.5203, 0.0353)
BETWEEN_RES_COS_ANGLES_CA_C_N = (-0.4473, 0.0311)


def _fixed(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _frame(ex: np.ndarray, ey: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The 4x4 transform with x along `ex`, y in the plane of `ex` and `ey`, and the given origin."""
    x = ex / np.linalg.norm(ex)
    y = ey - np.dot(ey, x) * x
    y = y / np.linalg.norm(y)
    frame = np.eye(4)
    frame[:3] = np.stack([x, y, np.cross(x, y), origin], axis=1)
    return frame


def _layout_arrays() -> tuple[np.ndarray, ...]:
    mask14 = np.zeros((21, 14), np.float32)
    mask37 = np.zeros((21, 37), np.float32)
    to37 = np.zeros((21, 14), np.int64)
    to14 = np.zeros((21, 37), np.int64)
    group14 = np.zeros((21, 14), np.int64)
    group37 = np.zeros((21, 37), np.int64)
    positions14 = np.zeros((21, 14, 3), np.float32)
    positions37 = np.zeros((21, 37, 3), np.float32)
    for aa, name in enumerate(_NAMES):
        for i, (atom, group, *xyz) in enumerate(RIGID_GROUP_ATOMS[name]):
            k = ATOM_ORDER[atom]
            mask14[aa, i] = mask37[aa, k] = 1
            to37[aa, i], to14[aa, k] = k, i
            group14[aa, i] = group37[aa, k] = int(group)
            positions14[aa, i] = positions37[aa, k] = [float(x) for x in xyz]
    return tuple(map(_fixed, (mask14, mask37, to37, to14, group14, group37, positions14, positions37)))


def _chi_arrays() -> tuple[np.ndarray, ...]:
    indices = np.zeros((21, 4, 4), np.int64)
    mask = np.zeros((21, 4), np.float32)
    periodic = np.zeros((21, 4), np.float32)
    for aa, name in enumerate(_NAMES):
        for chi, atoms in enumerate(CHI_ANGLES_ATOMS[name]):
            indices[aa, chi] = [ATOM_ORDER[atom] for atom in atoms]
            mask[aa, chi] = 1
        if name in _CHI_PI_PERIODIC:
            periodic[aa, _CHI_PI_PERIODIC[name]] = 1
    return _fixed(indices), _fixed(mask), _fixed(periodic)


def _default_frames() -> np.ndarray:
    frames = np.zeros((21, 8, 4, 4), np.float32)
    for aa, name in enumerate(_NAMES):
        at = {atom: np.array([float(x) for x in xyz]) for atom, _, *xyz in RIGID_GROUP_ATOMS[name]}
        frames[aa, 0] = frames[aa, 1] = np.eye(4)  # pre-omega holds no heavy atom, so its frame is a stand-in
        frames[aa, 2] = _frame(at["N"] - at["CA"], np.array([1.0, 0.0, 0.0]), at["N"])
        frames[aa, 3] = _frame(at["C"] - at["CA"], at["CA"] - at["N"], at["C"])
        for chi, (start, axis_from, axis_to, _) in enumerate(CHI_ANGLES_ATOMS[name]):
            if chi == 0:
                frame = _frame(at[axis_to] - at[axis_from], at[start] - at[axis_from], at[axis_to])
            else:  # each later axis starts at the origin of the frame before it
                frame = _frame(at[axis_to], np.array([-1.0, 0.0, 0.0]), at[axis_to])
            frames[aa, 4 + chi] = frame
    return _fixed(frames)


def _renaming_matrices() -> np.ndarray:
    matrices = np.tile(np.eye(14, dtype=np.float32), (21, 1, 1))
    for name, pairs in _AMBIGUOUS_ATOMS.items():
        for pair in pairs:
            i, j = (ATOM14_NAMES[name].index(atom) for atom in pair)
            matrices[_NAMES.index(name), [i, j]] = matrices[_NAMES.index(name), [j, i]]
    return _fixed(matrices)


# Group numbers are those of residue_tables.RIGID_GROUP_ATOMS.
ATOM14_MASK: Float[np.ndarray, "21 14"]
ATOM37_MASK: Float[np.ndarray, "21 37"]
ATOM14_TO_ATOM37: Int[np.ndarray, "21 14"]  # 0 where there is no atom
ATOM37_TO_ATOM14: Int[np.ndarray, "21 37"]  # 0 where there is no atom
ATOM14_RIGID_GROUP: Int[np.ndarray, "21 14"]
ATOM37_RIGID_GROUP: Int[np.ndarray, "21 37"]
ATOM14_RIGID_GROUP_POSITIONS: Float[np.ndarray, "21 14 3"]
ATOM37_RIGID_GROUP_POSITIONS: Float[np.ndarray, "21 37 3"]
(
    ATOM14_MASK,
    ATOM37_MASK,
    ATOM14_TO_ATOM37,
    ATOM37_TO_ATOM14,
    ATOM14_RIGID_GROUP,
    ATOM37_RIGID_GROUP,
    ATOM14_RIGID_GROUP_POSITIONS,
    ATOM37_RIGID_GROUP_POSITIONS,
) = _layout_arrays()
STANDARD_ATOM_MASK = _fixed(ATOM37_MASK.astype(np.int32))

CHI_ATOM_INDICES: Int[np.ndarray, "21 4 4"]  # in ATOM_TYPES, 0 where the residue has no such torsion
CHI_ANGLES_MASK: Float[np.ndarray, "21 4"]
CHI_PI_PERIODIC: Float[np.ndarray, "21 4"]
CHI_ATOM_INDICES, CHI_ANGLES_MASK, CHI_PI_PERIODIC = _chi_arrays()

# Each rigid group's frame in the frame it hangs on, all torsions at zero; zero where there is no such group.
RIGID_GROUP_DEFAULT_FRAMES: Float[np.ndarray, "21 8 4 4"] = _default_frames()
# Permutation that exchanges the ambiguous atoms of ASP, GLU, PHE and TYR; the identity for the others.
RENAMING_MATRICES: Float[np.ndarray, "21 14 14"] = _renaming_matrices()


def _angle_as_distance(
    bond1: tuple[float, float], bond2: tuple[float, float], angle: tuple[float, float]
) -> tuple[float, float]:
    """Distance of the outer atoms of an angle and its standard deviation, errors taken as independent."""
    (a, sd_a), (b, sd_b), (gamma, sd_gamma) = bond1, bond2, angle
    length = np.sqrt(a**2 + b**2 - 2 * a * b * np.cos(gamma))
    d_gamma = a * b * np.sin(gamma) / length
    d_a = (a - b * np.cos(gamma)) / length
    d_b = (b - a * np.cos(gamma)) / length
    stddev = np.sqrt((d_gamma * sd_gamma) ** 2 + (d_a * sd_a) ** 2 + (d_b * sd_b) ** 2)
    return float(length), float(stddev)


def atom14_distance_bounds(
    overlap_tolerance: float = 1.5, bond_length_tolerance_factor: float = 15.0
) -> dict[str, Float[np.ndarray, "21 14 14"]]:
    """Suppl. Sec. 1.9.11: bounds on the distance of any two atoms of one residue, for the violation loss.

    Atoms joined by a bond or by two (an angle) lie within `bond_length_tolerance_factor` standard deviations
    of their ideal distance; all others no nearer than the sum of their radii less `overlap_tolerance` (Å).

    Returns `lower_bound`, `upper_bound` and `stddev`, all in Å; zero for atoms that do not exist, and for a
    pair that is not bonded `upper_bound` is 1e10 and `stddev` 0.
    """
    lower, upper, stddevs = (np.zeros((21, 14, 14), np.float32) for _ in range(3))
    for aa, name in enumerate(_NAMES):
        atoms = [row[0] for row in RIGID_GROUP_ATOMS[name]]
        radius = np.array([VAN_DER_WAALS_RADIUS[atom[0]] for atom in atoms])
        others = ~np.eye(len(atoms), dtype=bool)
        n = len(atoms)
        lower[aa, :n, :n] = np.where(others, radius[:, None] + radius[None, :] - overlap_tolerance, 0)
        upper[aa, :n, :n] = np.where(others, 1e10, 0)

        bonds = {
            frozenset(pair.split("-")): (float(mean), float(sd)) for pair, mean, sd in BOND_LENGTHS[name]
        }
        distances = dict(bonds)
        for triple, mean, sd in BOND_ANGLES[name]:
            left, vertex, right = triple.split("-")
            distances[frozenset((left, right))] = _angle_as_distance(
                bonds[frozenset((left, vertex))],
                bonds[frozenset((vertex, right))],
                (np.radians(float(mean)), np.radians(float(sd))),
            )
        for pair, (length, stddev) in distances.items():
            i, j = (atoms.index(atom) for atom in pair)
            for at in ((aa, i, j), (aa, j, i)):
                lower[at] = length - bond_length_tolerance_factor * stddev
                upper[at] = length + bond_length_tolerance_factor * stddev
                stddevs[at] = stddev
    return {"lower_bound": lower, "upper_bound": upper, "stddev": stddevs}
