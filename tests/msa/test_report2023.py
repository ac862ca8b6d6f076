import gzip
import io
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyhmmer import easel

from parafold.errors import ParafoldError, SearchError
from parafold.msa import Database, Search, demo_databases, search
from parafold.msa.engines.base import Row
from parafold.msa.report2023 import Jackhmmer, _stockholm, get_msa, run_jackhmmer_search
from parafold.protein.alignment import Msa, parse_a3m, parse_stockholm

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
TRP_CAGE = "NLYIQWLKDGGPSSGRPPPS"
NEEDS_PROGRAM = pytest.mark.skipif(
    shutil.which("jackhmmer") is None, reason="needs jackhmmer: apt-get install hmmer"
)


def assert_same(a, b):
    assert a.sequences == b.sequences
    assert a.descriptions[1:] == b.descriptions[1:]
    np.testing.assert_array_equal(a.deletions, b.deletions)


def fasta(path, sequence=UBIQUITIN, name="query"):
    path.write_text(f">{name} of the test\n{sequence[:40]}\n{sequence[40:]}\n")
    return path


def chunked(folder, database, count):
    """The database in `count` files FILE.1, FILE.2, ...; returns FILE."""
    records = database.path.read_text().split(">")[1:]
    edges = np.linspace(0, len(records), count + 1).astype(int)
    for number, (start, end) in enumerate(pairwise(edges), start=1):
        (folder / f"db.{number}").write_text("".join(f">{record}" for record in records[start:end]))
    return folder / "db"


@pytest.fixture(scope="module")
def ubiquitin():
    """What the search itself finds: database name -> alignment."""
    return search({"q": UBIQUITIN}, demo_databases(), cache=None, executor="serial").alignments["q"]


@pytest.fixture
def described(tmp_path):
    """The demonstration databases as the report describes them; the first is in chunks."""
    first, *others = demo_databases()
    chunks = {"db_name": first.name, "db_path": str(chunked(tmp_path, first, 5)), "num_streamed_chunks": 5}
    return [
        chunks | {"z_value": first.path.read_text().count(">")},
        *(
            {"db_name": d.name, "db_path": str(d.path), "num_streamed_chunks": None, "z_value": None}
            for d in others
        ),
    ]


@pytest.mark.parametrize("schedule", ["static", "longest-first"])
def test_get_msa_finds_what_the_search_finds(described, schedule, ubiquitin):
    described = [described[2], described[0], described[1]]
    found = get_msa(
        [TRP_CAGE, UBIQUITIN, TRP_CAGE.lower()], described, schedule=schedule, workers=2, cache=None
    )
    assert list(found) == [TRP_CAGE, UBIQUITIN, TRP_CAGE.lower()]
    # In the order in which AlphaFold stacks them, whatever the order of the search.
    assert list(found[UBIQUITIN]) == ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]
    for name, alignment in ubiquitin.items():
        assert len(alignment.rows) > 30
        assert_same(found[UBIQUITIN][name], alignment.msa())
    assert found[TRP_CAGE]["mgnify_demo"].sequences == found[TRP_CAGE.lower()]["mgnify_demo"].sequences


def test_the_static_schedule_gives_each_database_a_process(described, monkeypatch):
    searches = []
    run = Search.run

    def watched(self, *arguments):
        searches.append(self)
        yield from run(self, *arguments)

    monkeypatch.setattr(Search, "run", watched)
    for schedule in ("static", "longest-first"):
        get_msa([UBIQUITIN], described[1:], schedule=schedule, workers=None, cache=None)
    static, ours = searches
    # Tasks stand in the order in which the databases were given.
    assert [task.database for task in static.tasks] == ["small_bfd_demo", "mgnify_demo"]
    assert len({task.worker for task in static.tasks}) == 2
    assert sorted({task.database for task in ours.tasks}) == ["mgnify_demo", "small_bfd_demo"]


