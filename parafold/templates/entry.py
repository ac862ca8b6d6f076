"""A template structure: its chains with all their residues, those without coordinates too."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float

from parafold.errors import InputError
from parafold.protein.residue import ATOM_ORDER, RESTYPES_WITH_X
from parafold.protein.structure import open_structure, protein_residues, residue_atoms
from parafold.protein.text_file import read_text

_CD, _NH1, _NH2 = (ATOM_ORDER[name] for name in ("CD", "NH1", "NH2"))


@dataclass(frozen=True)
class TemplateChain:
    """A protein chain: `sequence` as deposited, `residues[i]` None where residue i has no coordinates."""

    sequence: str
    residues: list[gemmi.Residue | None]

    def atoms(self) -> tuple[Float[np.ndarray, "r 37 3"], Float[np.ndarray, "r 37"]]:
        """Positions (Å) and mask, zero for residues without coordinates."""
        positions = np.zeros((len(self.residues), 37, 3), np.float32)
        mask = np.zeros((len(self.residues), 37), np.float32)
        for i, residue in enumerate(self.residues):
            if residue is not None:
                positions[i], mask[i], _ = residue_atoms(residue)
                if residue.name == "ARG":
                    _name_arginine(positions[i], mask[i])
        return positions, mask


def read_chains(path: str | Path) -> dict[str, TemplateChain]:
    """Author's chain name -> chain, for the protein chains of a PDB or mmCIF file's first model.

    Where the file does not give the deposited sequence, the residues with coordinates stand for it.
    Raises InputError if the file cannot be read.
    """
    structure = open_structure(path)
    chains = {}
    for chain in structure[0]:
        residues = protein_residues(chain)
        if residues:
            entity = structure.get_entity_of(chain.get_polymer())
            deposited = [gemmi.Entity.first_mon(name) for name in entity.full_sequence] if entity else []
            chains[chain.name] = _chain(residues, deposited)
    return chains


def release_date(path: str | Path) -> datetime.date | None:
    """The first release of an mmCIF file, None if it does not say."""
    try:
        block = gemmi.cif.read_string(read_text(path, "mmCIF"))[0]
        dates = block.find_values("_pdbx_audit_revision_history.revision_date")
        return min(datetime.date.fromisoformat(gemmi.cif.as_string(date)) for date in dates)
    except InputError:
        raise
    except (RuntimeError, ValueError, IndexError):  # not mmCIF, or no or no proper date
        return None


def _chain(residues: list[gemmi.Residue], deposited: list[str]) -> TemplateChain:
    places = [(residue.label_seq or 0) - 1 for residue in residues]
    if deposited and min(places) >= 0 and max(places) < len(deposited) and len(set(places)) == len(places):
        found = dict(zip(places, residues, strict=True))
        return TemplateChain("".join(map(_letter, deposited)), [found.get(i) for i in range(len(deposited))])
    return TemplateChain("".join(_letter(residue.name) for residue in residues), list(residues))


def _letter(name: str) -> str:
    letter = gemmi.find_tabulated_residue(name).one_letter_code.upper()
    return letter if letter in RESTYPES_WITH_X else "X"


def _name_arginine(positions: np.ndarray, mask: np.ndarray) -> None:
    """Exchanges NH1 and NH2 where they are misnamed: NH1 is the one nearer to CD."""
    if mask[[_CD, _NH1, _NH2]].all():
        to_cd = np.linalg.norm(positions[[_NH1, _NH2]] - positions[_CD], axis=1)
        if to_cd[0] > to_cd[1]:
            positions[[_NH1, _NH2]] = positions[[_NH2, _NH1]]
