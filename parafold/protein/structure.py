"""Protein structures in the 37-atom layout; read here, written by `structure_text`."""

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float, Int

from parafold.errors import InputError
from parafold.protein import residue as rc
from parafold.protein.structure_text import to_mmcif, to_pdb
from parafold.protein.text_file import read_text

__all__ = [
    "Structure",
    "atom14_to_atom37",
    "atom37_to_atom14",
    "open_structure",
    "protein_residues",
    "read_structure",
    "residue_atoms",
    "to_mmcif",
    "to_pdb",
]


@dataclass(frozen=True)
class Structure:
    """Atoms of one or more protein chains.

    Positions are in Å and 0 where `atom_mask` is 0. `aatype` is 0..20 (`RESTYPES_WITH_X`). `residue_index` is
    the number in the file; it jumps where residues are missing. `chain_index` points into `chain_ids`.
    `b_factors` are in Å^2, for predictions they hold the pLDDT (0..100).
    """

    atom_positions: Float[np.ndarray, "r 37 3"]
    atom_mask: Float[np.ndarray, "r 37"]
    aatype: Int[np.ndarray, " r"]
    residue_index: Int[np.ndarray, " r"]
    chain_index: Int[np.ndarray, " r"]
    b_factors: Float[np.ndarray, "r 37"]
    chain_ids: tuple[str, ...]

    def __post_init__(self):
        r = len(self.aatype)
        expected = {
            "atom_positions": (r, 37, 3),
            "atom_mask": (r, 37),
            "aatype": (r,),
            "residue_index": (r,),
            "chain_index": (r,),
            "b_factors": (r, 37),
        }
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(f"structure: {name} has shape {np.shape(getattr(self, name))}, not {shape}")
        if r and (np.min(self.aatype) < 0 or np.max(self.aatype) > 20):
            raise InputError("structure: aatype outside 0..20")
        if r and (np.min(self.chain_index) < 0 or np.max(self.chain_index) >= len(self.chain_ids)):
            raise InputError(f"structure: chain_index outside its {len(self.chain_ids)} chain ids")
        if len(set(self.chain_ids)) != len(self.chain_ids):
            raise InputError(f"structure: chain ids {', '.join(self.chain_ids)} are not distinct")

    def __len__(self) -> int:
        return len(self.aatype)

    @property
    def sequences(self) -> tuple[str, ...]:
        """One letter per residue that is present, chain by chain."""
        letters = np.array(list(rc.RESTYPES_WITH_X))[np.asarray(self.aatype)]
        return tuple("".join(letters[self.chain_index == i]) for i in range(len(self.chain_ids)))


def read_structure(path: str | Path, chain: str | None = None) -> Structure:
    """Reads the protein chains (or the one named `chain`) of the first model of a PDB or mmCIF file.

    Kept are the residues of protein polymers that have at least one atom of the 37 names; hydrogens, ligands,
    waters and nucleic acids are not. Of alternate locations the one of highest occupancy is taken, atom by
    atom. Selenomethionine becomes methionine, other modified residues their parent, or X. Where the file's
    numbers do not grow along the chain (insertion codes), `residue_index` counts on.

    Raises InputError if the file cannot be read, holds no protein, or has no such chain.
    """
    model = open_structure(path)[0]
    chains = {c.name: found for c in model if (found := protein_residues(c))}
    if not chains:
        raise InputError(f"{path}: no protein residues in it; give a PDB or mmCIF file of a protein")
    if chain is not None:
        if chain not in chains:
            raise InputError(
                f"{path}: no protein chain {chain!r}; its protein chains are {', '.join(chains)}"
            )
        chains = {chain: chains[chain]}

    rows = [
        (aatype, number, index, *atoms)
        for index, residues in enumerate(chains.values())
        for (aatype, atoms), number in zip(map(_read_residue, residues), _numbers(residues), strict=True)
        if atoms[1].any()
    ]
    if not rows:
        raise InputError(
            f"{path}: its protein residues have no heavy atoms; give a structure with coordinates"
        )
    aatype, numbers, chain_index, positions, mask, b_factors = zip(*rows, strict=True)
    return Structure(
        atom_positions=np.stack(positions),
        atom_mask=np.stack(mask),
        aatype=np.array(aatype, np.int32),
        residue_index=np.array(numbers, np.int32),
        chain_index=np.array(chain_index, np.int32),
        b_factors=np.stack(b_factors),
        chain_ids=tuple(chains),
    )