def test_run_jackhmmer_search_in_a_pool_as_the_report_called_it(described, tmp_path, ubiquitin):
    path = fasta(tmp_path / "query.fasta")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_jackhmmer_search, UBIQUITIN, path, config) for config in described]
        found = {name: (sequence, result) for sequence, name, result in (f.result() for f in futures)}
    assert list(found) == list(ubiquitin)
    for name, (sequence, result) in found.items():
        assert sequence == UBIQUITIN
        assert_same(merged(result), ubiquitin[name].msa())
    assert [len(result) for _, result in found.values()] == [5, 1, 1]


def merged(results):
    """The rows of all chunks, as AlphaFold puts them together: by the table's E-values, the query first."""
    rows = []
    for index, result in enumerate(results):
        lines = [line.split() for line in result["tbl"].splitlines() if not line.startswith("#")]
        evalues = {cells[0]: float(cells[4]) for cells in lines}
        msa = parse_stockholm(result["sto"])
        found = zip(msa.sequences, msa.deletions, msa.descriptions, strict=True)
        query = next(found)
        rows += [(-1.0, *query)] if index == 0 else []
        rows += [(evalues[row[2].rpartition("/")[0]], *row) for row in found]
    rows.sort(key=lambda row: row[0])
    return Msa([row[1] for row in rows], np.array([row[2] for row in rows]), [row[3] for row in rows])


@pytest.mark.parametrize("threads", [1, 3])
def test_query_gives_the_alignment_of_the_search(tmp_path, threads, ubiquitin):
    path = fasta(tmp_path / "query.fasta", name="tr|Q1|UBQ_HUMAN")
    for database in demo_databases():
        (result,) = Jackhmmer(database_path=database.path, n_cpu=threads).query(path)
        assert list(result) == ["sto", "tbl", "stderr", "n_iter", "e_value"]
        assert (result["tbl"], result["stderr"], result["n_iter"], result["e_value"]) == ("", b"", 1, 1e-4)
        msa = parse_stockholm(result["sto"])
        assert msa.descriptions[0] == "tr|Q1|UBQ_HUMAN"
        assert_same(msa, ubiquitin[database.name].msa())
        (first,) = Jackhmmer(database_path=database.path).query(path, max_sequences=10)
        assert_same(parse_stockholm(first["sto"]), msa.truncate(10))


@pytest.mark.parametrize("z", [None, 10**9])
def test_chunks_merge_into_the_whole(tmp_path, z):
    database = demo_databases()[1]
    path, seen = fasta(tmp_path / "query.fasta"), []
    runner = Jackhmmer(
        database_path=chunked(tmp_path, database, 7),
        num_streamed_chunks=7,
        streaming_callback=seen.append,
        z_value=z,
        get_tblout=True,
    )
    results = runner.query(path)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    whole = Database(database.name, database.path, z=z)
    expected = search({"q": UBIQUITIN}, [whole], cache=None, executor="serial").by_database("q")
    assert_same(merged(results), expected[database.name])
    assert all(result["sto"].startswith("# STOCKHOLM 1.0\n") for result in results)


def test_a_domain_counts_the_hits_of_all_chunks(tmp_path):
    """Weak second domains: a chunk's own threshold would let in more than that of the whole database."""
    rng = np.random.default_rng(0)

    def noise(count):
        return "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), count))

    with (tmp_path / "whole.fasta").open("w") as file:
        for number in range(400):
            weak = "".join(a if rng.random() < 0.52 else noise(1) for a in UBIQUITIN[20:70])
            file.write(f">t{number}\n{UBIQUITIN}{noise(60)}{weak}\n")
    database = Database("db", tmp_path / "whole.fasta")
    results = Jackhmmer(
        database_path=chunked(tmp_path, database, 8), num_streamed_chunks=8, get_tblout=True
    ).query(fasta(tmp_path / "query.fasta"))
    expected = search({"q": UBIQUITIN}, [database], cache=None, executor="serial").by_database("q")["db"]
    rows = [set(parse_stockholm(result["sto"]).descriptions[1:]) for result in results]
    assert set.union(*rows) == set(expected.descriptions[1:])
    alone = 0
    for number in range(1, 9):
        (result,) = Jackhmmer(database_path=tmp_path / f"db.{number}", z_value=400).query(
            tmp_path / "query.fasta"
        )
        alone += len(parse_stockholm(result["sto"])) - 1
    assert alone > len(expected) - 1


