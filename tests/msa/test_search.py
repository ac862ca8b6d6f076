"""What a search finds, what becomes of it, and what it says to queries and databases that are not right."""

import io
import itertools
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhmmer import easel, hmmer

from parafold.errors import SearchError
from parafold.features import build
from parafold.features.raw import msa_features
from parafold.msa import Database, Progress, Search, demo_databases, search
from parafold.msa.engines import Hit, make_engine
from parafold.msa.fasta import ALPHABET, read_blocks
from parafold.msa.shards import Shard
from parafold.protein.alignment import Msa, parse_a3m, parse_stockholm, species_id, to_a3m
from parafold.protein.sequence import Chain, FoldInput, read_inputs

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TARGETS = [target for path in sorted(small.EXAMPLES.glob("*.fasta")) for target in read_inputs(path)]
EXAMPLES = {s: s for target in TARGETS for s in target.unique_sequences}


def database_of(path: Path, records) -> Database:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    return Database(path.stem, path)


def decoys(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(f"decoy{i}", "".join(rng.choices(LETTERS, k=150))) for i in range(count)]


def find(query: str, databases, **options) -> dict[str, Msa]:
    """Database name -> alignment of one query, by a search in this process."""
    return search({"q": query}, databases, executor="serial", cache=None, **options).by_database("q")


def assert_same(a: Msa, b: Msa):
    assert a.sequences == b.sequences
    assert a.descriptions == b.descriptions
    np.testing.assert_array_equal(a.deletions, b.deletions)


@pytest.fixture(scope="module")
def demo_search():
    return search(EXAMPLES, demo_databases(), cache=None)


def whole(query: str, database: Database) -> Msa:
    """The published rows: the library's own jackhmmer over the whole, through its Stockholm output, and the
    published limit."""
    sequences = easel.DigitalSequenceBlock(ALPHABET)
    for block in read_blocks(database.path):
        sequences.extend(block)
    digital = easel.TextSequence(name="query", sequence=query).digitize(ALPHABET)
    options = {
        "F1": 0.0005,
        "F2": 5e-05,
        "F3": 5e-07,
        "E": 1e-4,
        "incE": 1e-4,
        "incdomE": 1e-3,
        "Z": database.z,
    }
    (result,) = hmmer.jackhmmer(digital, sequences, max_iterations=1, cpus=1, **options)
    stockholm = io.BytesIO()
    result.msa.write(stockholm, "pfam")
    return parse_stockholm(stockholm.getvalue().decode()).truncate(database.max_hits or 10**9)


# What is found


def test_rows_stand_in_query_coordinates(tmp_path):
    inserted = UBIQUITIN[:40] + "GGS" + UBIQUITIN[40:]
    shortened = "AAAA" + UBIQUITIN[10:30] + UBIQUITIN[33:70]
    records = [("same/x", UBIQUITIN), ("inserted", inserted), ("shortened", shortened), *decoys(50)]
    msa = find(UBIQUITIN, [database_of(tmp_path / "db.fasta", records)])["db"]
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
    assert find(UBIQUITIN, [database])["db"].descriptions == ["query", "twice/1-76", "twice/104-179"]


def test_nothing_found_leaves_the_query(tmp_path):
    found = search({"q": UBIQUITIN}, [database_of(tmp_path / "db.fasta", decoys(30))], cache=None)
    assert found["q"].sequences == [UBIQUITIN]
    assert found["q"].deletions.shape == (1, 76)
    assert found.alignments["q"]["db"].num_sequences == 30


def test_every_example_has_homologs_in_every_demonstration_database(demo_search):
    assert len(demo_search) == 9
    for sequence in demo_search:
        found = demo_search.by_database(sequence)
        assert list(found) == ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]
        for msa in found.values():
            assert len(msa) > 30
            assert msa.sequences[0] == sequence
        assert any(species_id(name) for name in found["small_bfd_demo"].descriptions)


@pytest.mark.parametrize("sequence", EXAMPLES, ids=lambda sequence: sequence[:8])
def test_blocks_merge_into_the_rows_of_the_whole(demo_search, sequence):
    found = demo_search.by_database(sequence)
    for database in demo_databases():
        assert_same(found[database.name], whole(sequence, database))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 1455), max_size=8), st.randoms(use_true_random=False))
