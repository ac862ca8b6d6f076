"""Reading real-world oddities of structure files, writing what others must be able to open."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from parafold.errors import InputError, OutputError
from parafold.protein.residue import ATOM37_MASK, ATOM_ORDER, RESTYPE_ORDER_WITH_X
from parafold.protein.sequence import chain_id
from parafold.protein.structure import (
    Structure,
    atom14_to_atom37,
    atom37_to_atom14,
    read_structure,
    to_mmcif,
    to_pdb,
)


def atom(
    name, residue, number, xyz=(0, 0, 0), *, chain="A", alt=" ", occ=1.0, b=5.0, record="ATOM", icode=" "
):
    name = name if len(name) == 4 else f" {name}"
    x, y, z = xyz
    return (
        f"{record:<6}{1:>5} {name:<4}{alt}{residue:>3} {chain}{number:>4}{icode}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occ:6.2f}{b:6.2f}          {name.strip()[0]:>2}\n"
    )


def backbone(residue, number, x=0.0, **options):
    return "".join(
        atom(name, residue, number, (x + 1.3 * i, 0, 0), **options)
        for i, name in enumerate(("N", "CA", "C", "O"))
    )


@pytest.fixture
def read(tmp_path):
    def read(text, chain=None):
        path = tmp_path / "s.pdb"
        path.write_text(text + "END\n")
        return read_structure(path, chain)

    return read


def random_structure(chains=2, residues=4, seed=0):
    rng = np.random.default_rng(seed)
    aatype = rng.integers(0, 20, chains * residues).astype(np.int32)
    mask = ATOM37_MASK[aatype]
    positions = rng.normal(scale=30, size=(len(aatype), 37, 3)).astype(np.float32).round(3)
    return Structure(
        atom_positions=positions * mask[..., None],
        atom_mask=mask,
        aatype=aatype,
        residue_index=np.tile(np.arange(1, residues + 1, dtype=np.int32), chains),
        chain_index=np.repeat(np.arange(chains, dtype=np.int32), residues),
        b_factors=(rng.uniform(0, 100, mask.shape).round(2) * mask).astype(np.float32),
        chain_ids=tuple(chain_id(i) for i in range(chains)),
    )


def assert_equal(a, b):
    for field in ("aatype", "atom_mask", "residue_index", "chain_index"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
    np.testing.assert_allclose(a.atom_positions, b.atom_positions, atol=5.1e-4, rtol=0)
    np.testing.assert_allclose(a.b_factors, b.b_factors, atol=5.1e-3, rtol=0)
    assert a.chain_ids == b.chain_ids


def test_highest_occupancy_wins_and_hydrogens_are_ignored(read):
    structure = read(
        backbone("SER", 1)
        + atom("CB", "SER", 1, (1, 1, 1), alt="A", occ=0.3)
        + atom("CB", "SER", 1, (2, 2, 2), alt="B", occ=0.7)
        + atom("OG", "SER", 1, (3, 3, 3), alt="A", occ=0.5)
        + atom("OG", "SER", 1, (4, 4, 4), alt="B", occ=0.5)
        + atom("HA", "SER", 1, (9, 9, 9))
        + backbone("GLY", 2, 4)
    )
    assert structure.sequences == ("SG",)
    assert structure.atom_positions[0, ATOM_ORDER["CB"]].tolist() == [2, 2, 2]
    assert structure.atom_positions[0, ATOM_ORDER["OG"]].tolist() == [3, 3, 3]
    assert structure.atom_mask[0].sum() == 6


def test_of_two_residues_in_one_place_the_more_occupied_is_read(read):
    structure = read(
        backbone("GLY", 1)
        + backbone("SER", 2, 4, alt="A", occ=0.4)
        + backbone("THR", 2, 4, alt="B", occ=0.6)
        + backbone("GLY", 3, 8)
    )
    assert structure.sequences == ("GTG",)


def test_modified_residues(read):
    structure = read(
        backbone("GLY", 1)
        + backbone("MSE", 2, 4, record="HETATM")
        + atom("SE", "MSE", 2, (1, 2, 3), record="HETATM")
        + backbone("SEP", 3, 8, record="HETATM")
        + atom("OG", "SEP", 3, (4, 5, 6), record="HETATM")
        + atom("P", "SEP", 3, (5, 5, 6), record="HETATM")
        + backbone("UNK", 4, 12)
        + backbone("ALA", 5, 16)
    )
    assert structure.sequences == ("GMSXA",)
    assert structure.atom_positions[1, ATOM_ORDER["SD"]].tolist() == [1, 2, 3]
    assert structure.atom_positions[2, ATOM_ORDER["OG"]].tolist() == [4, 5, 6]
    assert structure.atom_mask.sum(axis=1).tolist() == [4, 5, 5, 4, 4]


def test_breaks_missing_backbones_waters_and_ligands(read):
    structure = read(
        backbone("GLY", 5)
        + atom("CB", "ALA", 9, (1, 1, 1))
        + backbone("GLY", 10, 8)
        + "TER\n"
        + atom("O", "HOH", 50, record="HETATM")
        + atom("C1", "GOL", 51, record="HETATM")
    )
    assert structure.residue_index.tolist() == [5, 9, 10]
    assert structure.atom_mask[1].sum() == 1
    assert structure.atom_mask[1, :3].sum() == 0


def test_insertion_codes_count_on(read):
    text = (
        backbone("GLY", 7)
        + backbone("ALA", 7, 4, icode="A")
        + backbone("SER", 8, 8)
        + backbone("TRP", 10, 12)
    )
    structure = read(text)
    assert structure.sequences == ("GASW",)
    assert structure.residue_index.tolist() == [7, 8, 9, 11]


def test_only_the_first_model_is_read(read):
    model = backbone("GLY", 1) + backbone("GLY", 2, 4) + "TER\nENDMDL\n"
    assert len(read("MODEL        1\n" + model + "MODEL        2\n" + model)) == 2


def test_a_chain_by_name(read):
    text = backbone("GLY", 1) + backbone("ALA", 2, 4) + "TER\n" + backbone("SER", 1, 8, chain="B") + "TER\n"
    assert read(text).chain_ids == ("A", "B")
    only = read(text, "B")
    assert (only.chain_ids, only.sequences, only.chain_index.tolist()) == (("B",), ("S",), [0])
    with pytest.raises(InputError, match=r"s\.pdb: no protein chain 'C'; its protein chains are A, B"):
        read(text, "C")


def test_files_that_hold_no_protein(read, tmp_path):
    with pytest.raises(InputError, match="no protein residues"):
        read(atom("O", "HOH", 1, record="HETATM"))
    with pytest.raises(InputError, match="no protein residues"):
        read("REMARK nothing\n")
    path = tmp_path / "x.cif"
    path.write_text("data_x\n_cell.length_a 5\n")
    with pytest.raises(InputError, match="no atoms in it"):
        read_structure(path)
    path.write_text("data_x\nloop_\n_atom_site.id\n'broken\n")
    with pytest.raises(InputError, match=r"x\.cif: not a PDB or mmCIF file"):
        read_structure(path)
    path.write_text("")
    with pytest.raises(InputError, match=r"x\.cif is empty; give a PDB or mmCIF file"):
        read_structure(path)
    (tmp_path / "y.cif.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match=r"y\.cif\.gz: "):
        read_structure(tmp_path / "y.cif.gz")


@pytest.mark.parametrize("write", [to_pdb, lambda s: to_mmcif(s, "x")], ids=["pdb", "mmcif"])
def test_round_trip(write, tmp_path):
    structure = random_structure(chains=3)
    path = tmp_path / "s.txt"
    path.write_text(write(structure))
    assert_equal(read_structure(path), structure)


def test_packed_files_are_read(tmp_path):
    structure = random_structure()
    path = tmp_path / "s.cif.gz"
    path.write_bytes(gzip.compress(to_mmcif(structure, "x").encode()))
    assert_equal(read_structure(path), structure)


def test_gaps_and_negative_numbers_keep_their_place_in_mmcif(tmp_path):
    structure = replace(random_structure(1, 4), residue_index=np.array([-2, 1, 2, 5], np.int32))
    block = gemmi.cif.read_string(to_mmcif(structure, "x")).sole_block()
    table = block.get_mmcif_category("_entity_poly_seq.")
    assert table["num"] == ["-2", "-1", "0", "1", "2", "3", "4", "5"]
    assert [name == "UNK" for name in table["mon_id"]] == [False, True, True, False, False, True, True, False]


def test_each_chain_ends_with_ter():
    lines = to_pdb(random_structure(chains=2, residues=2)).splitlines()
    assert all(len(line) == 80 for line in lines)
    assert [line[21] for line in lines if line.startswith("TER")] == ["A", "B"]
    assert [line.split()[0] for line in lines[-3:]] == ["TER", "ENDMDL", "END"]


def test_notes_stand_in_both_formats(tmp_path):
    structure = random_structure()
    notes = ["RANDOM PARAMETERS: this is no prediction", "the user's 'quoted'; note"]
    block = gemmi.cif.read_string(to_mmcif(structure, "T 1", notes)).sole_block()
    assert block.find_pair_item("_struct.title").pair[1] == f"'T 1 - {notes[0]}'"
    assert gemmi.cif.as_string(block.find_value("_struct.pdbx_model_details")) == "\n".join(notes)
    text = to_pdb(structure, remarks=[*notes, "long " * 40, "caf\u00e9"])
    remarks = [line for line in text.splitlines() if line.startswith("REMARK   3")]
    assert remarks[0].strip() == f"REMARK   3 {notes[0]}"
    assert all(len(line) == 80 and line.isascii() for line in text.splitlines())
    path = tmp_path / "s.pdb"
    path.write_text(text)
    assert_equal(read_structure(path), structure)


def test_many_chains(tmp_path):
    structure = random_structure(chains=62, residues=2)
    ids = {line[21] for line in to_pdb(structure).splitlines() if line.startswith("ATOM")}
    assert len(ids) == 62
    more = random_structure(chains=63, residues=2)
    with pytest.raises(OutputError, match="63 chains, the PDB format holds 62; write mmCIF instead"):
        to_pdb(more)
    path = tmp_path / "s.cif"
    path.write_text(to_mmcif(more, "x"))
    assert_equal(read_structure(path), more)


@pytest.mark.parametrize(
    "change",
    [
        {"residue_index": np.array([1, 2, 3, 10_000])},
        {"atom_positions": np.full((4, 37, 3), -1000.0)},
        {"b_factors": np.full((4, 37), 1000.0)},
    ],
)
def test_numbers_too_large_for_pdb(change):
    structure = replace(random_structure(1, 4), **change)
    with pytest.raises(OutputError, match="too large for the PDB format; write mmCIF instead"):
        to_pdb(structure)
    assert to_mmcif(structure, "x").count("\nATOM ") == structure.atom_mask.sum()


def test_positions_that_are_no_numbers_are_not_written():
    structure = random_structure(1, 4)
    structure.atom_positions[0, 0, 0] = np.nan
    for write in (to_pdb, lambda s: to_mmcif(s, "x")):
        with pytest.raises(OutputError, match="not finite"):
            write(structure)


def test_layouts():
    structure = random_structure(1, 40)
    positions, mask = atom37_to_atom14(structure.atom_positions, structure.atom_mask, structure.aatype)
    again, mask37 = atom14_to_atom37(positions, mask, structure.aatype)
    np.testing.assert_array_equal(mask37, structure.atom_mask)
    np.testing.assert_array_equal(again, structure.atom_positions)
    unknown = np.full(40, RESTYPE_ORDER_WITH_X["X"])
    assert not atom37_to_atom14(structure.atom_positions, structure.atom_mask, unknown)[1].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atom_mask": np.zeros((4, 14))}, r"atom_mask has shape \(4, 14\), not \(4, 37\)"),
        ({"aatype": np.array([0, 1, 2, 21])}, r"aatype outside 0\.\.20"),
        ({"chain_index": np.array([0, 0, 0, 1])}, "chain_index outside its 1 chain ids"),
        ({"chain_ids": ("A", "A")}, "not distinct"),
    ],
)
def test_fields_must_fit_together(change, message, unchecked):
    with pytest.raises(InputError, match=message):
        replace(random_structure(1, 4), **change)


DATA = Path(os.environ.get("PARAFOLD_DATA", "/nonexistent"))


@pytest.mark.skipif(not DATA.is_dir(), reason="PARAFOLD_DATA does not point to the folder of real structures")
def test_real_structures(tmp_path):
    paths = sorted([*DATA.glob("structures30/pdb/*.pdb"), *DATA.glob("biotite_cif/*.cif")])
    assert len(paths) >= 30
    for path in paths:
        structure = read_structure(path)
        for name, text in (("s.pdb", to_pdb(structure)), ("s.cif", to_mmcif(structure, path.stem))):
            (tmp_path / name).write_text(text)
            assert_equal(read_structure(tmp_path / name), structure)
