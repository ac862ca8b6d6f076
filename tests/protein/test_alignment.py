"""Damaged alignments are refused with the place of the damage; unusual but sound ones are read."""

import numpy as np
import pytest

from parafold.errors import InputError
from parafold.protein.alignment import (
    Msa,
    convert_stockholm_to_a3m,
    deduplicate_stockholm,
    parse_a3m,
    parse_stockholm,
    remove_empty_columns_from_stockholm,
    species_id,
    to_a3m,
)

STOCKHOLM = "# STOCKHOLM 1.0\n\nquery MK-V\nhit   MKAV\n\nquery A--\nhit   A.g\n//\n"


def test_insertions_are_counted_before_the_residue_they_precede():
    msa = parse_a3m(">q\nMKV\n>hit\nabMc-Vdd\n")
    assert msa.sequences == ["MKV", "M-V"]
    assert msa.deletions.tolist() == [[0, 0, 0], [2, 1, 0]]


def test_dots_comments_and_windows_line_ends():
    msa = parse_a3m("#3\t1\r\n>q\r\nM.KV\r\n>hit\r\nM\r\nk.KV\r\n")
    assert msa.sequences == ["MKV", "MKV"]
    assert msa.deletions.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_stockholm_blocks_dots_and_lower_case():
    msa = parse_stockholm(STOCKHOLM)
    assert msa.sequences == ["MKVA", "MKVA"]
    assert msa.deletions.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert msa.descriptions == ["query", "hit"]


def test_deletions_of_many_rows_equal_those_of_each_alone():
    rng = np.random.default_rng(0)
    query = "MK-VA--G-W"
    rows = ["".join(rng.choice(list("ACD-"), len(query))) for _ in range(1500)]
    text = "".join(f"h{i} {row}\n" for i, row in enumerate(rows))
    together = parse_stockholm(f"q {query}\n{text}//\n")
    for i in (0, 511, 512, 1499):
        alone = parse_stockholm(f"q {query}\nh {rows[i]}\n//\n")
        assert together.sequences[i + 1] == alone.sequences[1]
        assert together.deletions[i + 1].tolist() == alone.deletions[1].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.a3m: no sequence"),
        ("MKV\n", "m.a3m line 1: sequence without a header"),
        (">q\n\n>hit\nMKV\n", "m.a3m line 1: the query, its first sequence, is empty"),
        (">q\nMKV\n>hit\nMK\n", "m.a3m line 3: 'hit' has 2 aligned columns, the query has 3"),
        (">q\nMKV\n>hit\n", "m.a3m line 3: 'hit' has 0 aligned columns, the query has 3"),
        (">q\nMKV\n>hit\nM*V\n", r"m.a3m line 3: '\*' in the sequence of 'hit'"),
        (">q\nMKV\n>hit\nM\u00c5V\n", "m.a3m line 3: '\u00c5' in the sequence of 'hit'"),
    ],
)
def test_damaged_a3m(text, message):
    with pytest.raises(InputError, match=message):
        parse_a3m(text, "m.a3m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# STOCKHOLM 1.0\n//\n", "m.sto: no sequence"),
        (STOCKHOLM.removesuffix("//\n"), "m.sto: no '//' at the end"),
        (STOCKHOLM.replace("hit   A.g\n", ""), "m.sto line 4: 'hit' has 4 aligned columns, the query has 7"),
        (STOCKHOLM.replace("hit   A.g", "hit"), "m.sto line 7: expected a name and aligned residues"),
        (STOCKHOLM.replace("MKAV", "MK5V"), "m.sto line 4: '5' in the sequence of 'hit'"),
    ],
)
def test_damaged_stockholm(text, message):
    with pytest.raises(InputError, match=message):
        parse_stockholm(text, "m.sto")


@pytest.mark.parametrize("edit", [convert_stockholm_to_a3m, deduplicate_stockholm])
def test_edits_of_an_empty_stockholm(edit):
    with pytest.raises(InputError, match="no sequence"):
        edit("# STOCKHOLM 1.0\n//\n")


@pytest.mark.parametrize("edit", [convert_stockholm_to_a3m, deduplicate_stockholm])
def test_edits_of_a_damaged_stockholm(edit):
    with pytest.raises(InputError, match="sto line 7: expected a name and aligned residues"):
        edit(STOCKHOLM.replace("hit   A.g", "hit"))


def test_empty_columns_go_without_a_reference_line_too():
    assert remove_empty_columns_from_stockholm("q M-K\nh A-C\n//") == "q MK\nh AC\n//"


def test_written_a3m_is_read_back():
    msa = parse_a3m(">q one\nMKV\n>hit\naaM-cV\n")
    again = parse_a3m(to_a3m(msa))
    assert again.sequences == msa.sequences
    assert again.descriptions == msa.descriptions
    np.testing.assert_array_equal(again.deletions, msa.deletions)


def test_query_only_and_truncate():
    alone = Msa.query_only("MKV")
    assert (len(alone), alone.sequences, alone.deletions.shape) == (1, ["MKV"], (1, 3))
    msa = parse_a3m(">q\nMKV\n>a\nM-V\n>b\n--V\n")
    assert msa.truncate(2).descriptions == ["q", "a"]


def test_fields_must_fit_together():
    with pytest.raises(InputError, match="2 sequences of 3 residues"):
        Msa(["MKV", "M-V"], np.zeros((1, 3), np.int32), ["q", "h"])


@pytest.mark.parametrize(
    ("description", "species"),
    [
        ("tr|A0A146SKV9|A0A146SKV9_FUNHE/1-2", "FUNHE"),
        ("sp|P0CG48|UBC_HUMAN", "HUMAN"),
        ("tr|A0A146SKV9_1|A0A146SKV9_FUNHE_12/3-76 a description", "FUNHE"),
        # Easel's numbers before all names, when two rows share one.
        ("1|tr|A0A146SKV9|A0A146SKV9_FUNHE/1-2", "FUNHE"),
        ("10234|sp|P0CG48|UBC_HUMAN/1-76", "HUMAN"),
        # A '/' is where AlphaFold stops to read, wherever it stands.
        ("sp|P0CG48|UBC_HUMAN/chain/1-76", "HUMAN"),
        ("12|UniRef90_A0A146SKV9/1-2", ""),
        ("|tr|A0A146SKV9|A0A146SKV9_FUNHE/1-2", ""),
        ("x1|tr|A0A146SKV9|A0A146SKV9_FUNHE/1-2", ""),
        ("query", ""),
        ("", ""),
    ],
)
def test_species_of_a_description(description, species):
    assert species_id(description) == species