def test_any_partition_gives_the_same_rows(cuts, rng):
    engine, database = make_engine("pyhmmer"), demo_databases()[1]
    text = database.path.read_bytes()
    starts = [0, *(match.start() + 1 for match in re.finditer(b"\n>", text)), len(text)]
    queries = {7: engine.prepare(UBIQUITIN)}

    def hits(start: int, end: int) -> list[Hit]:
        chunks = engine.search(queries, database, Shard(database.path, start, end), 10**9)
        return [hit for chunk in chunks for hit in chunk.hits.get(7, ())]

    parts = list(itertools.pairwise([0, *sorted({starts[cut] for cut in cuts}), len(text)]))
    rng.shuffle(parts)
    count = len(starts) - 1
    expected = engine.merge(UBIQUITIN, hits(0, len(text)), count)
    assert engine.merge(UBIQUITIN, [hit for part in parts for hit in hits(*part)], count) == expected
    assert count == 1456 and len(expected) > 30


def remnants(seed: int) -> list[tuple[str, str]]:
    """Records that hold a short piece of the query, changed a little, and a shorter one."""
    rng = random.Random(seed)

    def piece(shortest: int, longest: int) -> str:
        begin, length = rng.randrange(50), rng.randrange(shortest, longest)
        kept = UBIQUITIN[begin : begin + length]
        return "".join(rng.choice(LETTERS) if rng.random() < 0.1 else letter for letter in kept)

    return [
        (name, decoy[:50] + piece(18, 26) + decoy[50:] + piece(9, 16)) for name, decoy in decoys(60, seed)
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([10**5, 10**6, 10**7]))
def test_hits_at_the_edge_of_significance_do_not_depend_on_shards(tmp_path_factory, seed, shards, z):
    """About the thresholds a shard's own number of sequences or of hits would decide otherwise."""
    path = database_of(tmp_path_factory.mktemp("edge") / "db.fasta", remnants(seed)).path
    database = Database("db", path, z=z)
    assert_same(find(UBIQUITIN, [database], shards=shards)["db"], whole(UBIQUITIN, database))


def test_z_decides_what_is_significant(tmp_path):
    records = [("near", UBIQUITIN), ("far", UBIQUITIN[22:42] + "PNDG" * 20), *decoys(20)]
    path = database_of(tmp_path / "db.fasta", records).path
    few = search({"q": UBIQUITIN}, [Database("db", path)], cache=None).alignments["q"]["db"]
    many = search({"q": UBIQUITIN}, [Database("db", path, z=10**9)], cache=None).alignments["q"]["db"]
    assert [row.description.partition("/")[0] for row in few.rows] == ["near", "far"]
    assert [row.description.partition("/")[0] for row in many.rows] == ["near"]
    assert (few.num_sequences, many.num_sequences) == (22, 10**9)
    assert many.rows[0].evalue == pytest.approx(few.rows[0].evalue * 10**9 / 22)
    assert many.rows[0].score == few.rows[0].score


def test_the_published_number_of_rows(tmp_path):
    records = [(f"copy{i:04}", UBIQUITIN) for i in range(600)]
    limited = database_of(tmp_path / "mgnify_small.fasta", records)
    unlimited = database_of(tmp_path / "bfd_small.fasta", records)
    found = find(UBIQUITIN, [limited, unlimited])
    assert len(found["mgnify_small"]) == 501
    assert len(found["bfd_small"]) == 601
    assert found["mgnify_small"].descriptions[1:3] == ["copy0000/1-76", "copy0001/1-76"]
    for max_hits, lengths in (
        (100, [100, 100]),
        ({"bfd_small": 7}, [7, 501]),
        ({"mgnify_small": None}, [601, 601]),
    ):
        cut = find(UBIQUITIN, [limited, unlimited], max_hits=max_hits)
        assert [len(msa) for msa in cut.values()] == lengths
        for name, msa in cut.items():
            assert msa.descriptions[:7] == found[name].descriptions[:7]


# MSA features


def test_features_are_those_of_the_published_alignments(demo_search):
    """From jackhmmer's own Stockholm files, as AlphaFold makes them: databases in order, limits, and of equal
    rows the first."""
    for target in TARGETS:
        if target.is_complex:
            continue
        (sequence,) = target.sequences
        expected = msa_features([whole(sequence, database) for database in demo_databases()])
        arrays = build(target, {sequence: demo_search.by_database(sequence)}).arrays
        merged = msa_features([demo_search[sequence]])
        assert len(expected["msa"]) > 100
        for name, array in expected.items():
            if name != "msa_species_identifiers":
                np.testing.assert_array_equal(arrays[name], array)
            np.testing.assert_array_equal(merged[name], array)


