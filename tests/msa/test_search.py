import io
import itertools
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhmmer import easel, hmmer

from parafold.errors import SearchError
from parafold.msa import Database, Searcher, databases_in, demo_databases, search
from parafold.msa.database import ALPHABET, read_blocks
from parafold.msa.hmmer import Query, merge
from parafold.protein.alignment import parse_a3m, parse_stockholm, species_id, to_a3m
from parafold.protein.sequence import read_inputs

ROOT = Path(__file__).resolve().parents[2]
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
EXAMPLES = sorted(
    {
        chain.sequence
        for path in (ROOT / "examples").glob("*.fasta")
        for target in read_inputs(path)
        for chain in target.chains
    }
)


def database_of(path, records):
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    return Database(path.stem, path)


def decoys(count, seed=0):
    rng = random.Random(seed)
    return [(f"decoy{i}", "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=150))) for i in range(count)]


def assert_same(a, b):
    assert a.sequences == b.sequences
    assert a.descriptions == b.descriptions
    np.testing.assert_array_equal(a.deletions, b.deletions)


@pytest.fixture(scope="module")
def demo_search():
    with Searcher(demo_databases(), cpus=2) as searcher:
        yield searcher


def test_rows_stand_in_query_coordinates(tmp_path):
    inserted = UBIQUITIN[:40] + "GGS" + UBIQUITIN[40:]
    shortened = "AAAA" + UBIQUITIN[10:30] + UBIQUITIN[33:70]
    records = [("same/x", UBIQUITIN), ("inserted", inserted), ("shortened", shortened), *decoys(50)]
    msa = search(UBIQUITIN, [database_of(tmp_path / "db.fasta", records)], cpus=1)["db"]
    rows = dict(zip(msa.descriptions, msa.sequences, strict=True))
    assert msa.descriptions[0] == "query"
    assert rows["query"] == rows["same/x/1-76"] == UBIQUITIN
    assert rows["inserted/1-79"] == UBIQUITIN
    deletions = dict(zip(msa.descriptions, msa.deletions, strict=True))
    assert deletions["inserted/1-79"].sum() == deletions["inserted/1-79"][38:43].sum() == 3
    assert deletions["same/x/1-76"].sum() == 0
    (short,) = [row for name, row in rows.items() if name.startswith("shortened/")]
    assert short[10:28] == UBIQUITIN[10:28] and short[36:66] == UBIQUITIN[36:66]
    assert short.count("-") >= 3 and len(short) == 76
    assert len(msa) == 4


def test_a_target_with_two_copies_gives_two_rows(tmp_path):
    linker = "GSDNTPEKAGSDNTPEKAGSDNTPEKA"
    database = database_of(tmp_path / "db.fasta", [("twice", UBIQUITIN + linker + UBIQUITIN), *decoys(20)])
    msa = search(UBIQUITIN, [database])["db"]
    assert msa.descriptions == ["query", "twice/1-76", "twice/104-179"]


def test_nothing_found_leaves_the_query(tmp_path):
    msa = search(UBIQUITIN, [database_of(tmp_path / "db.fasta", decoys(30))])["db"]
    assert msa.sequences == [UBIQUITIN]
    assert msa.deletions.shape == (1, 76)


def test_every_example_has_homologs_in_every_demonstration_database(demo_search):
    assert len(EXAMPLES) == 9
    for sequence in EXAMPLES:
        found = demo_search.search(sequence)
        assert list(found) == ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]
        for msa in found.values():
            assert len(msa) > 30
            assert msa.sequences[0] == sequence
        assert any(species_id(name) for name in found["small_bfd_demo"].descriptions)


def whole(query, sequences):
    """The published rows: the library's own jackhmmer over the whole, through its Stockholm output."""
    digital = easel.TextSequence(name="query", sequence=query).digitize(ALPHABET)
    options = {"F1": 0.0005, "F2": 5e-05, "F3": 5e-07, "E": 1e-4, "incE": 1e-4, "incdomE": 1e-3}
    (result,) = hmmer.jackhmmer(digital, sequences, max_iterations=1, cpus=1, **options)
    stockholm = io.BytesIO()
    result.msa.write(stockholm, "pfam")
    return parse_stockholm(stockholm.getvalue().decode())


@pytest.mark.parametrize("sequence", EXAMPLES)
def test_blocks_merge_into_the_rows_of_the_whole(demo_search, sequence):
    found = demo_search.search(sequence)
    for database in demo_databases():
        sequences = easel.DigitalSequenceBlock(ALPHABET)
        for block in read_blocks(database):
            sequences.extend(block.sequences)
        assert_same(found[database.name], whole(sequence, sequences))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 1467), max_size=8), st.randoms(use_true_random=False))
def test_any_partition_gives_the_same_rows(cuts, rng):
    database = demo_databases()[1]
    records = [record for block in read_blocks(database) for record in block.sequences]
    query = Query(UBIQUITIN)
    expected = merge(query.search(easel.DigitalSequenceBlock(ALPHABET, records)), len(records))
    edges = [0, *sorted(cuts), len(records)]
    parts = [records[a:b] for a, b in itertools.pairwise(edges)]
    rng.shuffle(parts)
    hits = [hit for part in parts for hit in query.search(easel.DigitalSequenceBlock(ALPHABET, part))]
    assert merge(hits, len(records)) == expected
    assert len(expected) > 30


