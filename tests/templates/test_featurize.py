"""Which hits become templates, and what is said of those that do not."""

import datetime
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parafold.errors import InputError
from parafold.protein.alignment import parse_a3m
from parafold.templates import featurize_hits, parse_hhr, parse_hmmsearch_a3m

DATA = Path(__file__).parents[1] / "golden/oracle/data"
QUERY = parse_a3m((DATA / "bfd.a3m").read_text()).sequences[0]
HITS = parse_hhr((DATA / "hits.hhr").read_text())


def featurize(hits=HITS, query=QUERY, date="2022-01-01", folder=DATA / "mmcif", **options):
    return featurize_hits(query, hits, folder, date, **options)


def names(result):
    return [name.decode() for name in result.features["template_domain_names"]]


def test_best_first_and_no_more_than_asked_for():
    assert names(featurize()) == ["2bbb_A", "1aaa_A", "3ccc_A"]
    assert names(featurize(max_hits=2)) == ["2bbb_A", "1aaa_A"]


def test_dates():
    # The files say 2010-01-01.
    assert names(featurize(date="2010-01-01")) == ["2bbb_A", "1aaa_A", "3ccc_A"]
    assert names(featurize(date="2009-12-31")) == []
    listed = {"2bbb": datetime.date(2023, 1, 1)}
    assert names(featurize(release_dates=listed)) == ["1aaa_A", "3ccc_A"]
    with pytest.raises(InputError, match="write it as YYYY-MM-DD"):
        featurize(date="1/1/2022")


def test_a_file_without_a_date_is_not_used(tmp_path):
    text = (DATA / "mmcif/1aaa.cif").read_text()
    (tmp_path / "1aaa.cif").write_text(text.replace("_pdbx_audit_revision_history.revision_date", "_x.y"))
    result = featurize([HITS[0]], folder=tmp_path)
    assert names(result) == []
    assert "gives no release date" in result.warnings[0]


def test_withdrawn_entries():
    result = featurize(obsolete={"2bbb": None, "1aaa": "3ccc"})
    assert names(result) == ["3ccc_A"]
    assert result.warnings[0] == "2bbb_A: withdrawn from the PDB"
    assert result.errors == ["1aaa_A: the sequence in its file is less than 90 % identical to the hit's"]


def test_filters():
    short = replace(HITS[0], hit_sequence="AQEIMTQNV")
    few = replace(HITS[0], aligned_cols=3)
    itself = replace(HITS[0], hit_sequence=QUERY)
    for hit in (short, few, itself):
        result = featurize([hit])
        assert (names(result), result.errors, result.warnings) == ([], [], [])


def test_another_version_of_the_sequence_is_aligned_anew():
    plain = featurize([HITS[0]])
    # The file has AQEIMTQNVVTIR...: one letter of 30 differs, the residues stay where they were.
    other = replace(HITS[0], hit_sequence=HITS[0].hit_sequence.replace("IMTQ", "IWTQ"))
    result = featurize([other])
    assert result.warnings == ["1aaa_A: its file has a sequence other than the hit's; aligned anew"]
    for name in ("template_all_atom_positions", "template_all_atom_masks", "template_sequence"):
        np.testing.assert_array_equal(result.features[name], plain.features[name])


@pytest.mark.parametrize("tag", ["GSHM", "VGSSHHHHHHSSGLVPRGSH"])
def test_residues_that_the_file_lacks_have_no_partner(tag):
    """A tag before the chain's own residues, which its file does not have, moves nothing."""
    query = "VL" + QUERY

    def found(tag):
        hit = replace(
            HITS[0],
            query="-" * len(tag) + query + "--",
            hit_sequence=tag + query + "EP",
            indices_query=[-1] * len(tag) + list(range(len(query))) + [-1, -1],
            indices_hit=list(range(len(tag) + len(query) + 2)),
        )
        return featurize([hit], query)

    plain, tagged = found(""), found(tag)
    assert plain.warnings == []
    assert tagged.warnings == ["1aaa_A: its file has a sequence other than the hit's; aligned anew"]
    assert plain.features["template_sequence"].tolist() == [query.encode()]
    for name, array in plain.features.items():
        np.testing.assert_array_equal(tagged.features[name], array, err_msg=name)


