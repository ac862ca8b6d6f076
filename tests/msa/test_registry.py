import dataclasses
import gzip
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parafold.errors import OutputError, SearchError
from parafold.msa.database import Database
from parafold.msa.fasta import EMPTY, STARS
from parafold.msa.registry import Registry, databases_at, default_manifest, resolve, state
from parafold.msa.shards import write_shards

FASTA = b">a\nACDEFGHIKL\n>b\n\n>c x > y\nMNPQ*\nRSTVWY\n"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "manifest" / "databases.toml")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    path = tmp_path / "uniref90.fasta"
    path.write_bytes(FASTA)
    return Database("uniref90", path)


def test_what_was_added_is_read_back(registry: Registry, database: Database, tmp_path: Path):
    steps = []
    entry = registry.add(database, lambda done, total: steps.append((done, total)))
    assert entry.sequences == 3 and entry.database == dataclasses.replace(database, z=3)
    assert entry.added and abs((datetime.now(UTC) - entry.added).total_seconds()) < 60
    assert steps[-1] == (len(FASTA), len(FASTA))
    bfd = tmp_path / "bfd_a3m.ffdata"
    bfd.write_bytes(b"")
    (tmp_path / "u_a3m.ffdata").write_bytes(b"")
    registry.add(Database("mine", database.path, kind="mgnify", max_hits=None, z=99))
    registry.add(Database("bfd", tmp_path / "bfd", max_hits=17, also=(tmp_path / "u",)))
    again = Registry(registry.path)
    assert again.get("uniref90") == entry
    assert again.get("mine").database == Database("mine", database.path, "mgnify", None, 99)
    assert again.get("bfd").database == Database("bfd", tmp_path / "bfd", "bfd", 17, None, (tmp_path / "u",))
    assert again.get("bfd").sequences is None
    assert [found.name for found in again.databases()] == ["uniref90", "bfd", "mine"]
    again.remove("uniref90")
    assert [found.name for found in registry.databases()] == ["bfd", "mine"]
    assert database.path.exists()


@pytest.mark.parametrize("pack", [gzip.compress, "shards"])
def test_packed_files_and_shards_are_counted(registry: Registry, database: Database, tmp_path: Path, pack):
    if pack == "shards":
        database = write_shards(database, 2, tmp_path / "shards")
    else:
        database.path.write_bytes(pack(FASTA))
    assert registry.add(database).sequences == 3
    assert registry.verify("uniref90", full=True).sequences == 3


def test_names(registry: Registry, database: Database, tmp_path: Path):
    registry.add(database)
    assert registry.add(database).sequences == 3
    other = tmp_path / "other.fasta"
    other.write_bytes(FASTA)
    with pytest.raises(SearchError, match=re.escape(f"{database.path} is registered under this name")):
        registry.add(Database("uniref90", other))
    for name in ("", "a/b", "../x", ".hidden", "two words", "a@3"):
        with pytest.raises(SearchError, match="name begins with a letter or digit"):
            registry.add(Database(name, other))
    for use in (registry.get, registry.remove, registry.verify):
        with pytest.raises(SearchError, match="no database named absent; registered are uniref90"):
            use("absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no sequence"),
        (b"ACDEF", "holds no sequence"),
        (b"x\n>a\nACD\n", "line 1: unexpected char"),
    ],
)
def test_what_is_no_database_is_not_added(
    registry: Registry, database: Database, content: bytes, message: str
):
    database.path.write_bytes(content)
    with pytest.raises(SearchError, match=message):
        registry.add(database)
    assert registry.databases() == []


