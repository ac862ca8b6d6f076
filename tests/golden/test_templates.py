"""Template hits are read and turned into features exactly as the published AlphaFold does."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from parafold.protein.alignment import parse_a3m
from parafold.templates import featurize_hits, parse_hhr, parse_hmmsearch_a3m
from parafold.templates.hits import iterate_hmmsearch_a3m

DATA = Path(__file__).parent / "oracle/data"
REFERENCE = json.loads((DATA / "data.json").read_text())
QUERY = parse_a3m((DATA / "bfd.a3m").read_text()).sequences[0]


def test_hhr():
    assert [asdict(hit) for hit in parse_hhr((DATA / "hits.hhr").read_text())] == REFERENCE["parse_hhr"]


def test_hmmsearch():
    hits = parse_hmmsearch_a3m(QUERY, (DATA / "hmmsearch.a3m").read_text())
    assert [asdict(hit) for hit in hits] == REFERENCE["parse_hmmsearch_a3m"]


@pytest.fixture(scope="module")
def result():
    return featurize_hits(QUERY, parse_hhr((DATA / "hits.hhr").read_text()), DATA / "mmcif", "2022-01-01", 20)


def test_features(result):
    with np.load(DATA / "template_features.npz") as expected:
        assert set(result.features) == set(expected.files)
        for name in expected.files:
            assert result.features[name].shape == expected[name].shape
            assert result.features[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(result.features[name], expected[name], err_msg=name)


def test_messages(result):
    assert (result.errors, result.warnings) == (REFERENCE["template_errors"], REFERENCE["template_warnings"])


def test_features_are_those_that_the_published_features_hold(result):
    with np.load(DATA / "tf_raw_features.npz") as expected:
        for name, array in result.features.items():
            np.testing.assert_array_equal(array, expected[name].astype(array.dtype), err_msg=name)


def test_hmmsearch_hits_one_by_one():
    hits = iterate_hmmsearch_a3m(QUERY, (DATA / "hmmsearch.a3m").read_text())
    assert [asdict(hit) for hit in hits] == REFERENCE["parse_hmmsearch_a3m"]
