"""The residue constants equal those of the published AlphaFold."""

from pathlib import Path

import numpy as np
import pytest

from parafold.protein import residue

GEOMETRY = Path(__file__).parents[1] / "golden/oracle/geometry/geometry.npz"

PUBLISHED = {
    "restype_atom14_to_rigid_group": residue.ATOM14_RIGID_GROUP,
    "restype_atom14_mask": residue.ATOM14_MASK,
    "restype_atom14_rigid_group_positions": residue.ATOM14_RIGID_GROUP_POSITIONS,
    "restype_rigid_group_default_frame": residue.RIGID_GROUP_DEFAULT_FRAMES,
    "restype_atom37_to_rigid_group": residue.ATOM37_RIGID_GROUP,
    "restype_atom37_mask": residue.ATOM37_MASK,
    "restype_atom37_rigid_group_positions": residue.ATOM37_RIGID_GROUP_POSITIONS,
    "chi_angles_atom_indices": residue.CHI_ATOM_INDICES[:20],
    "STANDARD_ATOM_MASK": residue.STANDARD_ATOM_MASK,
    "chi_pi_periodic": residue.CHI_PI_PERIODIC,
    "chi_angles_mask": residue.CHI_ANGLES_MASK[:20],
    "MAP_HHBLITS_AATYPE_TO_OUR_AATYPE": residue.HHBLITS_TO_RESTYPE,
    "RENAMING_MATRICES": residue.RENAMING_MATRICES,
}


@pytest.fixture(scope="module")
def reference():
    with np.load(GEOMETRY) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("rc")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_equals_the_published_one(name, reference):
    expected = reference[f"rc/{name}"]
    assert PUBLISHED[name].shape == expected.shape
    assert PUBLISHED[name].dtype == expected.dtype
    # A frame is a product of float64 vectors, rounded once: the last bit may differ.
    atol = 1e-7 if name == "restype_rigid_group_default_frame" else 0
    np.testing.assert_allclose(PUBLISHED[name], expected, rtol=0, atol=atol)


def test_no_published_table_is_left_out(reference):
    assert {name.removeprefix("rc/") for name in reference if name.startswith("rc/")} == set(PUBLISHED)


@pytest.mark.parametrize("name", ["lower_bound", "upper_bound", "stddev"])
def test_distance_bounds_equal_the_published_ones(name, reference):
    bounds = residue.atom14_distance_bounds(1.5, 12.0)  # the reference was made with the model's own settings
    np.testing.assert_allclose(bounds[name], reference[f"rc_atom14_dists_bounds/{name}"], rtol=3e-7, atol=0)


def test_layouts_invert_each_other():
    for aa in range(20):
        for i in np.flatnonzero(residue.ATOM14_MASK[aa]):
            k = residue.ATOM14_TO_ATOM37[aa, i]
            assert residue.ATOM37_MASK[aa, k] == 1
            assert residue.ATOM37_TO_ATOM14[aa, k] == i
            name = residue.ATOM14_NAMES[residue.RESTYPE_1TO3[residue.RESTYPES[aa]]][i]
            assert residue.ATOM_TYPES[k] == name
    assert residue.ATOM14_MASK.sum() == residue.ATOM37_MASK.sum() == 167
    assert not residue.ATOM14_MASK[20].any()


def test_rare_letters_of_alignments():
    names = {
        letter: residue.RESTYPES_WITH_X_AND_GAP[residue.HHBLITS_TO_RESTYPE[i]]
        for letter, i in residue.HHBLITS_ID.items()
    }
    assert {letter: names[letter] for letter in "BJOUZX-"} == dict(zip("BJOUZX-", "DXXCEX-", strict=True))
    assert all(names[letter] == letter for letter in residue.RESTYPES)


def test_constants_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        residue.ATOM14_MASK[0, 0] = 5
