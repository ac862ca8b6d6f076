"""Alignments are parsed and edited exactly as the published AlphaFold does."""

import json
from pathlib import Path

import numpy as np
import pytest

from parafold.protein import alignment

DATA = Path(__file__).parent / "oracle/data"
REFERENCE = json.loads((DATA / "data.json").read_text())

EDITS = {
    "convert_stockholm_to_a3m": alignment.convert_stockholm_to_a3m,
    "convert_stockholm_to_a3m_max5": lambda text: alignment.convert_stockholm_to_a3m(text, max_sequences=5),
    "deduplicate_stockholm_msa": alignment.deduplicate_stockholm,
    "remove_empty_columns_from_stockholm_msa": alignment.remove_empty_columns_from_stockholm,
    "truncate_stockholm_msa_6": lambda text: alignment.truncate_stockholm(text, 6),
}


def cases(prefix):
    return [key for key in REFERENCE if key.partition("/")[0] == prefix]


@pytest.mark.parametrize("key", cases("parse"))
def test_parsed_alignment(key):
    path = DATA / key.partition("/")[2]
    parse = alignment.parse_a3m if path.suffix == ".a3m" else alignment.parse_stockholm
    msa = parse(path.read_text(), path.name)
    expected = REFERENCE[key]
    assert msa.sequences == expected["sequences"]
    assert msa.descriptions == expected["descriptions"]
    assert msa.deletions.dtype == np.int32
    np.testing.assert_array_equal(msa.deletions, expected["deletion_matrix"])


@pytest.mark.parametrize("key", [key for name in EDITS for key in cases(name)])
def test_edited_stockholm(key):
    name, _, file = key.partition("/")
    assert EDITS[name]((DATA / file).read_text()) == REFERENCE[key]


def test_no_reference_is_left_out():
    names = {key.partition("/")[0] for key in REFERENCE if "stockholm" in key or key.startswith("parse/")}
    assert names == set(EDITS) | {"parse"}


def test_species():
    assert {name: alignment.species_id(name) for name in REFERENCE["species_ids"]} == REFERENCE["species_ids"]


def test_fasta():
    sequences, descriptions = REFERENCE["parse_fasta"]["out"]
    records = list(alignment.fasta_records(REFERENCE["parse_fasta"]["text"], "text"))
    assert [sequence for _, _, sequence in records] == sequences
    assert [name for _, name, _ in records] == descriptions