def open_structure(path: str | Path) -> gemmi.Structure:
    """The file as gemmi sees it, entities set up. Raises InputError if it is not a PDB or mmCIF file."""
    path = Path(path)
    try:
        if path.suffix == ".gz" and path.is_file():
            structure = gemmi.read_structure(str(path))
        else:
            structure = gemmi.read_structure_string(read_text(path, "PDB or mmCIF"))
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a PDB or mmCIF file ({reason}); give the file of a structure"
        ) from None
    if not len(structure):
        raise InputError(f"{path}: no atoms in it; give a PDB or mmCIF file with coordinates")
    structure.setup_entities()
    return structure


def protein_residues(chain: gemmi.Chain) -> list[gemmi.Residue]:
    """The residues of a chain's protein polymer; of two kinds in one place, the one that is there more."""
    by_place: dict[str, gemmi.Residue] = {}
    for residue in chain:
        if not _is_amino_acid(residue):
            continue
        place = str(residue.seqid)
        if place not in by_place or _occupancy(residue) > _occupancy(by_place[place]):
            by_place[place] = residue
    return list(by_place.values())


def residue_atoms(
    residue: gemmi.Residue,
) -> tuple[Float[np.ndarray, "37 3"], Float[np.ndarray, "37"], Float[np.ndarray, "37"]]:
    """Positions (Å), mask and B-factors of the atoms; of alternate locations that of highest occupancy."""
    positions = np.zeros((37, 3), np.float32)
    mask = np.zeros(37, np.float32)
    b_factors = np.zeros(37, np.float32)
    occupancies = np.full(37, -1.0)
    for atom in residue:
        name = "SD" if residue.name == "MSE" and atom.name == "SE" else atom.name
        column = rc.ATOM_ORDER.get(name)
        if column is not None and atom.occ > occupancies[column]:
            positions[column] = atom.pos.tolist()
            mask[column], b_factors[column], occupancies[column] = 1, atom.b_iso, atom.occ
    return positions, mask, b_factors


def atom14_to_atom37(
    positions: Float[np.ndarray, "r 14 3"], mask: Float[np.ndarray, "r 14"], aatype: Int[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, "r 37 3"], Float[np.ndarray, "r 37"]]:
    """From the dense layout of each residue's own atoms to the layout that all residues share."""
    columns, exists = rc.ATOM37_TO_ATOM14[aatype], rc.ATOM37_MASK[aatype]
    return _gather(positions, mask, columns, exists)


def atom37_to_atom14(
    positions: Float[np.ndarray, "r 37 3"], mask: Float[np.ndarray, "r 37"], aatype: Int[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, "r 14 3"], Float[np.ndarray, "r 14"]]:
    """From the layout that all residues share to the dense one of each residue's own atoms; OXT is lost."""
    columns, exists = rc.ATOM14_TO_ATOM37[aatype], rc.ATOM14_MASK[aatype]
    return _gather(positions, mask, columns, exists)


def _gather(
    positions: np.ndarray, mask: np.ndarray, columns: np.ndarray, exists: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mask = np.take_along_axis(mask, columns, axis=1) * exists
    return np.take_along_axis(positions, columns[..., None], axis=1) * mask[..., None], mask


def _read_residue(residue: gemmi.Residue) -> tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    letter = gemmi.find_tabulated_residue(residue.name).one_letter_code.upper()
    aatype = rc.RESTYPE_ORDER_WITH_X.get(letter, rc.RESTYPE_ORDER_WITH_X["X"])
    positions, mask, b_factors = residue_atoms(residue)
    if aatype < 20:  # a modified residue may have atoms that its parent does not
        known = rc.ATOM37_MASK[aatype].copy()
        known[rc.ATOM_ORDER["OXT"]] = 1
        positions, mask, b_factors = positions * known[:, None], mask * known, b_factors * known
    return aatype, (positions, mask, b_factors)


def _is_amino_acid(residue: gemmi.Residue) -> bool:
    if residue.entity_type in (gemmi.EntityType.NonPolymer, gemmi.EntityType.Water):
        return False
    info = gemmi.find_tabulated_residue(residue.name)
    if info.found() and residue.name != rc.UNKNOWN:
        return info.is_amino_acid()
    return all(residue.find_atom(name, "*") for name in ("N", "CA", "C"))


def _occupancy(residue: gemmi.Residue) -> float:
    return max((atom.occ for atom in residue), default=0.0)


def _numbers(residues: list[gemmi.Residue]) -> list[int]:
    """Residue numbers that grow: where the file's do not (insertion codes), it and all later ones move up."""
    numbers: list[int] = []
    shift = 0
    for residue in residues:
        number = (residue.seqid.num or 0) + shift
        if numbers and number <= numbers[-1]:
            shift += numbers[-1] + 1 - number
            number = numbers[-1] + 1
        numbers.append(number)
    return numbers