@NEEDS_PROGRAM
def test_the_program_gives_the_same(tmp_path):
    path = fasta(tmp_path / "query.fasta")
    for database in demo_databases():
        options = {"database_path": database.path, "get_tblout": True, "n_cpu": 1}
        (ours,) = Jackhmmer(**options).query(path)
        (program,) = Jackhmmer(**options, binary_path="jackhmmer").query(path)
        assert list(program) == list(ours)
        msa = parse_stockholm(ours["sto"])
        assert_same(msa, parse_stockholm(program["sto"]))
        assert evalues(ours) == evalues(program)
        (first,) = Jackhmmer(**options, binary_path="jackhmmer").query(path, max_sequences=10)
        assert_same(parse_stockholm(first["sto"]), msa.truncate(10))


def evalues(result):
    """Names and E-values to the digits that the program prints."""
    lines = [line.split() for line in result["tbl"].splitlines() if not line.startswith("#")]
    assert all(cells[2] == "query" for cells in lines)
    return [(cells[0], f"{float(cells[4]):.2g}", cells[5]) for cells in lines]


@NEEDS_PROGRAM
def test_the_program_takes_every_parameter_and_each_chunk(tmp_path):
    database = demo_databases()[1]
    path, seen = fasta(tmp_path / "query.fasta"), []
    options = {
        "filter_f1": 0.02,
        "filter_f2": 1e-3,
        "filter_f3": 1e-5,
        "incdom_e": 1e-6,
        "dom_e": 1.0,
        "n_iter": 2,
    }
    with pytest.raises(SearchError, match=r"-N 2, --F1 0.02, .*; give binary_path"):
        Jackhmmer(database_path=database.path, **options)
    prefix = chunked(tmp_path, database, 3)
    results = Jackhmmer(
        binary_path=shutil.which("jackhmmer"),
        database_path=prefix,
        num_streamed_chunks=3,
        streaming_callback=seen.append,
        z_value=1467,
        e_value=1e-6,
        **options,
    ).query(path)
    assert seen == [1, 2, 3]
    assert [(result["n_iter"], result["e_value"]) for result in results] == [(2, 1e-6)] * 3
    assert all(len(parse_stockholm(result["sto"])) > 5 for result in results)


@NEEDS_PROGRAM
def test_rows_of_one_name_are_numbered_as_hmmer_does(tmp_path):
    inserted = UBIQUITIN[:30] + "GGS" + UBIQUITIN[30:]
    (tmp_path / "db.fasta").write_text(f">a\n{UBIQUITIN}\n>b\n{inserted}\n>a\n{UBIQUITIN}\n" * 3)
    path = fasta(tmp_path / "query.fasta")
    ours, program = (
        parse_stockholm(Jackhmmer(database_path=tmp_path / "db.fasta", binary_path=b).query(path)[0]["sto"])
        for b in (None, "jackhmmer")
    )
    assert ours.descriptions == program.descriptions
    assert ours.descriptions[:2] == ["00|query", "01|a/1-76"]
    assert ours.sequences == program.sequences
    np.testing.assert_array_equal(ours.deletions, program.deletions)


A3M_ROW = st.lists(st.tuples(st.text("acdw", max_size=3), st.sampled_from("ACDW-")), min_size=5, max_size=5)


@given(st.lists(st.tuples(A3M_ROW, st.text("ac", max_size=2)), max_size=6))
def test_stockholm_says_what_the_a3m_said(made):
    texts = ["".join(a + b for a, b in row) + tail for row, tail in made]
    rows = [Row(f"t{number}/1-5", text, 0.0, 0.0) for number, text in enumerate(texts)]
    sto = _stockholm("query", "ACDWA", rows)
    a3m = ">query\nACDWA\n" + "".join(f">{row.description}\n{row.row}\n" for row in rows)
    assert_same(parse_stockholm(sto), parse_a3m(a3m))
    with easel.MSAFile(io.BytesIO(sto.encode()), "stockholm") as file:
        msa = file.read()
    letters = [text.replace("-", "").upper() for text in ("ACDWA", *texts)]
    assert [row.replace("-", "").replace(".", "").upper() for row in msa.alignment] == letters


