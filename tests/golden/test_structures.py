"""Predictions are written as the published AlphaFold writes them."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from parafold.protein.structure import Structure, atom14_to_atom37, read_structure, to_mmcif, to_pdb

ORACLE = Path(__file__).parent / "oracle"
REFERENCE = ORACLE / "data/prediction_monomer_full_r0"
# What the published file says of its own program, licence and authors; ours says other things there.
OWN_CATEGORIES = {
    "_pdbx_data_usage.",
    "_audit_author.",
    "_citation_author.",
    "_citation.",
    "_ma_model_list.",
    "_software.",
}


@pytest.fixture(scope="module")
def prediction():
    outputs = np.load(ORACLE / "monomer_full_r0/outputs.npz")
    features = np.load(ORACLE / "monomer_full_r0/features.npz")
    mask = outputs["structure_module/final_atom_mask"]
    return Structure(
        atom_positions=outputs["structure_module/final_atom_positions"],
        atom_mask=mask,
        aatype=features["aatype"][0],
        residue_index=features["residue_index"][0] + 1,
        chain_index=np.zeros(len(mask), np.int32),
        b_factors=outputs["confidence/plddt"][:, None] * mask,
        chain_ids=("A",),
    )


def test_pdb_is_the_published_file(prediction):
    assert to_pdb(prediction) == REFERENCE.with_suffix(".pdb").read_text()


def test_mmcif_tables_are_the_published_ones(prediction):
    ours = gemmi.cif.read_string(to_mmcif(prediction, "pred")).sole_block()
    theirs = gemmi.cif.read(str(REFERENCE.with_suffix(".cif"))).sole_block()
    compared = []
    for category in set(theirs.get_mmcif_category_names()) - OWN_CATEGORIES - {"_chem_comp."}:
        assert ours.get_mmcif_category(category) == theirs.get_mmcif_category(category), category
        compared.append(category)
    assert {"_atom_site.", "_entity_poly_seq.", "_ma_qa_metric_global.", "_struct_asym."} <= set(compared)


def test_mmcif_compounds_hold_the_published_ones(prediction):
    tables = [
        gemmi.cif.read_string(to_mmcif(prediction, "pred")).sole_block(),
        gemmi.cif.read(str(REFERENCE.with_suffix(".cif"))).sole_block(),
    ]
    ours, theirs = ({tuple(row) for row in t.find("_chem_comp.", ["id", "type", "name"])} for t in tables)
    assert {row[0] for row in ours - theirs} == {"UNK"}
    assert theirs <= ours


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_published_files_are_read_back(prediction, suffix):
    read = read_structure(REFERENCE.with_suffix(suffix))
    np.testing.assert_array_equal(read.atom_mask, prediction.atom_mask)
    np.testing.assert_array_equal(read.aatype, prediction.aatype)
    np.testing.assert_array_equal(read.residue_index, prediction.residue_index)
    np.testing.assert_allclose(read.atom_positions, prediction.atom_positions, atol=5.1e-4, rtol=0)
    np.testing.assert_allclose(read.b_factors, prediction.b_factors, atol=5.1e-3, rtol=0)


def test_atom14_to_atom37(prediction):
    outputs = np.load(ORACLE / "monomer_full_r0/outputs.npz")
    positions, mask = atom14_to_atom37(
        outputs["structure_module/final_atom14_positions"],
        outputs["structure_module/final_atom14_mask"],
        prediction.aatype,
    )
    np.testing.assert_array_equal(mask, prediction.atom_mask)
    np.testing.assert_array_equal(positions, prediction.atom_positions)