def test_of_equal_rows_the_first_stays_and_databases_stand_in_published_order(tmp_path):
    twin, other, third = (UBIQUITIN[:38] + letters + UBIQUITIN[40:] for letters in ("AA", "GG", "SS"))
    insert = UBIQUITIN[:30] + "GG" + UBIQUITIN[30:]
    records = {
        "mgnify": [("m1", twin), ("m2", other)],
        "uniref90": [("u1", insert), ("u2", twin), ("u3", twin)],
        "uniprot": [("sp|P12345|PAIR_HUMAN", third)],
    }
    databases = [database_of(tmp_path / f"{name}.fasta", some) for name, some in records.items()]
    found = search({"q": UBIQUITIN}, databases, cache=None)
    assert list(found.alignments["q"]) == ["uniref90", "mgnify", "uniprot"]
    # u1 is the query but for its insertion; u3 and m1 are u2; uniprot pairs chains and does nothing else.
    assert found["q"].descriptions == ["query", "u2/1-76", "m2/1-76"]
    assert [row.description for row in found.alignments["q"]["uniprot"].rows] == ["sp|P12345|PAIR_HUMAN/1-76"]


@pytest.mark.parametrize("name", ["uniprot_demo", "my_own"])
def test_a_database_of_kind_uniprot_pairs_chains_whatever_its_name(tmp_path, name):
    second = EXAMPLES[next(iter(EXAMPLES))]
    relatives = [
        (f"tr|A0A{i:07}|A0A{i:07}_{species}", sequence[:-i] + "A" * i)
        for i, (species, sequence) in enumerate(
            itertools.product(("HUMAN", "YEAST"), (UBIQUITIN, second)), start=1
        )
    ]
    path = database_of(tmp_path / "db.fasta", relatives).path
    target = FoldInput("t", (Chain("A", UBIQUITIN), Chain("B", second)))
    found = search({s: s for s in target.sequences}, [Database(name, path, kind="uniprot")], cache=None)
    features = build(target, {s: found.by_database(s) for s in target.sequences}, pairing=[name])
    # The queries, and a pair for each species.
    assert features.arrays["num_alignments"] == 3


def test_a3m_round_trip(demo_search):
    for msa in demo_search.by_database(UBIQUITIN).values():
        assert_same(parse_a3m(to_a3m(msa)), msa)
    assert_same(parse_a3m(demo_search.a3m(UBIQUITIN)), demo_search[UBIQUITIN])


# Queries


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
    with pytest.raises(SearchError, match=f"q: .*{message}"):
        find(query, demo_databases())


@pytest.mark.parametrize("query", ["MK", "MKXXAYXX", "BJOUZX" * 5, "a" * 30, "W" * 2000])
def test_odd_queries_are_searched_for(query):
    for msa in find(query, demo_databases()).values():
        assert msa.sequences[0] == query.upper()


def test_a_search_goes_on_after_a_bad_query():
    errors = {}
    queries = {"bad": "", "good": UBIQUITIN, "odd": "MK?"}
    found = search(queries, demo_databases(), cache=None, on_error=errors.__setitem__)
    assert list(found) == ["good"] and len(found["good"]) > 30
    assert {name: str(error)[:20] for name, error in errors.items()} == {
        "bad": "a query of 0 residue",
        "odd": "query residue 3: '?'",
    }


def test_queries_of_one_sequence_are_searched_for_once():
    found = search(
        {"a": UBIQUITIN, "b": UBIQUITIN.lower(), "c": UBIQUITIN[:40]}, demo_databases(), cache=None
    )
    assert list(found) == ["a", "b", "c"]
    assert {record.queries for record in found.tasks} == {2}
    assert found.alignments["a"] == found.alignments["b"] != found.alignments["c"]
    assert search({}, demo_databases(), cache=None).tasks == []


# Databases and options


def test_databases_are_given_in_many_ways(tmp_path, monkeypatch):
    records = [("same", UBIQUITIN), *decoys(20)]
    path = database_of(tmp_path / "some.fasta", records).path
    monkeypatch.chdir(tmp_path)
    expected = find(UBIQUITIN, [Database("some", path)])["some"]
    for given_ in (
        tmp_path,
        str(tmp_path),
        path,
        "some.fasta",
        Path(),
        ["some.fasta"],
        {"some": "some.fasta"},
    ):
        found = find(UBIQUITIN, given_)
        assert list(found) == ["some"]
        assert_same(found["some"], expected)
    assert list(find(UBIQUITIN, {"bfd_mine": path, "uniref90_mine": path})) == ["uniref90_mine", "bfd_mine"]


