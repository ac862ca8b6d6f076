"""Damaged search outputs are refused with the line."""

from pathlib import Path

import pytest

from parafold.errors import InputError
from parafold.templates import parse_hhr, parse_hmmsearch_a3m

HHR = (Path(__file__).parents[1] / "golden/oracle/data/hits.hhr").read_text()


def test_an_hhr_without_hits():
    assert parse_hhr("Query x\n\n No Hit\n") == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("Sum_probs=25.5", "", 6),
        (
            "Q query            2 AQEIMTQNVVTIRGSAT-VA    20 (36)",
            "Q query            2 AQEIMTQNVVTIRGSAT-VA    25 (36)",
            6,
        ),
        ("T 2bbb_A          30 LGA    32 (50)", "T 2bbb_A          30 LGA", 23),
        ("T 2bbb_A          30 LGA    32 (50)\n", "", 23),
    ],
)
def test_damaged_hhr(old, new, line):
    assert HHR.count(old) == 1
    with pytest.raises(InputError, match=f"x.hhr line {line}: "):
        parse_hhr(HHR.replace(old, new), "x.hhr")


def test_truncated_hhr():
    with pytest.raises(InputError, match=r"x\.hhr line 6: damaged hit"):
        parse_hhr(HHR[: HHR.index(">1aaa_A")], "x.hhr")


def test_a_hit_without_its_place():
    with pytest.raises(InputError, match=r"x\.a3m line 3: expected a header such as"):
        parse_hmmsearch_a3m("MKV", ">q\nMKV\n>1abc_A mol:protein\nMKV\n", source="x.a3m")


def test_the_first_row_may_be_a_hit():
    text = ">1abc_A/2-4 mol:protein length:9\nM-vV\n"
    assert parse_hmmsearch_a3m("MKV", text) == []
    (hit,) = parse_hmmsearch_a3m("MKV", text, skip_first=False)
    assert (hit.indices_query, hit.indices_hit, hit.aligned_cols) == ([0, 1, 2], [1, -1, 3], 2)


def test_numbered_names():
    """Where two hits have one name and range, hmmsearch's file numbers all names."""
    text = ">07|1abc_A/2-4 mol:protein length:9\nM-V\n"
    (hit,) = parse_hmmsearch_a3m("MKV", text, skip_first=False)
    assert hit.name == "1abc_A"


@pytest.mark.parametrize("row", ["MK", "MKVA", "M*V", "M1V", "MéV"])
def test_rows_that_are_not_aligned(row):
    text = f">1abc_A/2-4 mol:protein length:9\n{row}\n"
    with pytest.raises(InputError, match=r"x\.a3m line 1: 1abc_A is not aligned with the query's 3 residues"):
        parse_hmmsearch_a3m("MKV", text, skip_first=False, source="x.a3m")


@pytest.mark.parametrize("number", ["nan", "1e999", "-1"])
def test_a_score_that_is_none(number):
    with pytest.raises(InputError, match=r"x\.hhr line 6: damaged hit"):
        parse_hhr(HHR.replace("Sum_probs=25.5", f"Sum_probs={number}"), "x.hhr")
