"""hhblits with AlphaFold's flags gives the rows that the program itself writes with them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine_runs import QUERIES, aligned_columns, data_folder, engine_or_skip, found, real_queries

from parafold.errors import SearchError
from parafold.msa import Database, demo_databases
from parafold.msa.engines import make_engine
from parafold.msa.shards import whole

ALPHAFOLD = ["-n", "3", "-e", "0.001", "-maxseq", "1000000", "-realign_max", "100000"]
ALPHAFOLD += ["-maxfilt", "100000", "-min_prefilter_hits", "1000"]
# Debian's wrapper of cstranslate does not find its program.
CSTRANSLATE = "/usr/libexec/hhsuite/cstranslate-plain"


@pytest.fixture
def hhblits():
    return engine_or_skip("hhblits")


@pytest.fixture(scope="module")
def databases(tmp_path_factory) -> tuple[Path, Path]:
    """Prefixes of two HH-suite databases, one family each, made of demonstration alignments."""
    if shutil.which("hhblits") is None or not Path(CSTRANSLATE).exists():
        pytest.skip("Debian's hhsuite is not installed")
    folder = tmp_path_factory.mktemp("hhsuite")
    return make_database(folder, "protein_g"), make_database(folder, "crambin")


def make_database(folder: Path, family: str) -> Path:
    def run(*command: str | Path, cwd: Path = folder) -> None:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True)

    query = QUERIES[family]
    rows = [row for database in demo_databases() for row in found(make_engine("pyhmmer"), query, database)]
    prefix = folder / family
    for kind in ("a3m", "hhm"):
        (folder / kind).mkdir(exist_ok=True)
    alignment = folder / "a3m" / family
    text = "".join(f">{row.description}\n{row.row}\n" for row in rows)
    alignment.write_text(f">{family}\n{query}\n{text}")
    run("hhmake", "-i", alignment, "-o", folder / "hhm" / family)
    for kind in ("a3m", "hhm"):
        ending = f"{prefix}_{kind}"
        # An entry is named as its file is given, by 32 letters at most.
        run("ffindex_build", "-as", f"{ending}.ffdata", f"{ending}.ffindex", family, cwd=folder / kind)
    libraries = Path("/usr/share/hhsuite/data")
    models = ["-A", libraries / "cs219.lib", "-D", libraries / "context_data.lib"]
    contents = ["-i", f"{prefix}_a3m", "-o", f"{prefix}_cs219", "-I", "a3m"]
    run(CSTRANSLATE, "-f", "-b", "-x", "0.3", "-c", "4", *contents, *models)
    return prefix


def by_the_program(folder: Path, query: str, *prefixes: Path) -> list[tuple[str, str]]:
    """The rows below the query that AlphaFold's own command writes."""
    (folder / "query.fasta").write_text(f">query\n{query}\n")
    databases = [word for prefix in prefixes for word in ("-d", str(prefix))]
    files = ["-i", "query.fasta", "-oa3m", "out.a3m", "-o", "/dev/null", "-cpu", "1"]
    subprocess.run(["hhblits", *files, *ALPHAFOLD, *databases], cwd=folder, check=True, capture_output=True)
    lines = (folder / "out.a3m").read_text().splitlines()[2:]
    return [(name[1:], row) for name, row in zip(lines[::2], lines[1::2], strict=True)]


def test_demo_families_as_by_the_program(hhblits, databases, tmp_path):
    first, _ = databases
    query = QUERIES["protein_g"]
    rows = found(hhblits, query, Database("bfd", first))
    assert [(row.description, row.row) for row in rows] == by_the_program(tmp_path, query, first)
    assert len(rows) > 20
    assert all(aligned_columns(row.row) == len(query) for row in rows)
    assert found(hhblits, QUERIES["crambin"], Database("bfd", first)) == []


