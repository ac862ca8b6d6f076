"""hhsearch is run as AlphaFold runs it, and says what is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa import Database
from parafold.protein.alignment import fasta_records, parse_a3m
from parafold.templates import parse_hhr
from parafold.templates.search import find_templates, hhsearch, hhsearch_hhr

DATA = Path(os.environ.get("PARAFOLD_DATA", "/nonexistent"))
PREFIX = DATA / "mini_pdb70/mini"
ORACLE = Path(__file__).parents[1] / "golden/oracle/data"
needs_hhsearch = pytest.mark.skipif(
    shutil.which("hhsearch") is None and "CI" not in os.environ,
    reason="needs the program hhsearch: apt-get install hhsuite",
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="PARAFOLD_DATA does not point to real databases")


@pytest.fixture
def prefix(tmp_path):
    """The names of a database's files; nothing is in them."""
    for ending in ("a3m.ffdata", "a3m.ffindex", "hhm.ffdata", "hhm.ffindex", "cs219.ffdata", "cs219.ffindex"):
        (tmp_path / f"db_{ending}").touch()
    return tmp_path / "db"


@needs_hhsearch
@needs_data
@pytest.mark.parametrize("name", ["PF00018_2O9S_A", "PF00041_1TEN_A"])
def test_as_the_program_alone(name, tmp_path):
    """All hits are the program's, whether or not the letters of insertions are known."""
    text = "".join((DATA / f"msa30_a3m/{name}.a3m").read_text().partition(">")[1:])
    rows = list(dict.fromkeys(row for _, _, row in fasta_records(text, name)))[:300]
    distinct = {row.translate({code: None for code in range(97, 123)}): row for row in reversed(rows)}
    query, output = tmp_path / "query.a3m", tmp_path / "output.hhr"
    kept = [row for row in rows if row in distinct.values()]
    query.write_text("".join(f">{number}\n{row}\n" for number, row in enumerate(kept)))
    arguments = ["-i", query, "-o", output, "-maxseq", "1000000", "-d", PREFIX]
    subprocess.run(["hhsearch", *map(str, arguments)], check=True, capture_output=True)
    expected = parse_hhr(output.read_text())
    assert len(expected) >= 10
    # The database holds the query's own structure.
    assert max(expected, key=lambda hit: hit.sum_probs or 0).name.startswith(name[-6:-2].lower())
    assert hhsearch(rows, PREFIX) == expected
    msa = parse_a3m("".join(f">x\n{row}\n" for row in rows))
    assert hhsearch(msa, PREFIX, workers=1) == expected


@needs_hhsearch
@needs_data
def test_two_databases():
    query = "MKVLAAGWYCDEFGHIKLMNPQRST"
    once = hhsearch([query], PREFIX)
    assert len(hhsearch([query], [PREFIX, PREFIX])) >= len(once) > 0


@needs_hhsearch
@needs_data
def test_a_prefix_is_searched_with_hhsearch():
    """The database's structures are not among the files: all hits are left out with one warning."""
    text = (DATA / "msa30_a3m/PF00085_1FB0_A.a3m").read_text()
    msa = parse_a3m(text).truncate(50)
    database = Database("pdb70", PREFIX)
    result = find_templates(msa.sequences[0], msa, database, ORACLE / "mmcif", "2022-01-01")
    assert result.errors == []
    assert "lacks the mmCIF files of" in result.warnings[0]


def test_without_the_program(monkeypatch, prefix):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SearchError, match=r"hhsearch is not installed.*apt install hhsuite.*conda install"):
        hhsearch(["MKV"], prefix)


def test_without_the_database(tmp_path, prefix):
    with pytest.raises(SearchError, match="no database of profiles"):
        hhsearch(["MKV"], [])
    if shutil.which("hhsearch"):
        with pytest.raises(SearchError, match=r"none_a3m\.ffdata: no such file; give the prefix"):
            hhsearch(["MKV"], tmp_path / "none")
        prefix.with_name("db_cs219.ffindex").unlink()
        with pytest.raises(SearchError, match=r"db_cs219\.ffindex: no such file; give the prefix"):
            hhsearch(["MKV"], prefix)


def write_program(folder, script):
    folder.mkdir()
    program = folder / "hhsearch"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_arguments_and_failures(monkeypatch, prefix, tmp_path):
    """What the program is called with, and what is said when it fails."""
    echo = 'while [ "$1" != -o ]; do shift; done; out=$2; shift 2; echo "$@" > "$out"'
    monkeypatch.setenv("PATH", write_program(tmp_path / "echo", echo))
    assert hhsearch_hhr(["MKV"], [prefix, prefix], workers=3).split() == (
        f"-maxseq 1000000 -cpu 3 -d {prefix} -d {prefix}".split()
    )
    monkeypatch.setenv("PATH", write_program(tmp_path / "fails", "echo database is damaged >&2; exit 6"))
    with pytest.raises(
        SearchError, match=r"hhsearch of a query of 3 residues in .*db: .*database is damaged"
    ):
        hhsearch(["MKV"], prefix)
    monkeypatch.setenv("PATH", write_program(tmp_path / "silent", "exit 0"))
    with pytest.raises(SearchError, match="left no result"):
        hhsearch(["MKV"], prefix)
    monkeypatch.setenv("PATH", write_program(tmp_path / "slow", "sleep 60"))
    with pytest.raises(SearchError, match=r"stopped after 0\.2 seconds"):
        hhsearch(["MKV"], prefix, timeout=0.2)
