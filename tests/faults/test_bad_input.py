"""Every wrong input ends in one line that names the file, with exit code 2 and no traceback."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import small
from typer.testing import CliRunner

from parafold.cli import app

SEQUENCE = "NLYIQWLKDGGPSSGRPPPS"
FASTA = f">T1\n{SEQUENCE}\n"


def refused(*arguments: str | Path) -> str:
    """The one line that `parafold fold` writes to stderr."""
    result = CliRunner().invoke(app, ["fold", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "T1.fasta"
    path.write_text(FASTA)
    return path


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", ""),
        (b"\n \n", ""),
        (bytes(range(256)) * 4, ""),
        (b"\x7fELF\x02\x01\x01\x00", ""),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", ""),
        (gzip.compress(FASTA.encode()), ""),
        (SEQUENCE.encode(), "line 1"),
        (b">T1\n", "line 1"),
        (b">T1\nM\n", "line"),
        (b">T1\nACDEF\nACJDE\n", "line 3"),
        (b">T1\nACDEF1\n", "line 2"),
        ("﻿>T1\nACDÉF\n".encode(), "line 2"),
        (b">T1\nACDEF::GHIKL\n", "line"),
        (b">T1\n" + b"ACDEFGHIKL" * 10_000 + b"\n", "100,000"),
    ],
    ids=[
        "empty",
        "blank",
        "binary",
        "program",
        "html",
        "gzip",
        "no header",
        "no sequence",
        "one residue",
        "illegal residue",
        "digit",
        "letter of another alphabet",
        "empty chain",
        "100,000 residues",
    ],
)
def test_fasta(tmp_path: Path, content: bytes, where: str):
    path = tmp_path / "T1.fasta"
    path.write_bytes(content)
    line = refused(path, "-o", tmp_path / "out")
    assert "T1.fasta" in line and where in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', '{"name": "x", "sequences": [{"ligand": {}}]}'])
def test_json(tmp_path: Path, text: str):
    path = tmp_path / "job.json"
    path.write_text(text)
    assert "job.json" in refused(path, "-o", tmp_path / "out")


def test_files_that_are_not_there(tmp_path: Path, target: Path):
    assert "nowhere.fasta" in refused(tmp_path / "nowhere.fasta")
    assert "nowhere.safetensors" in refused(tmp_path / "nowhere.safetensors")
    assert str(tmp_path) in refused(tmp_path)
    assert "nowhere.a3m" in refused(target, "-o", tmp_path / "out", "--msa", tmp_path / "nowhere.a3m")
    assert "nowhere.cif" in refused(target, "-o", tmp_path / "out", "--template", f"{tmp_path}/nowhere.cif:A")
    assert "nowhere" in refused(target, "-o", tmp_path / "out", "--databases", tmp_path / "nowhere")
    assert "nowhere" in refused(target, "-o", tmp_path / "out", "--weights", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", ""),
        (FASTA.encode() + b">other\nNLYIQWLKDGGPS\n", "line 3"),
        (FASTA.encode() + b">other\n" + SEQUENCE.encode() + b"A\n", "line 3"),
        (FASTA.encode() + b">other\n", "line 3"),
        (FASTA.encode() + b">other\nNLYIQWLKDGGPSSGRPP1S\n", "line 3"),
        (SEQUENCE.encode(), "line 1"),
        (b">other\nACDEFGHIKL\n", "first sequence"),
        (gzip.compress(FASTA.encode()), ""),
        (b"\xff\xfe\x00", ""),
    ],
    ids=["empty", "truncated", "ragged", "no row", "digit", "no header", "other query", "gzip", "binary"],
)
def test_own_alignment(tmp_path: Path, target: Path, content: bytes, where: str):
    path = tmp_path / "mine.a3m"
    path.write_bytes(content)
    line = refused(target, "-o", tmp_path / "out", "--msa", path)
    assert "mine.a3m" in line and where in line


class Exploit:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_features_pickle_that_runs_a_program(tmp_path: Path):
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps({"msa": Exploit(tmp_path / "trap")}))
    assert "features.pkl" in refused(path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no features", np.arange(99).tobytes()])
@pytest.mark.parametrize("name", ["features.safetensors", "features.pkl"])
def test_damaged_features(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    assert name in refused(path, "-o", tmp_path / "out")


def test_truncated_and_changed_features(tmp_path: Path, features_file: Path):
    content = features_file.read_bytes()
    path = tmp_path / "features.safetensors"
    changed = content[:-5] + bytes([content[-5] ^ 255]) + content[-4:]
    for damaged in (content[: len(content) // 2], changed):
        path.write_bytes(damaged)
        assert "features.safetensors" in refused(path, "-o", tmp_path / "out")


@pytest.fixture
def features_file(tmp_path: Path) -> Path:
    from parafold.features import build, write_features
    from parafold.protein.sequence import Chain, FoldInput

    path = tmp_path / "sound" / "features.safetensors"
    write_features(path, build(FoldInput("T1", (Chain("A", SEQUENCE),)), {}))
    return path


def test_templates(tmp_path: Path, target: Path):
    path = tmp_path / "template.cif"
    path.write_text("not a structure")
    assert "template.cif" in refused(target, "-o", tmp_path / "out", "--template", f"{path}:A")
    pdb = tmp_path / "template.pdb"
    pdb.write_text("ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n")
    assert "B" in refused(target, "-o", tmp_path / "out", "--template", f"{pdb}:B")


def test_weights(tmp_path: Path, target: Path):
    path = tmp_path / "params_model_1_ptm.npz"
    path.write_bytes(b"not an archive")
    assert path.name in refused(target, "-o", tmp_path / "out", "--weights", path)
    np.savez(path, **{"alphafold/no_such_module//weights": np.zeros(3)})
    line = refused(target, "-o", tmp_path / "out", "--weights", path)
    assert path.name in line and "missing" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--models", "model_7"], "model_7"),
        (["--models", "model_1_multimer_v3,demo_multimer,"], "''"),
        (["--seeds", "1,x"], "1,x"),
        (["--seeds", "-1"], "-1"),
        (["--seeds", "2,2"], "2,2"),
        (["--config", "model.num_recycle"], "KEY=VALUE"),
        (["--config", "model.no_such_name=1"], "no_such_name"),
        (["--config", "model.num_recycle=many"], "many"),
        (["--max-length", "19"], "--max-length"),
    ],
)
def test_options(tmp_path: Path, target: Path, arguments: list[str], named: str):
    assert named in refused(target, "-o", tmp_path / "out", *arguments)


def test_a_bad_file_does_not_stop_the_good_one(tmp_path: Path, target: Path):
    bad = tmp_path / "bad.fasta"
    bad.write_text(">bad\nAC1\n")
    line = refused(bad, target, "-o", tmp_path / "out", *small.OPTIONS)
    assert "bad.fasta" in line
    assert (tmp_path / "out/T1/manifest.json").is_file()


def test_a_target_that_fails_does_not_stop_the_others(tmp_path: Path):
    path = tmp_path / "two.fasta"
    path.write_text(f">long\n{SEQUENCE * 3}\n{FASTA}")
    line = refused(path, "-o", tmp_path / "out", "--max-length", "40", *small.OPTIONS)
    assert "long" in line and "60 residues" in line
    assert (tmp_path / "out/T1/manifest.json").is_file()
    assert not (tmp_path / "out/long").exists()


def test_two_files_with_one_name(tmp_path: Path, target: Path):
    other = tmp_path / "other.fasta"
    other.write_text(FASTA)
    line = refused(target, other, "-o", tmp_path / "out", *small.OPTIONS)
    assert "other.fasta" in line and "T1" in line
    assert (tmp_path / "out/T1/manifest.json").is_file()