def test_two_databases_in_one_run(hhblits, databases, tmp_path):
    first, second = databases
    both = Database("bfd", first, also=(second,))
    # Both families in one chain, so that either database alone gives less.
    query = QUERIES["protein_g"] + "GSGS" + QUERIES["crambin"]
    rows = found(hhblits, query, both)
    assert [(row.description, row.row) for row in rows] == by_the_program(tmp_path, query, first, second)
    assert len(rows) > len(found(hhblits, query, Database("bfd", first)))
    (chunk,) = hhblits.search({0: hhblits.prepare(query)}, both, whole(both), 1 << 30)
    assert (chunk.sequences, chunk.residues) == (2, len(QUERIES["protein_g"]) + len(QUERIES["crambin"]))


def test_real_families_as_by_the_program(hhblits, tmp_path):
    prefix = data_folder() / "mini_pdb70" / "mini"
    queries = real_queries(["PF00249_1GUU_A", "PF08666_1UCS_A"])
    for query in queries.values():
        rows = found(hhblits, query, Database("mini", prefix))
        assert [(row.description, row.row) for row in rows] == by_the_program(tmp_path, query, prefix)
        assert len(rows) > 5


def test_missing_files_are_named_at_the_start(hhblits, databases, tmp_path):
    copy = tmp_path / "copy"
    for path in databases[0].parent.glob("protein_g_*"):
        shutil.copy(path, tmp_path / path.name.replace("protein_g", "copy"))
    hhblits.check(Database("bfd", copy))
    with pytest.raises(SearchError, match=r"none_cs219\.ffdata is missing"):
        hhblits.check(Database("bfd", copy, also=(tmp_path / "none",)))
    for name in ("copy_cs219.ffindex", "copy_a3m.ffdata"):
        hidden = (tmp_path / name).rename(tmp_path / "hidden")
        with pytest.raises(SearchError, match=rf"{name} is missing"):
            hhblits.check(Database("bfd", copy))
        hidden.rename(tmp_path / name)
    with pytest.raises(SearchError, match="format fasta, which the engine hhblits does not read"):
        hhblits.check(demo_databases()[0])


def test_a_damaged_database_is_named(hhblits, databases, tmp_path):
    for path in databases[0].parent.glob("protein_g_*"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "protein_g_cs219.ffindex").write_text("no index\n")
    database = Database("bfd", tmp_path / "protein_g")
    with pytest.raises(SearchError, match=r"protein_g_cs219\.ffindex: is not an index"):
        found(hhblits, QUERIES["protein_g"], database)
    (tmp_path / "protein_g_cs219.ffindex").write_text("protein_g\t0\t56\n")
    (tmp_path / "protein_g_a3m.ffdata").write_bytes(b"no alignment")
    (tmp_path / "protein_g_hhm.ffdata").write_bytes(b"no profile")
    with pytest.raises(SearchError, match=r"searching .*protein_g: hhblits (failed|was killed)"):
        found(hhblits, QUERIES["protein_g"], database)


def test_limits_of_time_and_memory(databases):
    database = Database("bfd", databases[0])
    with pytest.raises(SearchError, match="hhblits was stopped after"):
        found(make_engine("hhblits", timeout=0.001), QUERIES["protein_g"], database)
    if sys.platform != "darwin":
        with pytest.raises(SearchError, match=r"searching .*: hhblits .*memory"):
            found(make_engine("hhblits"), QUERIES["protein_g"], database, memory=60 << 20)


def test_a_missing_program_is_named_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SearchError, match=r"hhblits is not installed.*apt install hhsuite"):
        make_engine("hhblits").check(Database("bfd", tmp_path / "bfd"))


def test_engine_travels_as_name_and_options():
    engine = make_engine("hhblits", cpu=4, timeout=10.0)
    copy = make_engine(engine.name, **json.loads(json.dumps(dict(engine.options))))
    assert copy.options == engine.options and json.dumps(dict(copy.parameters))
    with pytest.raises(SearchError, match="cpu is 0"):
        make_engine("hhblits", cpu=0)
