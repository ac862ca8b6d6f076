"""The jackhmmer program gives what the engine pyhmmer gives, so each is a check of the other."""

import json
import shutil
import sys

import pytest
from engine_runs import QUERIES, engine_or_skip, found, found_all, real_database, real_queries

from parafold.errors import SearchError
from parafold.msa import Database, demo_databases
from parafold.msa.engines import make_engine
from parafold.msa.shards import whole

TRP_CAGE = QUERIES["trp_cage"]


@pytest.fixture
def jackhmmer():
    return engine_or_skip("jackhmmer")


def printed(rows):
    """To the digits that the program prints."""
    return [(row.description, row.row, f"{row.score:.1f}", f"{row.evalue:.1e}") for row in rows]


@pytest.mark.parametrize("database", demo_databases(), ids=lambda database: database.name)
def test_demo_databases_as_through_pyhmmer(jackhmmer, database):
    queries = list(QUERIES.values())
    expected = found_all(make_engine("pyhmmer"), queries, database)
    assert all(expected[:2])
    assert [printed(rows) for rows in found_all(jackhmmer, queries, database)] == list(map(printed, expected))


def test_a_given_number_of_sequences(jackhmmer):
    whole_database = demo_databases()[0]
    database = Database("large", whole_database.path, z=100_000_000)
    rows = found(jackhmmer, TRP_CAGE, database)
    assert printed(rows) == printed(found(make_engine("pyhmmer"), TRP_CAGE, database))
    assert 0 < len(rows) < len(found(jackhmmer, TRP_CAGE, whole_database))


def test_real_families_as_through_pyhmmer(jackhmmer, tmp_path):
    queries = real_queries(["PF00018_2O9S_A", "PF00041_1TEN_A", "PF00072_1MVO_A", "PF00249_1GUU_A"])
    database = real_database("small_bfd_demo", tmp_path)
    expected = found_all(make_engine("pyhmmer"), list(queries.values()), database)
    rows = found_all(jackhmmer, list(queries.values()), database)
    assert list(map(printed, rows)) == list(map(printed, expected))
    assert sum(map(len, rows)) > 500
    assert any(letter.islower() for letter in "".join(row.row for some in rows for row in some))


def test_equal_names_and_names_with_odd_letters(jackhmmer, tmp_path):
    names = [
        "twin",
        "twin",
        "tr|A0A0A0|X_HUMAN",
        "a/b/1-3",
        "7|seven",
        "κ-casein",
        "last;'$(x)",
        "no\u00a0space",
        "\\xff",
    ]
    records = [f">{name} of a family\n{TRP_CAGE}GAS{'W' * i}\n" for i, name in enumerate(names[1:])]
    path = tmp_path / "odd names.fasta"
    path.write_bytes("".join([records[0], *records]).encode().replace(b"\\xff", b"\xff"))
    database = Database("odd", path)
    rows = found(jackhmmer, TRP_CAGE, database)
    assert sorted(row.description.rpartition("/")[0] for row in rows) == sorted(names)
    assert printed(rows) == printed(found(make_engine("pyhmmer"), TRP_CAGE, database))


def test_nothing_found(jackhmmer):
    assert found(jackhmmer, "WCWCHWMWCYWHWCMWWCYH", demo_databases()[0]) == []


def test_each_sequence_is_counted_once(jackhmmer):
    database = demo_databases()[1]
    queries = {number: jackhmmer.prepare(sequence) for number, sequence in enumerate(QUERIES.values())}
    chunks = list(jackhmmer.search(queries, database, whole(database), 1 << 30))
    expected = list(make_engine("pyhmmer").search({}, database, whole(database), 1 << 30))
    for count in ("sequences", "residues"):
        assert sum(getattr(c, count) for c in chunks) == sum(getattr(c, count) for c in expected) > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b">a\nACDEF\n>b\nAC1DEF\n", r"bad\.fasta: jackhmmer failed .*Line 4: illegal character 1"),
        (b"", r"bad\.fasta: jackhmmer failed .*empty or misformatted"),
        (b"no database\n", r"bad\.fasta: jackhmmer failed .*Line 1: unexpected char n"),
    ],
)
def test_a_malformed_database_is_named_with_the_programs_words(jackhmmer, tmp_path, data, message):
    path = tmp_path / "bad.fasta"
    path.write_bytes(data)
    with pytest.raises(SearchError, match=message):
        found(jackhmmer, TRP_CAGE, Database("bad", path))


def test_a_database_in_many_files_is_refused(jackhmmer, tmp_path):
    for index in range(2):
        (tmp_path / f"db.fasta-0000{index}-of-00002").write_text(f">s{index}\n{TRP_CAGE}\n")
    with pytest.raises(SearchError, match=r"in 2 files.*engine pyhmmer"):
        jackhmmer.check(Database("db", tmp_path / "db.fasta@2"))


def test_limits_of_time_and_memory(tmp_path):
    database = demo_databases()[0]
    with pytest.raises(SearchError, match=r"uniref90_demo\.fasta: jackhmmer was stopped after 0\.001 s"):
        found(engine_or_skip("jackhmmer", timeout=0.001), TRP_CAGE, database)
    if sys.platform != "darwin":
        with pytest.raises(SearchError, match="jackhmmer"):
            found(engine_or_skip("jackhmmer"), TRP_CAGE, database, memory=1 << 20)


@pytest.mark.parametrize("flag", ["-A", "--domtblout", "-o"])
def test_output_that_breaks_off_is_an_error(jackhmmer, tmp_path, monkeypatch, flag):
    """As on a full disk: here a wrapper cuts the end off one of the files that the program has written."""
    wrapper = tmp_path / "bin" / "jackhmmer"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\n{shutil.which("jackhmmer")} "$@" || exit\n'
        f'while [ "$1" != {flag} ]; do [ "$1" = -h ] && exit; shift; done\n'
        'size=$(wc -c < "$2"); head -c $((size - 9)) "$2" > "$2.cut"; mv "$2.cut" "$2"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    with pytest.raises(SearchError, match=r"jackhmmer's output .* breaks off\)"):
        found(jackhmmer, TRP_CAGE, demo_databases()[0])


def test_a_missing_program_is_named_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SearchError, match=r"jackhmmer is not installed.*apt install hmmer"):
        make_engine("jackhmmer").check(demo_databases()[0])


@pytest.mark.parametrize("query", ["A", "ACD1", "XXXX"])
def test_queries_that_cannot_be_searched_for(query):
    with pytest.raises(SearchError):
        make_engine("jackhmmer").prepare(query)


def test_engines_travel_as_name_and_options(jackhmmer):
    engine = make_engine("jackhmmer", cpu=2, timeout=60.0)
    copy = make_engine(engine.name, **json.loads(json.dumps(dict(engine.options))))
    assert copy.options == engine.options
    assert json.dumps(dict(copy.parameters)) == json.dumps(dict(jackhmmer.parameters))
    assert found(copy, TRP_CAGE, demo_databases()[0]) == found(jackhmmer, TRP_CAGE, demo_databases()[0])
    with pytest.raises(SearchError, match="cpu is -1"):
        make_engine("jackhmmer", cpu=-1)
