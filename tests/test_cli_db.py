"""`parafold db` and what `parafold doctor` says of databases, run for real."""

import gzip
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from parafold.cli import app

FASTA = b"".join(b">r%d\n%s\n" % (i, b"ACDEFGHIKLMNPQRSTVWY" * 3) for i in range(1200))


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path / "data" / "parafold"


@pytest.fixture
def uniref90(tmp_path: Path) -> Path:
    path = tmp_path / "uniref90.fasta"
    path.write_bytes(FASTA)
    return path


def run(*arguments: str | Path, expected: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == expected, result.output
    return result


def refused(*arguments: str | Path) -> str:
    (line,) = run("db", *arguments, expected=2).stderr.splitlines()
    return line


def test_help():
    for command in ([], ["add"], ["verify"], ["shard"], ["list"], ["remove"]):
        assert "--help" in run("db", *command, "--help").output


def test_add_list_verify_remove(uniref90: Path, data_folder: Path):
    assert "No database is registered" in run("db", "list").stdout
    added = run("db", "add", uniref90, "--max-hits", "7").stdout.splitlines()
    assert added == [
        f"uniref90: 1,200 sequences, {len(FASTA) / 1000:.1f} kB, {uniref90}",
        f"Registered in {data_folder / 'databases.toml'}",
    ]
    (title, row) = run("db", "list").stdout.splitlines()
    assert title.split() == ["name", "kind", "sequences", "rows", "state", "path"]
    assert row.split() == ["uniref90", "uniref90", "1,200", "7", "as", "added", str(uniref90)]
    assert run("db", "verify").stdout == "uniref90: unchanged\n"
    full = run("db", "verify", "uniref90", "--full").stdout
    assert full == "uniref90: unchanged, 1,200 sequences, 72,000 residues\n"
    run("db", "remove", "uniref90")
    assert "No database is registered" in run("db", "list").stdout
    assert uniref90.exists()


def test_options_of_add(uniref90: Path):
    run("db", "add", uniref90, "--name", "mgnify_new", "--z", "99")
    run("db", "add", uniref90, "--kind", "uniprot", "--max-hits", "0")
    rows = [line.split() for line in run("db", "list").stdout.splitlines()[1:]]
    assert [row[:4] for row in rows] == [
        ["mgnify_new", "mgnify", "1,200", "501"],
        ["uniref90", "uniprot", "1,200", "all"],
    ]
    manifest = (
        run("db", "list") and (Path(os.environ["XDG_DATA_HOME"]) / "parafold/databases.toml").read_text()
    )
    assert "z = 99" in manifest


def test_a_changed_database(uniref90: Path):
    run("db", "add", uniref90)
    uniref90.write_bytes(FASTA + b">x\nACD*\n>y\n>z\nACD\n")
    assert "changed: size" in run("db", "list").stdout
    assert "size" in refused("verify")
    assert "has changed since it was added" in refused(
        "shard", "uniref90", "-n", "2", "--to", uniref90.parent / "s"
    )
    assert "changed: size" in run("doctor").stdout
    assert "1,203 sequences" in run("db", "add", "uniref90").stdout
    told = run("db", "verify", "--full").stdout
    assert "1 records without residues, 1 sequences with '*'" in told
    assert re.search(r"database uniref90 +\S+ kB, ", run("doctor").stdout)


def test_verify_goes_on_after_a_failure(uniref90: Path, tmp_path: Path):
    other = tmp_path / "mgnify.fasta"
    other.write_bytes(FASTA)
    run("db", "add", uniref90, other)
    uniref90.unlink()
    result = run("db", "verify", expected=2)
    assert result.stdout == "mgnify: unchanged\n"
    assert str(uniref90) in result.stderr and len(result.stderr.splitlines()) == 1
    assert "missing" in run("db", "list").stdout


@pytest.mark.parametrize("packed", [False, True])
def test_shard(uniref90: Path, tmp_path: Path, packed: bool):
    if packed:
        path = tmp_path / "uniref90.fasta.gz"
        path.write_bytes(gzip.compress(FASTA))
        uniref90.unlink()
        uniref90 = path
    told = run("db", "shard", uniref90, "--shards", "4", "--to", tmp_path / "shards", "--add", "u4").stdout
    files = sorted((tmp_path / "shards").glob("uniref90.fasta-0000?-of-00004"))
    assert len(files) == 4 and b"".join(file.read_bytes() for file in files) == FASTA
    assert f"4 shards in {tmp_path / 'shards'}" in told
    assert "--databases u4" in told and "u4: 1,200 sequences" in told
    assert run("db", "verify", "u4", "--full").stdout.startswith("u4: unchanged, 1,200 sequences")


def test_more_shards_than_records(tmp_path: Path):
    (tmp_path / "x.fasta").write_bytes(b">a\nACDEF\n>b\nACDEF\n>c\nACDEF\n")
    told = run("db", "shard", tmp_path / "x.fasta", "-n", "50", "--to", tmp_path).stdout
    assert f"3 shards (there are no more records, 50 were asked for) in {tmp_path}" in told
    assert f"--databases {tmp_path / 'x.fasta@3'}" in told


def test_a_data_dir_of_alphafold(tmp_path: Path):
    for name in ("uniref90/uniref90.fasta", "mgnify/mgy_clusters_2022_05.fa", "uniprot/uniprot.fasta",
                 "small_bfd/bfd-first_non_consensus_sequences.fasta"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(FASTA)
    run("db", "add", "--data-dir", tmp_path)
    names = [line.split()[0] for line in run("db", "list").stdout.splitlines()[1:]]
    assert names == ["uniref90", "small_bfd", "mgnify", "uniprot"]
    assert "BFD with UniRef30" in refused("add", "--data-dir", tmp_path, "--preset", "full_dbs")


def test_errors_are_one_line(uniref90: Path, tmp_path: Path):
    (tmp_path / "bad.fasta").write_bytes(b"<html>")
    assert "bad.fasta" in refused("add", tmp_path / "bad.fasta")
    assert "absent.fasta" in refused("add", tmp_path / "absent.fasta")
    assert "--data-dir" in refused("add")
    assert "--name" in refused("add", uniref90, tmp_path, "--name", "x")
    assert "absent" in refused("verify", "absent")
    assert "absent" in refused("remove", "absent")
    assert "absent" in refused("shard", "absent", "-n", "2", "--to", tmp_path / "s")
    assert "holds 2 databases" in refused("shard", tmp_path, "-n", "2", "--to", tmp_path / "s")


def test_registered_names_are_databases_of_a_search(uniref90: Path, tmp_path: Path):
    query = tmp_path / "query.fasta"
    query.write_bytes(b">q\n" + b"ACDEFGHIKLMNPQRSTVWY" * 3 + b"\n")
    run("db", "add", uniref90)
    run(
        "msa",
        query,
        "-d",
        "uniref90",
        "-o",
        tmp_path / "out",
        "--executor",
        "serial",
        "--cache",
        tmp_path / "cache",
    )
    assert len(list((tmp_path / "out").rglob("*.a3m"))) >= 1
    uniref90.write_bytes(FASTA[:-70])
    told = run(
        "msa", query, "-d", "uniref90", "-o", tmp_path / "out2", "--executor", "serial", expected=2
    ).stderr
    assert "has changed since it was added" in told