def test_a_hit_without_residues():
    hit = replace(HITS[0], query="-" * 20, hit_sequence="A" * 20, indices_query=[-1] * 20)
    result = featurize([replace(hit, indices_hit=list(range(20)))])
    assert result.errors == ["1aaa_A: nothing of the query or of the structure is in the alignment"]


def test_an_empty_query():
    with pytest.raises(InputError, match="templates for an empty query"):
        featurize(query="")


def test_an_unknown_letter_matches_any():
    other = replace(HITS[0], hit_sequence=HITS[0].hit_sequence.replace("IMTQ", "IXTQ"))
    result = featurize([other])
    assert result.warnings == []
    plain = featurize([HITS[0]])
    letters = plain.features["template_sequence"][0].replace(b"IMTQ", b"IXTQ")
    assert result.features["template_sequence"][0] == letters
    np.testing.assert_array_equal(
        result.features["template_all_atom_positions"], plain.features["template_all_atom_positions"]
    )


def test_a_chain_of_another_name_with_the_same_sequence_serves():
    assert names(featurize([replace(HITS[0], name="1aaa_Z other")])) == ["1aaa_A"]


def test_hmmsearch_hits_keep_their_order_and_repeat_no_sequence():
    hits = parse_hmmsearch_a3m(QUERY, (DATA / "hmmsearch.a3m").read_text())
    result = featurize([hits[2], hits[0], hits[0], hits[1]])
    assert names(result) == ["3ccc_A", "1aaa_A", "2bbb_A"]
    assert result.features["template_sum_probs"].tolist() == [[0.0]] * 3


def test_missing_files(tmp_path):
    (tmp_path / "3ccc.cif").write_text((DATA / "mmcif/3ccc.cif").read_text())
    result = featurize(folder=tmp_path)
    assert names(result) == ["3ccc_A"]
    assert (result.errors, result.warnings) == (
        [],
        [
            f"{tmp_path} lacks the mmCIF files of 2 hits, left out: 2bbb_A, 1aaa_A; fetch them for the "
            "best templates"
        ],
    )
    (tmp_path / "3ccc.cif").write_text("data_x\n_pdbx_audit_revision_history.revision_date 2010-01-01\n")
    assert "no atoms in it" in featurize([HITS[2]], folder=tmp_path).warnings[0]


def test_a_name_that_is_no_pdb_chain():
    with pytest.raises(InputError, match="must begin with a PDB id and chain"):
        featurize([replace(HITS[0], name="PF00001")])


REAL = Path(os.environ.get("PARAFOLD_DATA", "/nonexistent")) / "openfold_2q_short"


@pytest.mark.skipif(not REAL.is_dir(), reason="PARAFOLD_DATA does not point to the folder of real structures")
def test_features_of_a_real_search_equal_those_that_alphafold_made():
    from parafold.features import read_features_pickle

    published = read_features_pickle(REAL / "alphafold_feature_dict.pickle").arrays
    query = published["sequence"][0].decode()
    hits = parse_hhr((REAL / "alignments/pdb70_hits.hhr").read_text())
    result = featurize(hits, query, folder=REAL / "mmcifs")
    # The folder lacks one of the entries.
    assert result.errors == []
    assert "lacks the mmCIF files of 1 hit, left out: 1HF9_B;" in result.warnings[-1]
    kept = [i for i, name in enumerate(published["template_domain_names"]) if name != b"1hf9_B"]
    assert len(kept) == 7
    for name, ours in result.features.items():
        np.testing.assert_array_equal(
            ours, np.asarray(published[name])[kept].astype(ours.dtype), err_msg=name
        )
