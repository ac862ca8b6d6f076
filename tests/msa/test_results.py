"""Results of tasks: what is read is what was found, or nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parafold.msa.engines import Chunk, Domain, Hit
from parafold.msa.results import Result, ResultWriter, TaskRecord
from parafold.msa.sealed import DamagedError, write_sealed

RECORD = TaskRecord(
    task=3,
    database="db",
    bytes=1000,
    queries=2,
    query_residues=150,
    sequences=30,
    residues=900,
    started=1.5e9,
    cpu_seconds=0.123456,
    wall_seconds=0.2,
    peak_bytes=10**8,
    worker="host:1",
)
floats = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.integers(1, 10**6)
domains = st.tuples(floats, numbers, numbers, st.text("ACD-acd", max_size=9))
hits = st.tuples(st.text(max_size=9), floats, floats, numbers, st.lists(domains, max_size=2))
found = st.dictionaries(st.integers(0, 3), st.lists(hits, min_size=1, max_size=3), max_size=3)
A_HIT = Hit("name/x", 31.4000015, 1e-300, 2, (Domain(2e-9, 2, 4, "-ACd-"), Domain(0.1, 7, 8, "A----")))


def hit(name, score, evalue, start, drawn) -> Hit:
    return Hit(name, score, evalue, start, tuple(Domain(*values) for values in drawn))


def write(path, some_chunks, plan="p"):
    with ResultWriter(path, plan) as writer:
        for chunk in some_chunks:
            writer.add(chunk)
        writer.finish(RECORD)
    return writer


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(numbers, numbers, found), max_size=3))
def test_what_was_found_is_read_to_the_last_bit_in_order(tmp_path, drawn):
    path = tmp_path / "result"
    some_chunks = [
        Chunk(sequences, residues, {query: [hit(*values) for values in some] for query, some in of.items()})
        for sequences, residues, of in drawn
    ]
    writer = write(path, some_chunks)
    assert writer.sequences == sum(chunk.sequences for chunk in some_chunks)
    assert writer.residues == sum(chunk.residues for chunk in some_chunks)
    result = Result(path)
    assert result.record == RECORD
    for query in range(5):
        expected = [one for chunk in some_chunks for one in chunk.hits.get(query, ())]
        assert list(result.hits(query)) == expected


def test_a_result_is_there_when_it_is_complete(tmp_path):
    path = tmp_path / "result"
    with pytest.raises(RuntimeError), ResultWriter(path, "p") as writer:
        writer.add(Chunk(1, 1, {0: [A_HIT]}))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage_is_noticed(tmp_path, data):
    path = tmp_path / "result"
    write(path, [Chunk(1, 1, {0: [A_HIT]}), Chunk(1, 1, {1: [A_HIT]})])
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))]) + content[at + 1 :]
    for damaged in (flipped, content[:at]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=str(path)):
            Result(path)


def test_damage_after_it_was_opened_is_noticed_too(tmp_path):
    path = tmp_path / "result"
    write(path, [Chunk(1, 1, {0: [A_HIT]})])
    result = Result(path)
    assert list(result.hits(0)) == [A_HIT]
    path.write_bytes(path.read_bytes().replace(b"-ACd-", b"-AAd-"))
    with pytest.raises(DamagedError, match="has changed"):
        list(result.hits(0))
    path.unlink()
    with pytest.raises(DamagedError, match="cannot be read"):
        list(result.hits(0))


def test_a_result_belongs_to_its_plan(tmp_path):
    path = tmp_path / "result"
    write(path, [Chunk(1, 1, {0: [A_HIT]})], plan="one")
    assert list(Result(path, "one").hits(0)) == list(Result(path).hits(0)) == [A_HIT]
    with pytest.raises(DamagedError, match=r"another plan.*made again"):
        Result(path, "other")


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"[]\n", b'{"plan": "p", "segments": [], "record": {}}\n', b"\xff\n"]
)
def test_what_is_no_result(tmp_path, content):
    write_sealed(tmp_path / "result", [content])
    with pytest.raises(DamagedError, match="no result of this version"):
        Result(tmp_path / "result")
