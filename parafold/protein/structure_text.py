"""Structures as PDB and mmCIF text, atom for atom as the published AlphaFold writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from parafold.errors import OutputError
from parafold.protein import residue as rc

if TYPE_CHECKING:
    from parafold.protein.structure import Structure

_PDB_CHAIN_IDS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_RESIDUE_NAMES = [*rc.RESTYPE_1TO3.values(), rc.UNKNOWN]
_COMPOUND_NAMES = {
    "ALA": "ALANINE",
    "ARG": "ARGININE",
    "ASN": "ASPARAGINE",
    "ASP": "ASPARTIC ACID",
    "CYS": "CYSTEINE",
    "GLN": "GLUTAMINE",
    "GLU": "GLUTAMIC ACID",
    "GLY": "GLYCINE",
    "HIS": "HISTIDINE",
    "ILE": "ISOLEUCINE",
    "LEU": "LEUCINE",
    "LYS": "LYSINE",
    "MET": "METHIONINE",
    "PHE": "PHENYLALANINE",
    "PRO": "PROLINE",
    "SER": "SERINE",
    "THR": "THREONINE",
    "TRP": "TRYPTOPHAN",
    "TYR": "TYROSINE",
    "VAL": "VALINE",
    "UNK": "UNKNOWN",
}
# fmt: off
_ATOM_SITE = [
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
    "B_iso_or_equiv", "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num",
]
# fmt: on
_ALPHAFOLD_PAPER: dict[str, str | None] = {
    "id": "primary",
    "title": "Highly accurate protein structure prediction with AlphaFold",
    "journal_full": "Nature",
    "journal_volume": "596",
    "page_first": "583",
    "page_last": "589",
    "year": "2021",
    "pdbx_database_id_PubMed": "34265844",
    "pdbx_database_id_DOI": "10.1038/s41586-021-03819-2",
}


def to_pdb(structure: Structure, remarks: Iterable[str] = ()) -> str:
    """The structure as a PDB file; `remarks` become REMARK 3 lines at its head.

    Chains whose ids are longer than one character are named A-Z, a-z, 0-9 in order. Raises OutputError for
    what the format cannot hold (more than 62 chains, too large numbers), which mmCIF can.
    """
    ids = _pdb_chain_ids(structure)
    lines = [f"REMARK   3 {part}" for remark in remarks for part in _wrapped(remark, 68)]
    lines.append("MODEL     1")
    serial = 1
    for at, position in enumerate(_rows(structure)):
        chain, name, number, atoms = position
        for atom, xyz, b_factor in atoms:
            x, y, z = xyz
            lines.append(
                f"ATOM  {serial:>5} {_padded(atom)} {name:>3} {ids[chain]}{number:>4}    "
                f"{x:>8.3f}{y:>8.3f}{z:>8.3f}{1:>6.2f}{b_factor:>6.2f}          {atom[0]:>2}  "
            )
            if len(lines[-1]) != 80:
                raise OutputError(
                    f"chain {ids[chain]} residue {number} atom {atom}: a number is too large for the PDB "
                    "format; write mmCIF instead"
                )
            serial += 1
        is_last = at + 1 == len(structure)
        if is_last or structure.chain_index[at + 1] != chain:
            lines.append(f"TER   {serial:>5}      {name:>3} {ids[chain]}{number:>4}")
            serial += 1
    lines += ["ENDMDL", "END"]
    return "".join(f"{line:<80}\n" for line in lines)


def to_mmcif(
    structure: Structure, name: str, notes: Sequence[str] = (), model_name: str = "Top ranked model"
) -> str:
    """The structure as an mmCIF file with the ModelCIF categories of a prediction.

    `name` becomes the entry id. `notes` go into `_struct.title` (the first one) and
    `_struct.pdbx_model_details` (all): the place for anything a reader must know, such as random parameters.
    B-factors are declared to be the pLDDT.
    """
    document = gemmi.cif.Document()
    entry = re.sub(r"[^A-Za-z0-9_.-]", "_", name).upper() or "MODEL"
    block = document.add_new_block(entry)
    block.set_pair("_entry.id", entry)
    _pairs(
        block,
        "struct",
        entry_id=entry,
        title=" - ".join([name, *notes[:1]]),
        pdbx_model_details="\n".join(notes) or None,
    )
    _write_entities(block, structure)
    _write_atoms(block, structure)
    _write_provenance(block, structure, model_name)
    return document.as_string(gemmi.cif.WriteOptions())


def _write_entities(block: gemmi.cif.Block, structure: Structure) -> None:
    """Each chain is an entity of its own, numbered from 0, as the published writer has it."""
    used = [int(i) for i in np.unique(structure.chain_index)]
    ids = [structure.chain_ids[i] for i in used]
    _loop(block, "struct_asym", id=ids, entity_id=used)
    _loop(block, "entity_poly", entity_id=used, type=["polypeptide(L)"] * len(used), pdbx_strand_id=ids)
    _loop(block, "entity", id=used, type=["polymer"] * len(used))
    entities, numbers, monomers = [], [], []
    for chain in used:
        here = structure.chain_index == chain
        names = {
            int(n): _RESIDUE_NAMES[a]
            for n, a in zip(structure.residue_index[here], structure.aatype[here], strict=True)
        }
        # Numbers without a residue are unknown ones, so that the sequence keeps its numbering.
        for number in range(min(1, *names), max(names) + 1):
            entities.append(chain)
            numbers.append(number)
            monomers.append(names.get(number, rc.UNKNOWN))
    _loop(block, "entity_poly_seq", entity_id=entities, num=numbers, mon_id=monomers)
    kinds = ["peptide linking" if name == "GLY" else "L-peptide linking" for name in _COMPOUND_NAMES]
    _loop(block, "chem_comp", id=list(_COMPOUND_NAMES), type=kinds, name=list(_COMPOUND_NAMES.values()))
    _loop(
        block,
        "ma_target_entity",
        entity_id=used,
        data_id=[1] * len(used),
        origin=[False] * len(used),
    )
    _loop(block, "ma_target_entity_instance", asym_id=ids, entity_id=used, details=[False] * len(used))


def _write_atoms(block: gemmi.cif.Block, structure: Structure) -> None:
    loop = block.init_mmcif_loop("_atom_site.", _ATOM_SITE)
    quoted = [gemmi.cif.quote(id) for id in structure.chain_ids]
    elements: set[str] = set()
    serial = 0
    for chain, name, number, atoms in _rows(structure):
        for atom, xyz, b_factor in atoms:
            serial += 1
            elements.add(atom[0])
            x, y, z = (f"{value:.3f}" for value in xyz)
            place = [name, quoted[chain], str(chain), str(number), "."]
            author = [str(number), quoted[chain], "1"]
            values = [x, y, z, "1.00", f"{b_factor:.2f}"]
            loop.add_row(["ATOM", str(serial), atom[0], atom, ".", *place, *values, *author])
    _loop(block, "atom_type", symbol=sorted(elements))


def _write_provenance(block: gemmi.cif.Block, structure: Structure, model_name: str) -> None:
    from parafold import __version__

    dictionary = "https://raw.githubusercontent.com/ihmwg/ModelCIF/master/dist/mmcif_ma.dic"
    _pairs(block, "audit_conform", dict_name="mmcif_ma.dic", dict_version="1.3.9", dict_location=dictionary)
    _pairs(block, "citation", **_ALPHAFOLD_PAPER)
    _pairs(block, "ma_data", id="1", name="Model", content_type="model coordinates")
    _pairs(
        block,
        "ma_model_list",
        ordinal_id="1",
        model_id="1",
        model_group_id="1",
        model_name=model_name,
        model_group_name=f"parafold {__version__} model",
        data_id="1",
        model_type="Ab initio model",
    )
    _pairs(
        block,
        "software",
        pdbx_ordinal="1",
        name="parafold",
        version=__version__,
        type="package",
        description="Structure prediction (AlphaFold 2)",
        classification="other",
    )
    _pairs(block, "ma_software_group", ordinal_id="1", group_id="1", software_id="1")
    steps = ["coevolution MSA", "template search", "modeling"]
    _loop(
        block,
        "ma_protocol_step",
        ordinal_id=[1, 2, 3],
        protocol_id=[1, 1, 1],
        step_id=[1, 2, 3],
        method_type=steps,
    )
    _loop(
        block,
        "ma_qa_metric",
        id=[1, 2],
        name=["pLDDT", "pLDDT"],
        type=["pLDDT", "pLDDT"],
        mode=["global", "local"],
        software_group_id=[1, 1],
    )
    written = np.round(structure.b_factors[structure.atom_mask >= 0.5].astype(np.float64), 2)
    mean = f"{written.mean():.2f}" if written.size else None
    _pairs(block, "ma_qa_metric_global", ordinal_id="1", model_id="1", metric_id="1", metric_value=mean)


_Atom = tuple[str, np.ndarray, float]


def _rows(structure: Structure) -> Iterator[tuple[int, str, int, list[_Atom]]]:
    """Yields (chain index, residue name, number, atoms that are there) for each residue."""
    present = np.asarray(structure.atom_mask) >= 0.5
    if not np.isfinite(np.asarray(structure.atom_positions)[present]).all():
        raise OutputError(
            "some atom positions are not finite numbers; the prediction failed, nothing is written"
        )
    for i in range(len(structure)):
        atoms = [
            (rc.ATOM_TYPES[k], structure.atom_positions[i, k], float(structure.b_factors[i, k]))
            for k in np.flatnonzero(present[i])
        ]
        name = _RESIDUE_NAMES[structure.aatype[i]]
        yield int(structure.chain_index[i]), name, int(structure.residue_index[i]), atoms


def _pdb_chain_ids(structure: Structure) -> Sequence[str]:
    count = len(structure.chain_ids)
    if count > len(_PDB_CHAIN_IDS):
        raise OutputError(
            f"the structure has {count} chains, the PDB format holds {len(_PDB_CHAIN_IDS)}; "
            "write mmCIF instead"
        )
    if all(len(id) == 1 for id in structure.chain_ids):
        return structure.chain_ids
    return _PDB_CHAIN_IDS[:count]


def _wrapped(text: str, width: int) -> list[str]:
    """The text in printable ASCII, as PDB files must be, in lines of at most `width` letters."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in " ".join(text.split()))
    return [plain[i : i + width] for i in range(0, len(plain), width)]


def _pairs(block: gemmi.cif.Block, category: str, **items: str | None) -> None:
    """One row of a category as tag-value pairs; gemmi quotes the values and writes None as '?'."""
    block.set_pairs(f"_{category}.", items)


def _loop(block: gemmi.cif.Block, category: str, **columns: Sequence[str | int | bool]) -> None:
    """A category as a table; gemmi quotes the values and writes False as '.'."""
    block.set_mmcif_category(
        f"_{category}.",
        {tag: [v if v is False else str(v) for v in values] for tag, values in columns.items()},
    )


def _padded(atom: str) -> str:
    """Columns 13 to 16: names shorter than four letters begin in the second."""
    return atom if len(atom) == 4 else f" {atom:<3}"
