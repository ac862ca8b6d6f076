"""A user's own template: aligned as one would by eye, refused by name where it cannot serve."""

import numpy as np
import pytest

from parafold.errors import InputError
from parafold.protein.residue import ATOM37_MASK, HHBLITS_ID, RESTYPE_ORDER_WITH_X
from parafold.protein.structure import Structure, to_mmcif, to_pdb
from parafold.templates import empty_templates, own_template
from parafold.templates.align import global_alignment

SEQUENCE = "MKVLAAGWYC"


def structure(*sequences, step=3.8, jump_before=None):
    """Chains of residues on a line, `step` Å apart; before one residue of each chain the line jumps."""
    letters = "".join(sequences)
    aatype = np.array([RESTYPE_ORDER_WITH_X[letter] for letter in letters], np.int32)
    mask = ATOM37_MASK[aatype]
    number = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
    x = number * step + (10.0 * (number >= jump_before) if jump_before is not None else 0)
    positions = np.random.default_rng(1).normal(scale=0.5, size=(len(letters), 37, 3))
    positions[:, 1] = 0
    positions[..., 0] += x[:, None]
    return Structure(
        atom_positions=positions.round(3).astype(np.float32) * mask[..., None],
        atom_mask=mask,
        aatype=aatype,
        residue_index=(number + 1).astype(np.int32),
        chain_index=np.repeat(np.arange(len(sequences)), [len(s) for s in sequences]).astype(np.int32),
        b_factors=np.zeros_like(mask),
        chain_ids=tuple("ABCDEF"[: len(sequences)]),
    )


@pytest.fixture
def write(tmp_path):
    def write(made, name="t.cif"):
        path = tmp_path / name
        path.write_text(to_pdb(made) if name.endswith("pdb") else to_mmcif(made, "t"))
        return path

    return write


@pytest.mark.parametrize("name", ["t.cif", "t.pdb"])
def test_atoms_lie_along_the_query(write, name):
    made = structure("GGG", SEQUENCE)
    query = SEQUENCE[:4] + "WW" + SEQUENCE[4:8]
    features = own_template(f"{write(made, name)}:B", query)
    assert features["template_sequence"].tolist() == [b"MKVL--AAGW"]
    assert features["template_domain_names"].tolist() == [b"t_B"]
    assert features["template_sum_probs"].shape == (1, 1)
    rows, partners = [0, 1, 2, 3, 6, 7, 8, 9], [3, 4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(
        features["template_all_atom_positions"][0, rows], made.atom_positions[partners]
    )
    np.testing.assert_array_equal(features["template_all_atom_masks"][0, rows], made.atom_mask[partners])
    assert not features["template_all_atom_masks"][0, [4, 5]].any()
    expected = [HHBLITS_ID[letter] for letter in "MKVL--AAGW"]
    assert features["template_aatype"][0].argmax(-1).tolist() == expected
    empty = empty_templates(len(query))
    assert {key: (value.shape[1:], value.dtype.kind) for key, value in features.items()} == {
        key: (value.shape[1:], value.dtype.kind) for key, value in empty.items()
    }
    assert all(len(value) == 0 for value in empty.values())


def test_gaps_go_where_the_chain_is_broken(write):
    # By sequence alone AAAA could be cut anywhere; the jump says where residues are missing.
    query = "MKVAAAAAAWYC"
    path = write(structure("MKVAAAAWYC", jump_before=5), "t.pdb")
    assert own_template(f"{path}:A", query)["template_sequence"].tolist() == [b"MKVAA--AAWYC"]


def test_residues_without_coordinates_keep_their_letter(write):
    text = to_mmcif(structure(SEQUENCE), "t").splitlines()
    path = write(structure(SEQUENCE))
    path.write_text(
        "\n".join(line for line in text if " GLY A " not in line or not line.startswith("ATOM")) + "\n"
    )
    features = own_template(f"{path}:A", SEQUENCE)
    assert features["template_sequence"].tolist() == [SEQUENCE.encode()]
    assert features["template_all_atom_masks"][0].any(-1).tolist() == [letter != "G" for letter in SEQUENCE]


def test_the_only_chain_needs_no_name(write):
    path = write(structure(SEQUENCE))
    assert own_template(str(path), SEQUENCE)["template_domain_names"].tolist() == [b"t_A"]


def test_errors(write, tmp_path):
    path = write(structure(SEQUENCE, "GGG"))
    with pytest.raises(InputError, match=r"t\.cif: no protein chain 'C'; its protein chains are A, B"):
        own_template(f"{path}:C", SEQUENCE)
    with pytest.raises(InputError, match=r"t\.cif has the protein chains A, B; say which, as in .*t\.cif:A"):
        own_template(str(path), SEQUENCE)
    with pytest.raises(InputError, match=r"none\.cif: no such file"):
        own_template(f"{tmp_path}/none.cif:A", SEQUENCE)
    water = tmp_path / "w.pdb"
    water.write_text(
        f"{'HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O':<80}\nEND\n"
    )
    with pytest.raises(InputError, match=r"w\.pdb: no protein chain in it"):
        own_template(f"{water}:A", SEQUENCE)
    lone = write(structure("G"), "g.pdb")
    with pytest.raises(InputError, match="no residue with coordinates of chain 'A' aligns with the query"):
        own_template(f"{lone}:A", SEQUENCE)


def test_global_alignment():
    assert global_alignment("MKVAW", "MKVAW") == {i: i for i in range(5)}
    assert global_alignment("MKWWVAW", "MKVAW") == {0: 0, 1: 1, 4: 2, 5: 3, 6: 4}
    assert global_alignment("MKXVAW", "MKAVAW") == {i: i for i in range(6)}