def test_databases_must_be_named_apart(tmp_path):
    database = database_of(tmp_path / "db.fasta", decoys(3))
    with pytest.raises(SearchError, match="two databases are named db"):
        Search({}, [database, database])
    for nothing in ([], {}):
        with pytest.raises(SearchError, match="no database"):
            Search({}, nothing)


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    path = tmp_path / "db.fasta"
    path.write_bytes(b">caf\xe9\n" + UBIQUITIN.encode() + b"\n")
    with pytest.warns(UserWarning, match="database db holds 1 names that are not UTF-8"):
        (row,) = find(UBIQUITIN, path)["db"].descriptions[1:]
    assert row.startswith("caf") and row.isascii() and row.endswith("/1-76")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "blast"}, "blast.*pyhmmer"),
        ({"executor": "threads"}, "threads.*processes"),
        ({"workers": 0}, "0 workers"),
        ({"shards": 0}, "0 shards"),
        ({"schedule": "random"}, "random.*longest-first"),
        ({"schedule": "static", "shards": 3}, "static.*leave out the number of shards"),
        ({"max_hits": 0}, "max_hits is 0"),
        ({"max_hits": {"mgnify": 5}}, "mgnify, which is none of the databases"),
    ],
)
def test_options_that_make_no_sense(options, message, unchecked):
    with pytest.raises(SearchError, match=message):
        search({"q": UBIQUITIN}, demo_databases(), cache=None, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("MKV\n", "line 1"),
        (">a\nMKV\n>b\nMK1V\n", "line 4"),
        (">a\n" + "ACGT" * 99, "nucleotides"),
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_databases_that_are_not_right(tmp_path, content, message, workers):
    path = tmp_path / "db.fasta"
    path.write_text(content)
    with pytest.raises(SearchError, match=rf"db\.fasta.*{message}"):
        search({"q": UBIQUITIN}, path, cache=None, executor="processes", workers=workers)


def test_a_database_that_changes_during_the_search_is_noticed(tmp_path):
    """What was found belongs to neither the old one nor the new one, and must not be kept for either."""
    database = database_of(tmp_path / "db.fasta", [("same", UBIQUITIN), *decoys(20)])
    text = database.path.read_text()

    def change(progress: Progress):
        if progress.fraction == 1.0 and database.path.read_text() == text:
            database.path.write_text(text.replace("KTLTGK", "KTLAGK"))

    with pytest.raises(SearchError, match=r"db\.fasta: changed while it was searched"):
        search({"q": UBIQUITIN}, [database], cache=tmp_path / "cache", executor="serial", progress=change)
    found = search({"q": UBIQUITIN}, [database], cache=tmp_path / "cache")
    assert found["q"].sequences[1][:12] == "MQIFVKTLAGKT"


def test_warnings_are_pythons_unless_taken(tmp_path):
    search({"q": UBIQUITIN}, demo_databases(), cache=tmp_path)
    (entry, *_) = [path for path in (tmp_path / "alignments").rglob("*") if path.is_file()]
    entry.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged"):
        search({"q": UBIQUITIN}, demo_databases(), cache=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search({"q": UBIQUITIN}, demo_databases(), cache=tmp_path)


# Progress


def test_progress_grows_to_one_for_each_database_and_for_all():
    seen: list[Progress] = []
    queries = {"a": UBIQUITIN, "b": UBIQUITIN[:50]}
    search(queries, demo_databases(), shards=4, executor="serial", cache=None, progress=seen.append)
    searching = [progress for progress in seen if progress.doing == "searching"]
    assert len(searching) == 13
    for name in ("uniref90_demo", "small_bfd_demo", "mgnify_demo"):
        parts = [progress.databases[name] for progress in searching]
        assert parts == sorted(parts) and (parts[0], parts[-1]) == (0.0, pytest.approx(1.0))
    fractions = [progress.fraction for progress in searching]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    lefts = [progress.seconds_left for progress in searching]
    assert (
        lefts[0] is None and all(left > 0 for left in lefts[1:-1]) and lefts[-1] == pytest.approx(0, abs=1e-6)
    )
    done = [progress.queries_done for progress in seen]
    assert done == sorted(done) and (done[-1], seen[-1].queries) == (2, 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (3.0, "under a minute left"),
        (170.0, "about 3 min left"),
        (89 * 60.0, "about 89 min left"),
        (3 * 3600.0, "about 3.0 h left"),
    ],
)
def test_the_time_left_is_told_as_precisely_as_it_is_known(seconds, text):
    assert Progress("searching", {}, 0.5, 0, 1, seconds).time_left == text


def test_times_of_steps_and_tasks_are_told():
    found = search({"q": UBIQUITIN}, demo_databases(), shards=2, executor="serial", cache=None)
    assert set(found.seconds) == {"plan", "search", "merge"}
    assert [record.task for record in found.tasks] == list(range(6))
    assert sum(record.sequences for record in found.tasks) == sum(
        alignment.num_sequences for alignment in found.alignments["q"].values()
    )
    assert all(0 <= record.wall_seconds < 60 and record.peak_bytes > 10**6 for record in found.tasks)
