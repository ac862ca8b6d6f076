"""Targets are read from three dialects; each kind of bad input gets one line with file, line and remedy."""

import gzip
import json
import os

import pytest

from parafold.errors import InputError
from parafold.protein.sequence import MAX_RESIDUES, Chain, FoldInput, chain_id, read_inputs, safe_name


@pytest.fixture
def write(tmp_path):
    def write(content, name="T.fasta"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def alphafold3(*sequences, **fields):
    return json.dumps({"name": "job", "modelSeeds": [1], "sequences": list(sequences), "version": 1} | fields)


def test_each_record_is_a_target_and_colons_part_chains(write):
    first, second = read_inputs(write(">T1 a protein\nmkv\r\nA A*\n\n>T2\nMKV:\nMKV:GG\n"))
    assert first == FoldInput("T1", (Chain("A", "MKVAA", "T1 a protein"),))
    assert (len(first), first.is_complex) == (5, False)
    assert second.sequences == ("MKV", "MKV", "GG")
    assert second.unique_sequences == ("MKV", "GG")
    assert [chain.id for chain in second.chains] == ["A", "B", "C"]
    assert (len(second), second.is_complex) == (8, True)


def test_alphafold_dialect_makes_one_target_of_the_file(write):
    (target,) = read_inputs(write(">one\nMKV\n>two\nGG\n", "my complex.fasta"), "alphafold")
    assert target.name == "my_complex"
    assert [(chain.id, chain.sequence, chain.description) for chain in target.chains] == [
        ("A", "MKV", "one"),
        ("B", "GG", "two"),
    ]


def test_alphafold3_json(write):
    text = alphafold3(
        {"protein": {"id": ["H", "L"], "sequence": "MKV", "modifications": [], "templates": None}},
        {"protein": {"id": "P", "sequence": "ggx", "description": "peptide"}},
        name="My job/1",
    )
    (target,) = read_inputs(write(text, "in.json"))
    assert target.name == "My_job_1"
    assert [(chain.id, chain.sequence) for chain in target.chains] == [
        ("H", "MKV"),
        ("L", "MKV"),
        ("P", "GGX"),
    ]
    assert target.chains[2].description == "peptide"


def test_server_json_is_a_list_of_jobs_with_counts(write):
    job = {"name": "j", "sequences": [{"proteinChain": {"sequence": "MKV", "count": 2}}]}
    jobs = read_inputs(write(json.dumps([job, job]), "in.txt"))
    assert [job.name for job in jobs] == ["j", "j_2"]
    assert [(chain.id, chain.sequence) for chain in jobs[0].chains] == [("A", "MKV"), ("B", "MKV")]


def test_names_are_distinct_safe_file_names(write):
    headers = ["a", "A", "a", "a_2", "sp|P1|X_Y desc", "../etc", "", "-rf", "é"]
    path = write("".join(f">{header}\nMKV\n" for header in headers), "f.fasta")
    names = [target.name for target in read_inputs(path)]
    assert names == ["a", "A_2", "a_3", "a_2_2", "sp_P1_X_Y", "_etc", "f", "rf", "f_2"]
    assert safe_name("x" * 500) == "x" * 80


def test_chain_ids_go_on_after_z():
    assert [chain_id(i) for i in (0, 25, 26, 27, 51, 52, 702)] == ["A", "Z", "AA", "BA", "ZA", "AB", "AAA"]


BAD_FASTA = {
    "empty": (b"", "T.fasta is empty"),
    "blank": (b" \n\n", "T.fasta is empty"),
    "gzip": (gzip.compress(b">a\nMKV\n"), "T.fasta is gzip-compressed; unpack it first: gunzip"),
    "zip": (b"PK\x03\x04....", "T.fasta is zip-compressed"),
    "binary": (b">a\nMK\x00V\n", "T.fasta is a binary file"),
    "html": (b"\n<!DOCTYPE html>\n<html>", "T.fasta is a web page"),
    "utf16": (">a\nMKV\n".encode("utf-16"), "T.fasta is UTF-16 text; save it as UTF-8"),
    "latin1": (b">a\nMKV\n>\xe9t\xe9\nMKV\n", "T.fasta line 3: not UTF-8 text"),
    "no header": (b"MKV\n", "T.fasta line 1: sequence without a header; put a line '>NAME' above it"),
    "comments only": (b"# nothing\n", "T.fasta: no sequence in it"),
    "no sequence": (b">a\n>b\nMKV\n", "T.fasta line 1: the sequence has no residues, at least 2"),
    "one residue": (b">a\nMKV\n>b\nM\n", "T.fasta line 3: the sequence has 1 residue, at least 2"),
    "empty chain": (b">a\nMKV::GG\n", "T.fasta line 1: chain 2 of 3 has no residues, at least 2"),
    "J": (b">a\nMKV\n>b\nMKV\nMJV\n", "T.fasta line 5: 'J' is not an amino acid; replace it by X"),
    "u": (b">a\nMKu\n", "T.fasta line 2: 'U' is not an amino acid; replace it by X"),
    "foreign letter": (">a\nMK\u00df\n".encode(), "T.fasta line 2: '\u00df' is not an amino acid"),
    "digit": (b">a\n1 MKV\n", "T.fasta line 2: '1' is not an amino acid; remove it"),
    "gap": (b">a\nMK-V\n", "T.fasta line 2: '-' is a gap"),
    "stop inside": (b">a\nMK*V\n", r"T.fasta line 2: '\*' \(stop\) inside"),
    "too long": (
        b">a\n" + b"A" * 100_000,
        "T.fasta line 1: a: 100,000 residues, more than the limit of 16,384",
    ),
}


@pytest.mark.parametrize("case", BAD_FASTA)
def test_bad_fasta(case, write):
    content, message = BAD_FASTA[case]
    with pytest.raises(InputError, match=message) as caught:
        read_inputs(write(content))
    assert "\n" not in str(caught.value)


BAD_JSON = {
    "broken": ('{"name": "x",\n "sequences": [}', "in.json line 2: broken JSON"),
    "not a job": ('{"a": 1}', "in.json: not an AlphaFold 3 input"),
    "empty list": ("[]", "in.json: an empty list"),
    "deep": ("[" * 100_000, "in.json: JSON nested too deeply"),
    "no sequences": (alphafold3(), "in.json: 'sequences' must be a list"),
    "ligand": (
        alphafold3({"protein": {"id": "A", "sequence": "MKV"}}, {"ligand": {"id": "B", "ccdCodes": ["ATP"]}}),
        "in.json, sequence 2 is a 'ligand'; AlphaFold 2 folds proteins only, remove it",
    ),
    "rna": (alphafold3({"rna": {"id": "A", "sequence": "ACGU"}}), "in.json, sequence 1 is a 'rna'"),
    "modified": (
        alphafold3({"protein": {"id": "A", "sequence": "MKV", "modifications": [{"ptmType": "SEP"}]}}),
        "in.json, sequence 1: 'modifications' is not supported",
    ),
    "own alignment": (
        alphafold3({"protein": {"id": "A", "sequence": "MKV", "unpairedMsa": ""}}),
        "in.json, sequence 1: 'unpairedMsa' is not supported",
    ),
    "bonds": (
        alphafold3({"protein": {"id": "A", "sequence": "MKV"}}, bondedAtomPairs=[[["A", 1, "SG"]]]),
        "in.json: 'bondedAtomPairs' is not supported",
    ),
    "same id": (
        alphafold3({"protein": {"id": ["A", "A"], "sequence": "MKV"}}),
        "in.json: job: two chains have the same id",
    ),
    "id": (
        alphafold3({"protein": {"id": 5, "sequence": "MKV"}}),
        "in.json, sequence 1: 'id' must be letters",
    ),
    "count": (
        alphafold3({"protein": {"count": 0, "sequence": "MKV"}}),
        "in.json, sequence 1: 'count' must be a whole number",
    ),
    "letter": (
        alphafold3({"protein": {"id": "A", "sequence": "MBV"}}),
        "in.json, sequence 1: 'B' is not an amino",
    ),
    "sequence": (alphafold3({"protein": {"id": "A"}}), "in.json, sequence 1: 'sequence' must be a text"),
    "entry": (alphafold3("MKV"), "in.json, sequence 1: expected"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json(case, write):
    content, message = BAD_JSON[case]
    with pytest.raises(InputError, match=message):
        read_inputs(write(content, "in.json"))


def test_one_bad_record_does_not_stop_the_others(write):
    seen = []
    path = write(">a\nMKV\n>bad one\nMJV\n>long\n" + "A" * (MAX_RESIDUES + 1) + "\n>c\nGG\n")
    targets = read_inputs(path, on_error=lambda name, error: seen.append((name, str(error))))
    assert [target.name for target in targets] == ["a", "c"]
    assert [name for name, _ in seen] == ["bad", "long"]
    assert seen[0][1].endswith("T.fasta line 4: 'J' is not an amino acid; replace it by X")


def test_a_broken_file_is_raised_even_with_on_error(write):
    with pytest.raises(InputError, match="no sequence in it"):
        read_inputs(write("#\n"), on_error=lambda name, error: None)


def test_missing_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"x\.fasta: no such file"):
        read_inputs(tmp_path / "x.fasta")
    with pytest.raises(InputError, match="is a folder"):
        read_inputs(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_inputs(tmp_path / ("x" * 5000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(write):
    path = write(">a\nMKV\n")
    path.chmod(0)
    with pytest.raises(InputError, match="not allowed to read it"):
        read_inputs(path)


def test_dialect(write):
    path = write(">a\nMKV:GG\n")
    with pytest.raises(
        InputError, match=r"T\.fasta line 2: ':' separates chains in the dialect colabfold only"
    ):
        read_inputs(path, "alphafold")


def test_unknown_dialect(write, unchecked):
    path = write(">a\nMKV:GG\n")
    with pytest.raises(InputError, match="dialect 'rosetta' is not known"):
        read_inputs(path, "rosetta")


def test_targets_made_by_hand_are_checked_too():
    with pytest.raises(InputError, match="chain A: 'Z' is not an amino acid"):
        Chain("A", "MZ")
    with pytest.raises(InputError, match="t: no chains"):
        FoldInput("t", ())