def test_nothing_found_leaves_the_query(tmp_path):
    (tmp_path / "db.fasta").write_text(">decoy\nWWWWHHHHPPPPGGGGCCCCMMMM\n")
    (result,) = Jackhmmer(database_path=tmp_path / "db.fasta", get_tblout=True).query(
        fasta(tmp_path / "q.fasta")
    )
    assert parse_stockholm(result["sto"]).sequences == [UBIQUITIN]
    assert all(line.startswith("#") for line in result["tbl"].splitlines())


def test_a_packed_database_and_shards_are_searched(tmp_path, ubiquitin):
    database = demo_databases()[1]
    packed = tmp_path / "small_bfd.fasta.gz"
    packed.write_bytes(gzip.compress(database.path.read_bytes(), 1))
    prefix = chunked(tmp_path, database, 2)
    for index in range(2):
        Path(f"{prefix}.{index + 1}").rename(tmp_path / f"db-{index:05}-of-00002")
    path = fasta(tmp_path / "query.fasta")
    for database_path in (packed, tmp_path / "db@2"):
        (result,) = Jackhmmer(database_path=database_path).query(path)
        assert_same(parse_stockholm(result["sto"]), ubiquitin[database.name].msa())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"database_path": "nowhere.fasta"}, "nowhere.fasta: no such file"),
        ({"database_path": "db", "num_streamed_chunks": 4}, r"2 of 4 chunks are missing, db\.3 first"),
        ({"database_path": "db", "num_streamed_chunks": 0}, "0 chunks; give 1 or more"),
        ({"database_path": "https://example.org/db", "num_streamed_chunks": 2}, "not on this machine"),
        ({"database_path": "db.1", "z_value": 0}, "z is 0"),
        ({"database_path": "db.1", "e_value": 0.1}, r"-E 0\.1, --incE 0\.1; give binary_path"),
        ({"database_path": "db.1", "dom_e": 1.0}, r"--domE 1\.0; give binary_path"),
        ({"database_path": "db.1", "binary_path": "no-such-program"}, "no-such-program is not installed"),
    ],
)
def test_arguments_that_are_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    chunked(tmp_path, demo_databases()[1], 2)
    with pytest.raises(SearchError, match=message):
        Jackhmmer(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "query.fasta is empty"),
        (">a\nMK\n>b\nMK\n", "holds 2 sequences"),
        (">a\nM1K\n", "residue 2: '1' is not an amino acid"),
        (">a\nMKT\n", "another sequence than the one to search for"),
    ],
)
def test_queries_that_are_refused(tmp_path, text, message):
    path = tmp_path / "query.fasta"
    path.write_text(text)
    sequence = "M1K" if "1" in text else UBIQUITIN
    database = demo_databases()[1]
    with pytest.raises(ParafoldError, match=message):
        run_jackhmmer_search(sequence, path, {"db_name": database.name, "db_path": database.path})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"db_name": "a"}, "lacks db_path"),
        ({"db_name": "a", "db_path": "x", "max_hits": 5}, "database a: max_hits means nothing here"),
        (
            {"db_name": "a", "db_path": "x", "num_streamed_chunks": 2},
            r"2 of 2 chunks are missing, x\.1 first",
        ),
        ({"db_name": "a", "db_path": "gs://bucket/x"}, "database a: gs://bucket/x is not on this machine"),
    ],
)
def test_descriptions_that_are_refused(unchecked, config, message):
    with pytest.raises(SearchError, match=message):
        get_msa([UBIQUITIN], [config], cache=None)


def test_the_notebooks_name_of_small_bfd_is_known(tmp_path):
    shutil.copy(demo_databases()[1].path, tmp_path / "x.fasta")
    configs = [
        {"db_name": name, "db_path": tmp_path / "x.fasta"} for name in ("mgnify", "smallbfd", "uniref90")
    ]
    found = get_msa([UBIQUITIN], configs, cache=None, executor="serial")
    assert list(found[UBIQUITIN]) == ["uniref90", "smallbfd", "mgnify"]
