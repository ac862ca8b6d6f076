import numpy as np
import pytest

from parafold.errors import FeaturesError
from parafold.features import msa_features, sequence_features
from parafold.features.raw import chain_features
from parafold.protein.alignment import Msa
from parafold.protein.residue import HHBLITS_TO_RESTYPE, RESTYPES_WITH_X_AND_GAP
from parafold.templates import empty_templates


def msa(*rows, descriptions=None, deletions=None):
    deletions = np.zeros((len(rows), len(rows[0])), np.int32) if deletions is None else np.array(deletions)
    return Msa(list(rows), deletions, list(descriptions or [f"row{n}" for n in range(len(rows))]))


def test_unknown_letters_are_x():
    aatype = sequence_features("AZX")["aatype"]
    assert aatype.argmax(1).tolist() == [0, 20, 20]
    assert (aatype.sum(1) == 1).all()


def test_each_aligned_string_is_kept_once_with_its_first_deletions():
    first = msa("ACD", "A-D", "ACD", deletions=[[0, 0, 0], [1, 0, 0], [9, 9, 9]])
    second = msa("ACD", "AAD", "A-D", deletions=[[8, 8, 8], [0, 2, 0], [7, 7, 7]])
    features = msa_features([first, second])
    letters = [
        "".join(RESTYPES_WITH_X_AND_GAP[HHBLITS_TO_RESTYPE[letter]] for letter in row)
        for row in features["msa"]
    ]
    assert letters == ["ACD", "A-D", "AAD"]
    assert features["deletion_matrix_int"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]]
    assert features["num_alignments"].tolist() == [3, 3, 3]


def test_species():
    features = msa_features([msa("AC", "AA", descriptions=["query", "tr|A0A146SKV9|A0A146SKV9_FUNHE/1-2"])])
    assert features["msa_species_identifiers"].tolist() == [b"", b"FUNHE"]


@pytest.mark.parametrize(
    "alignments, words",
    [
        ([], "at least the query"),
        ([msa("ACD"), Msa([], np.zeros((0, 0), np.int32), [])], "at least the query"),
        ([msa("ACD"), msa("AC")], "alignment 2 row 1: 2 columns"),
        ([msa("ACD", "A*D")], r"alignment 1 row 2: '\*' is not an amino acid"),
        ([msa("ACD", "A\u0430D")], "alignment 1 row 2: '\u0430' is not an amino acid"),
    ],
)
def test_what_is_wrong_with_an_alignment_is_said(alignments, words):
    with pytest.raises(FeaturesError, match=words):
        msa_features(alignments)


def test_an_alignment_to_another_query():
    with pytest.raises(FeaturesError, match="alignment 1 has 2 columns, its query 3 residues"):
        chain_features("ACD", "", [msa("AC")], None)


def test_a_chain_without_templates_has_empty_ones():
    features = chain_features("ACD", "", [msa("ACD")], None)
    assert {name: array.shape for name, array in empty_templates(3).items()} == {
        name: array.shape for name, array in features.items() if name.startswith("template_")
    }