def test_a_changed_database_is_refused(registry: Registry, database: Database):
    registry.add(database)
    assert state(registry.get("uniref90")) == "as added"
    database.path.write_bytes(FASTA + b">d\nACD\n")
    told = f"has changed since it was added: size {len(FASTA)} -> {len(FASTA) + 7} bytes"
    for use in (lambda: resolve(["uniref90"], registry), lambda: registry.verify("uniref90")):
        with pytest.raises(SearchError, match=told):
            use()
    assert state(registry.get("uniref90")).startswith("changed: size")
    registry.add(database)
    assert resolve(["uniref90"], registry)[0].z == 4
    database.path.unlink()
    assert state(registry.get("uniref90")) == "missing"
    with pytest.raises(SearchError, match="cannot be read"):
        resolve(["uniref90"], registry)


def test_a_new_date_is_a_warning(registry: Registry, database: Database):
    registry.add(database)
    told: list[str] = []
    resolve(["uniref90"], registry, told.append)
    assert told == [] and registry.verify("uniref90").change == ""
    os.utime(database.path, ns=(1, 1))
    (found,) = resolve(["uniref90"], registry, told.append)
    assert found.path == database.path
    assert "date has changed" in told[0] and len(told) == 1
    assert registry.verify("uniref90").change == "date"
    assert resolve(["uniref90"], registry)


def test_the_full_check_reads_everything(registry: Registry, database: Database):
    registry.add(database)
    steps = []
    verified = registry.verify("uniref90", True, lambda done, total: steps.append((done, total)))
    assert (verified.sequences, verified.residues) == (3, 21)
    assert verified.warnings == {EMPTY: 1, STARS: 1}
    assert steps[-1] == (len(FASTA), len(FASTA))


def large(defect: bytes) -> bytes:
    record = b">r\n" + b"ACDEFGHIKLMNPQRSTVWY" * 50 + b"\n"
    return record * 3000 + defect + record * 3000