def test_memory_and_threads_do_not_change_the_result(demo_search):
    for cpus, memory in ((1, 0), (3, 0), (1, 1_000_000), (2, 10**9)):
        with Searcher(demo_databases(), cpus=cpus, memory=memory) as searcher:
            for _ in range(2):
                found = searcher.search(UBIQUITIN)
                for name, msa in demo_search.search(UBIQUITIN).items():
                    assert_same(found[name], msa)


def test_kept_databases_are_not_read_again(tmp_path):
    database = database_of(tmp_path / "db.fasta", [("same", UBIQUITIN), *decoys(20)])
    with Searcher([database]) as keeps, Searcher([database], memory=0) as reads:
        first = keeps.search(UBIQUITIN)["db"]
        assert_same(reads.search(UBIQUITIN)["db"], first)
        database.path.unlink()
        assert_same(keeps.search(UBIQUITIN)["db"], first)
        with pytest.raises(SearchError, match="cannot be read"):
            reads.search(UBIQUITIN)


def test_the_published_number_of_rows(tmp_path):
    records = [(f"copy{i:04}", UBIQUITIN) for i in range(600)]
    limited = database_of(tmp_path / "mgnify_small.fasta", records)
    unlimited = database_of(tmp_path / "bfd_small.fasta", records)
    found = search(UBIQUITIN, [limited, unlimited])
    assert len(found["mgnify_small"]) == 501
    assert len(found["bfd_small"]) == 601
    assert found["mgnify_small"].descriptions[1:3] == ["copy0000/1-76", "copy0001/1-76"]


def test_progress_grows_to_one_for_each_database():
    seen = {}
    search(UBIQUITIN, demo_databases(), progress=lambda name, part: seen.setdefault(name, []).append(part))
    assert list(seen) == ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]
    for parts in seen.values():
        assert parts == sorted(parts)
        assert parts[-1] == 1.0


def test_a3m_round_trip(demo_search):
    for msa in demo_search.search(UBIQUITIN).values():
        assert_same(parse_a3m(to_a3m(msa)), msa)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "0 residues"),
        ("M", "1 residues"),
        ("XXXXXXXX", "unknown residues"),
        ("MKT-AY", "residue 4: '-' is not an amino acid"),
        ("MKTÄY", "residue 4: 'Ä' is not an amino acid"),
    ],
)
def test_queries_that_cannot_be_searched_for(query, message):
    with pytest.raises(SearchError, match=message):
        search(query, demo_databases())


@pytest.mark.parametrize("query", ["MK", "MKXXAYXX", "BJOUZX" * 5, "a" * 30, "W" * 2000])
def test_odd_queries_are_searched_for(query):
    for msa in search(query, demo_databases()).values():
        assert msa.sequences[0] == query.upper()


def test_databases_must_be_named_apart(tmp_path):
    database = database_of(tmp_path / "db.fasta", decoys(3))
    with pytest.raises(SearchError, match="two databases are named db"):
        Searcher([database, database])
    with pytest.raises(SearchError, match="no database"):
        Searcher([])


def test_a_name_that_is_not_utf8_is_reported_when_it_is_a_hit(tmp_path):
    path = tmp_path / "db.fasta"
    path.write_bytes(b">caf\xe9\n" + UBIQUITIN.encode() + b"\n")
    with pytest.raises(SearchError, match="not UTF-8"):
        search(UBIQUITIN, [Database("db", path)])


def test_a_searcher_goes_on_after_a_bad_query(demo_search):
    with pytest.raises(SearchError):
        demo_search.search("")
    assert len(demo_search.search(UBIQUITIN)["uniref90_demo"]) > 30


JACKHMMER = shutil.which("jackhmmer")
DATA = os.environ.get("PARAFOLD_DATA")
FILTERS = ["--F1", "0.0005", "--F2", "5e-05", "--F3", "5e-07"]
FLAGS = ["--noali", *FILTERS, "--incE", "0.0001", "-E", "0.0001", "-N", "1", "--cpu", "1"]


@pytest.mark.skipif(JACKHMMER is None, reason="needs jackhmmer: apt-get install hmmer")
@pytest.mark.parametrize("sequence", EXAMPLES)
def test_equals_jackhmmer(demo_search, tmp_path, sequence):
    _compare_with_jackhmmer(demo_search, tmp_path, sequence)


@pytest.mark.skipif(JACKHMMER is None, reason="needs jackhmmer: apt-get install hmmer")
@pytest.mark.skipif(DATA is None, reason="needs real databases: set PARAFOLD_DATA to the folder of search_db")
def test_equals_jackhmmer_on_real_proteins(tmp_path):
    assert DATA is not None
    plain = tmp_path / "databases"
    plain.mkdir()
    for packed in sorted((Path(DATA) / "search_db").glob("*.xz")):
        with (plain / packed.stem).open("wb") as file:
            subprocess.run(["xz", "-dc", packed], stdout=file, check=True)
    queries = read_inputs(Path(DATA) / "structures30" / "sequences.fasta")
    with Searcher(databases_in(plain)) as searcher:
        for target in queries[::3]:
            _compare_with_jackhmmer(searcher, tmp_path, target.chains[0].sequence)


def _compare_with_jackhmmer(searcher, folder, sequence):
    query, out = folder / "query.fasta", folder / "out.sto"
    query.write_text(f">query\n{sequence}\n")
    found = searcher.search(sequence)
    for database in searcher.databases:
        command = [JACKHMMER, "-o", os.devnull, "-A", out, *FLAGS, query, database.path]
        subprocess.run(command, check=True, timeout=600)
        expected = parse_stockholm(out.read_text()).truncate(database.max_hits or 10**9)
        assert_same(found[database.name], expected)
