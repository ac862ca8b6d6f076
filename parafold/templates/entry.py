"""A template structure: its chains with all their residues, those without coordinates too."""

import datetime
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float

from parafold.errors import InputError
from parafold.protein.residue import ATOM_ORDER, RESTYPES_WITH_X
from parafold.protein.structure import open_structure, protein_residues, residue_atoms
from parafold.protein.text_file import MAX_BYTES, read_text

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
        # A damaged file's numbers may be too large for float32; whoever uses them looks for that.
        with np.errstate(over="ignore", invalid="ignore"):
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
    return _chains(open_structure(path))


def read_block(path: str | Path) -> gemmi.cif.Block:
    """The first block of an mmCIF file, plain or packed by gzip. Raises InputError if there is none."""
    try:
        return gemmi.cif.read_string(_text(Path(path)))[0]
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not an mmCIF file ({reason}); fetch it again") from None


def release_date(block: gemmi.cif.Block) -> datetime.date | None:
    """The first release of an entry, None if it does not say."""
    try:
        dates = block.find_values("_pdbx_audit_revision_history.revision_date")
        return min(datetime.date.fromisoformat(gemmi.cif.as_string(date)) for date in dates)
    except (RuntimeError, ValueError):  # no date, or no proper one
        return None


def read_block_chains(block: gemmi.cif.Block, path: str | Path) -> dict[str, TemplateChain]:
    """As `read_chains`, for what `read_block` found in the file."""
    try:
        structure = gemmi.make_structure_from_block(block)
        structure.merge_chain_parts()
        if len(structure):
            structure.setup_entities()
            return _chains(structure)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: a damaged mmCIF file ({reason}); fetch it again") from None
    raise InputError(f"{path}: no atoms in it; fetch it again")


def _text(path: Path) -> str:
    if path.suffix != ".gz":
        return read_text(path, "mmCIF")
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); fetch it again") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES // 2**20} MiB when unpacked")
    return data.decode("utf-8", "replace")


def _chains(structure: gemmi.Structure) -> dict[str, TemplateChain]:
    chains = {}
    for chain in structure[0]:
        residues = protein_residues(chain)
        if residues:
            entity = structure.get_entity_of(chain.get_polymer())
            deposited = [gemmi.Entity.first_mon(name) for name in entity.full_sequence] if entity else []
            chains[chain.name] = _chain(residues, deposited)
    return chains


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
