"""Global alignment against a plain dynamic program, and exactness over any partition."""

import importlib.metadata
import json
import random

import pytest
from engine_runs import MEMORY, QUERIES, aligned_columns, found, residues
from hypothesis import given, settings
from hypothesis import strategies as st

from parafold.errors import SearchError
from parafold.msa import Database, demo_databases
from parafold.msa.engines import make_engine
from parafold.msa.shards import split

parasail = pytest.importorskip("parasail", reason="the package parasail is not installed")

LETTERS = "ACDEFGHIKLMNPQRSTVWYBXZUOJ"
SCORED = str.maketrans("UOJ*", "CKLX")
OPEN, EXTEND = 11, 1

sequences = st.text(LETTERS, min_size=2, max_size=30).filter(lambda text: set(text) != {"X"})
# Relatives of one another, so that many are hits.
relatives = st.builds(
    lambda core, begin, end: core[begin:] + core[:end],
    st.sampled_from(["MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNG", "MTYKLVLNGWTWKGETTEAVDAATEKVFKQYANDNA"]),
    st.integers(0, 9),
    st.integers(0, 9),
)


def match(a: str, b: str) -> int:
    matrix = parasail.blosum62
    order = "ARNDCQEGHILKMFPSTWYVBZX*"
    return int(matrix.matrix[order.index(a.translate(SCORED)), order.index(b.translate(SCORED))])


def best_score(a: str, b: str) -> int:
    """Gotoh's recursion, cell by cell."""
    never = -(10**6)
    aligned = [[never] * (len(b) + 1) for _ in range(len(a) + 1)]
    gap_a, gap_b = [row[:] for row in aligned], [row[:] for row in aligned]
    aligned[0][0] = 0
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if i:
                gap_b[i][j] = max(aligned[i - 1][j] - OPEN, gap_b[i - 1][j] - EXTEND)
            if j:
                gap_a[i][j] = max(aligned[i][j - 1] - OPEN, gap_a[i][j - 1] - EXTEND)
            if i and j:
                aligned[i][j] = aligned[i - 1][j - 1] + match(a[i - 1], b[j - 1])
            aligned[i][j] = max(aligned[i][j], gap_a[i][j], gap_b[i][j])
    return aligned[-1][-1]


def score_of(query: str, row: str) -> int:
    """What an a3m row scores."""
    score, at, kind = 0, 0, "match"
    for letter in row:
        before, kind = kind, "insert" if letter.islower() else "delete" if letter == "-" else "match"
        if kind == "match":
            score += match(query[at], letter)
        else:
            score -= EXTEND if kind == before else OPEN
        at += kind != "insert"
    return score


def database(folder, targets: list[str]) -> Database:
    path = folder / "targets.fasta"
    path.write_text("".join(f">t{number}\n{target}\n" for number, target in enumerate(targets)))
    return Database("targets", path)


@settings(max_examples=60, deadline=None)
@given(query=relatives | sequences, targets=st.lists(relatives | sequences, min_size=1, max_size=8))
def test_scores_and_rows_are_those_of_the_plain_recursion(tmp_path_factory, query, targets):
    rows = found(make_engine("needleman-wunsch"), query, database(tmp_path_factory.mktemp("nw"), targets))
    expected = {number: best_score(query, target) for number, target in enumerate(targets)}
    hits = {int(row.description[1:].partition("/")[0]): row for row in rows}
    assert {number: int(row.score) for number, row in hits.items()} == {
        number: score for number, score in expected.items() if score > 0
    }
    for number, row in hits.items():
        assert residues(row.row) == targets[number]
        assert aligned_columns(row.row) == len(query)
        assert score_of(query, row.row) == row.score
        assert row.description == f"t{number}/1-{len(targets[number])}"
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


@settings(max_examples=40, deadline=None)
@given(targets=st.lists(relatives, min_size=2, max_size=40), count=st.integers(2, 9), order=st.randoms())
def test_any_partition_gives_the_whole(tmp_path_factory, targets, count, order):
    engine, query = make_engine("needleman-wunsch"), QUERIES["protein_g"]
    path = tmp_path_factory.mktemp("nw") / "targets.fasta"
    # Names repeat, and so do sequences.
    path.write_text("".join(f">t{number % 5}\n{target}\n" for number, target in enumerate(targets)))
    source = Database("targets", path)
    shards = split(source, count)
    order.shuffle(shards)
    hits = [
        hit
        for shard in shards
        for chunk in engine.search({3: engine.prepare(query)}, source, shard, MEMORY)
        for hit in chunk.hits.get(3, [])
    ]
    whole = found(engine, query, source)
    assert engine.merge(query, hits, len(targets)) == whole
    assert len(whole) > 0


def test_demo_families_are_found():
    rows = found(make_engine("needleman-wunsch"), QUERIES["trp_cage"], demo_databases()[0])
    assert len(rows) > 50
    assert all(residues(row.row).isalpha() and aligned_columns(row.row) == 20 for row in rows)


def test_letters_without_a_line_in_the_matrix(tmp_path):
    query = "ACDEFGHIKLMNPQRSTVWYUOJBZXACDEF"
    target = "ACDEFGHIKLMNPQRSTVWYUOJBZX*CDEF"
    (row,) = found(make_engine("needleman-wunsch"), query, database(tmp_path, [target, "", "acdef*"]))
    assert row.row == target.replace("*", "X")
    assert row.score == best_score(query, target)


def test_long_sequences_do_not_overflow(tmp_path):
    """An identity beyond 16 bits, and costs of gaps beyond them."""
    query = "W" * 3100
    rows = found(make_engine("needleman-wunsch"), query, database(tmp_path, [query, "W" * 99_000]))
    assert [(row.score, row.row) for row in rows] == [(11.0 * 3100, query)]
    rng = random.Random(0)
    long = "".join(rng.choices(LETTERS[:20], k=2600))
    other = long[:1200] + "G" * 3000 + long[1200:]
    (row,) = found(make_engine("needleman-wunsch"), long, database(tmp_path, [other]))
    own = sum(match(letter, letter) for letter in long)
    assert row.score == own - OPEN - 2999 * EXTEND == score_of(long, row.row)


def test_memory_is_bounded(tmp_path):
    query = "W" * 2000
    with pytest.raises(SearchError, match=r"2000 and 2000 residues takes 3 MiB of memory"):
        found(make_engine("needleman-wunsch"), query, database(tmp_path, [query]), memory=1 << 20)


def test_a_malformed_database_is_named_with_its_line(tmp_path):
    path = tmp_path / "bad.fasta"
    path.write_bytes(b">a\nACDEF\n>b\nAC1DEF\n")
    with pytest.raises(SearchError, match=r"bad\.fasta line 4: illegal character 1"):
        found(make_engine("needleman-wunsch"), "ACDEF", Database("bad", path))


def test_a_missing_package_is_named_at_the_start(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    engine = make_engine("needleman-wunsch")
    assert engine.version == f"parasail {parasail.__version__}"
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(SearchError, match="pip install parasail"):
        engine.check(demo_databases()[0])


def test_engine_travels_as_name_and_options():
    engine = make_engine("needleman-wunsch")
    assert json.loads(json.dumps([dict(engine.options), dict(engine.parameters)]))[0] == {}
    with pytest.raises(SearchError, match="needleman-wunsch"):
        make_engine("needleman-wunsch", cpu=3)