def test_what_samples_miss_the_full_check_finds(registry: Registry, database: Database):
    """Changes in place between two sampled blocks, under the old date."""
    for before, after, told in (
        (b">x\nACDEF\n", b">x\nAC1EF\n", "line 6002: illegal character 1"),
        (b">x\nACD\n>y\nACDEF\n", b">x\nACD\n\nY\nACDEF\n", "holds 6001 sequences, 6002 when it was added"),
    ):
        database.path.write_bytes(large(before))
        registry.add(database)
        status = database.path.stat()
        content = large(after)
        assert len(content) == status.st_size
        database.path.write_bytes(content)
        os.utime(database.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert registry.verify("uniref90").change == ""
        with pytest.raises(SearchError, match=told):
            registry.verify("uniref90", full=True)


def test_truncated_indexed_databases_are_found(registry: Registry, tmp_path: Path):
    (tmp_path / "hh_a3m.ffdata").write_bytes(b"x" * 50)
    (tmp_path / "hh_a3m.ffindex").write_text("a\t0\t40\nb\t40\t10\n")
    registry.add(Database("hh", tmp_path / "hh"))
    assert registry.verify("hh", full=True).change == ""
    for index, told in (
        ("a\t0\t40\nb\t60\t10\n", "is truncated, line 2"),
        ("a 0 40\n", "line 1: is no entry"),
    ):
        (tmp_path / "hh_a3m.ffindex").write_text(index)
        registry.add(Database("hh", tmp_path / "hh"))
        with pytest.raises(SearchError, match=told):
            registry.verify("hh", full=True)


def test_everything_that_means_a_database(registry: Registry, database: Database, tmp_path: Path):
    registry.add(dataclasses.replace(database, name="mine", kind="other", max_hits=5))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("x.fasta", "uniref90_y.fa.gz"):
        (folder / name).write_bytes(gzip.compress(FASTA) if name.endswith("gz") else FASTA)
    (tmp_path / "hh_a3m.ffdata").write_bytes(b"")
    for name in ("mm", "mm.index", "mm.dbtype"):
        (tmp_path / name).write_bytes(b"")
    shards = write_shards(database, 2, tmp_path / "shards")
    items = ["mine", database, str(database.path), folder, shards.path, tmp_path / "hh", str(tmp_path / "mm")]
    found = resolve(items, registry)
    assert [d.name for d in found] == [
        "mine",
        "uniref90",
        "uniref90",
        "uniref90_y",
        "x",
        "uniref90",
        "hh",
        "mm",
    ]
    assert [d.format for d in found] == ["fasta"] * 6 + ["hhsuite", "mmseqs"]
    assert found[0].max_hits == 5
    assert found[5] == shards
    assert databases_at(folder) == found[3:5]
    with pytest.raises(SearchError, match="absent"):
        resolve(["absent"], registry)


def test_a_manifest_written_by_hand(registry: Registry, database: Database):
    registry.path.parent.mkdir()
    registry.path.write_text('[databases.mgnify]\npath = "../uniref90.fasta"\n')
    (found,) = resolve(["mgnify"], registry)
    assert (found.max_hits, found.kind, found.path.read_bytes()) == (501, "mgnify", FASTA)
    assert state(registry.get("mgnify")) == "never read"
    assert registry.verify("mgnify", full=True).sequences == 3


@pytest.mark.parametrize(
    "text",
    [
        "[databases.x\n",
        "databases = 3\n",
        "[databases]\nx = 3\n",
        "[databases.x]\n",
        "[databases.x]\npath = 3\n",
        '[databases.x]\npath = "x"\nmax_hits = "many"\n',
        '[databases.x]\npath = "x"\nmax_hits = 0\n',
        '[databases.x]\npath = "x"\nz = "many"\n',
        '[databases.x]\npath = "x"\nalso = 3\n',
        '[databases.x]\npath = "x"\nkind = "pdb"\n',
        '[databases.x]\npath = "x"\nfiles = 3\n',
        '[databases.x]\npath = "x"\nsequences = "three"\n',
        '[databases.x]\npath = "x"\nadded = "yesterday"\n',
        '[databases.x]\npath = "x\\u0000"\n',
        '[databases.x]\npath = "x"\nalso = [3]\n',
        '[databases.x]\npath = "x"\nmaxhits = 3\n',
        '[databases.x]\npath = "x"\nz = true\n',
        '[databases.x]\npath = "~nobody-of-this-name/x"\n',
        "\ufeff[databases.x]\n",
    ],
)
def test_a_damaged_manifest_is_named(registry: Registry, text: str):
    registry.path.parent.mkdir()
    registry.path.write_text(text)
    with pytest.raises(SearchError) as caught:
        registry.databases()
    assert str(caught.value).startswith(f"{registry.path}: ") and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.integers(0, 5), st.binary(max_size=5))
def test_no_damage_is_another_error(
    registry: Registry, database: Database, at: int, lost: int, inserted: bytes
):
    registry.path.unlink(missing_ok=True)
    registry.add(database)
    content = registry.path.read_bytes()
    registry.path.write_bytes(content[:at] + inserted + content[at + lost :])
    try:
        resolve(["uniref90"], registry)
    except SearchError as error:
        assert "\n" not in str(error)


def test_where_the_manifest_is(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform != "darwin":
        assert default_manifest() == tmp_path / "parafold" / "databases.toml"
    assert Registry().path == default_manifest()
    assert Registry().databases() == []


def test_a_manifest_that_cannot_be_written(database: Database, tmp_path: Path):
    (tmp_path / ".databases.toml.lock").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        Registry(tmp_path / "databases.toml").add(database)


def test_processes_that_add_at_once_lose_nothing(registry: Registry, database: Database):
    program = (
        "import sys; from pathlib import Path; from parafold.msa.registry import Registry\n"
        "from parafold.msa.database import Database\n"
        "for i in range(20): Registry(sys.argv[1]).add(Database(f'{sys.argv[3]}{i}', Path(sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", program, str(registry.path), str(database.path)]
    running = [subprocess.Popen([*arguments, letter]) for letter in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    assert len(registry.databases()) == 40
