"""Damaged FASTA, a3m and Stockholm: read soundly, or refused in words; never another exception."""

import random
from pathlib import Path

import damage
import pytest

from parafold.errors import InputError, ParafoldError, SearchError
from parafold.msa import Database, databases_in, search
from parafold.msa.engines.base import Hit, Row
from parafold.msa.engines.pyhmmer import PyHmmer
from parafold.msa.shards import split, whole
from parafold.protein.alignment import (
    Msa,
    convert_stockholm_to_a3m,
    deduplicate_stockholm,
    parse_a3m,
    parse_stockholm,
    remove_empty_columns_from_stockholm,
    to_a3m,
    truncate_stockholm,
)
from parafold.protein.sequence import read_inputs

CASES = 1000
QUERY = "NLYIQWLKDGGPSSGRPPPS"
A3M = """#20\t1
>query
NLYIQWLKDGGPSSGRPPPS
>sp|P12345|TRPC_HUMAN/1-22 a member
NLYIaaQWLKDGGPSS--PPPS
>UniRef100_A0A1 n=1 Tax=x
--YIQWLRDGG.PSSGRPAPSkl
>tr|Q9XYZ1|Q9XYZ1_ECOLI/3-19
NLYVQWL---ggg-PSSGKPPPS
"""
STOCKHOLM = """# STOCKHOLM 1.0
#=GF ID query-i1
#=GS query         DE the query
#=GS sp|P1|A_HUMAN/1-21 DE [subseq from] a member
#=GS tr|Q1|B_ECOLI/4-18 DE another

query                   NLYIQW..LKDG
sp|P1|A_HUMAN/1-21      NLYIQWaaLKDG
#=GR sp|P1|A_HUMAN/1-21 PP 99999988****
tr|Q1|B_ECOLI/4-18      --YVQW..LRDG
#=GC PP_cons            999999..****
#=GC RF                 xxxxxx..xxxx

query                   GPSSGRPPPS-
sp|P1|A_HUMAN/1-21      GPSS--PPPSk
#=GR sp|P1|A_HUMAN/1-21 PP ****..****8
tr|Q1|B_ECOLI/4-18      -PSSGKPPP--
#=GC PP_cons            ***********
#=GC RF                 xxxxxxxxxx.
//
"""


def mutants(data: bytes, seed: int, count: int = CASES) -> list[bytes]:
    rng = random.Random(seed)
    return [damage.damaged(data, rng) for _ in range(count)]


def assert_sound(msa: Msa):
    width = len(msa.sequences[0])
    assert width > 0 and any(letter != "-" for letter in msa.sequences[0])
    assert all(len(row) == width and row.isascii() for row in msa.sequences)
    assert all(letter == "-" or "A" <= letter <= "Z" for row in msa.sequences for letter in row)
    assert (msa.deletions >= 0).all()
    again = parse_a3m(to_a3m(msa))
    assert again.sequences == msa.sequences and (again.deletions == msa.deletions).all()


def test_a3m():
    read = 0
    for data in mutants(A3M.encode(), seed=0):
        try:
            assert_sound(parse_a3m(data.decode("utf-8", "replace")))
            read += 1
        except InputError as error:
            assert str(error).startswith("a3m") and "\n" not in str(error)
    assert CASES // 10 < read < CASES * 9 // 10


def test_stockholm():
    read = 0
    for data in mutants(STOCKHOLM.encode(), seed=1):
        try:
            assert_sound(parse_stockholm(data.decode("utf-8", "replace")))
            read += 1
        except InputError as error:
            assert str(error).startswith("sto") and "\n" not in str(error)
    assert CASES // 20 < read < CASES * 9 // 10


@pytest.mark.parametrize(
    "edit",
    [
        convert_stockholm_to_a3m,
        deduplicate_stockholm,
        remove_empty_columns_from_stockholm,
        lambda text: truncate_stockholm(text, 2),
    ],
    ids=["to a3m", "deduplicate", "remove empty columns", "truncate"],
)
def test_edits_of_stockholm(edit):
    for data in mutants(STOCKHOLM.encode(), seed=2):
        text = data.decode("utf-8", "replace")
        try:
            before = parse_stockholm(text)
        except InputError:
            before = None
        try:
            after = edit(text)
        except InputError as error:
            assert str(error).startswith("sto") and "\n" not in str(error)
            continue
        if before is None:
            continue
        try:
            msa = (parse_a3m if edit is convert_stockholm_to_a3m else parse_stockholm)(after)
        except InputError:
            # Where a block's lines are mixed up, columns cannot be told; at least that is noticed.
            assert edit is remove_empty_columns_from_stockholm
        else:
            assert set(msa.sequences) <= set(before.sequences)
            assert msa.sequences[0] == before.sequences[0]


def test_queries(tmp_path: Path):
    fasta = f">T1 first\n{QUERY}\n>T2|x\nLSDEDFKAVFGMTRSAF\nANLPLWKQQNLKKEKGLF\n>T3\n{QUERY}:{QUERY}*\n"
    path = tmp_path / "queries.fasta"
    read = 0
    refused: list[str] = []
    for data in mutants(fasta.encode(), seed=3):
        path.write_bytes(data)
        refused.clear()
        try:
            targets = read_inputs(path, "auto", lambda _, error: refused.append(str(error)))
        except InputError as error:
            assert str(path) in str(error)
            continue
        read += bool(targets)
        assert all(str(path) in message and "\n" not in message for message in refused)
        for target in targets:
            assert all(set(sequence) <= set("ACDEFGHIKLMNPQRSTVWYX") for sequence in target.sequences)
    assert read > CASES // 2


@pytest.fixture(scope="module")
def prepared() -> bytes:
    return PyHmmer().prepare(QUERY)


def found_in(database: Database, prepared: bytes, shards: int | None) -> list[Row] | SearchError:
    """The rows of a database that is searched whole or in shards, or what the search says."""
    engine = PyHmmer()
    hits: list[Hit] = []
    size = 0
    try:
        for shard in split(database, shards) if shards else [whole(database)]:
            for chunk in engine.search({0: prepared}, database, shard, 10**9):
                size += chunk.sequences
                hits += chunk.hits.get(0, ())
    except SearchError as error:
        return error
    return engine.merge(QUERY, hits, size)


def database_text(seed: int, members: int = 12, others: int = 20) -> bytes:
    rng = random.Random(seed)
    records = []
    for i in range(members):
        letters = list(QUERY * 2)
        for at in rng.sample(range(len(letters)), 6):
            letters[at] = rng.choice("ACDEFGHIKLMNPQRSTVWY")
        records.append(
            f">sp|P{i:05}|M{i}_HUMAN member {i}\n{''.join(letters[:25])}\n{''.join(letters[25:])}\n"
        )
    for i in range(others):
        records.append(f">other{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=70))}\n")
    rng.shuffle(records)
    return "".join(records).encode()


def test_databases(tmp_path: Path, prepared: bytes):
    """The parts of a damaged database give what the whole gives, or the same refusal."""
    path = tmp_path / "db.fasta"
    database = Database("db", path)
    read = 0
    for number, data in enumerate(mutants(database_text(4), seed=5)):
        path.write_bytes(data)
        expected = found_in(database, prepared, None)
        found = found_in(database, prepared, 5)
        if isinstance(expected, SearchError):
            assert isinstance(found, SearchError) and str(found) == str(expected), number
            assert str(path) in str(found) and "\n" not in str(found)
        else:
            assert found == expected, number
            read += 1
    assert CASES // 4 < read < CASES


def test_searches_in_damaged_databases(tmp_path: Path):
    path = tmp_path / "db.fasta"
    said: list[str] = []
    refused = 0
    for data in mutants(database_text(6), seed=7, count=60):
        path.write_bytes(data)
        options = {"executor": "serial", "cache": None, "warn": said.append}
        try:
            found = search({"q": QUERY}, {"db": path}, shards=4, **options)
        except ParafoldError as error:
            refused += 1
            assert str(path) in str(error)
            with pytest.raises(ParafoldError):
                search({"q": QUERY}, {"db": path}, shards=1, **options)
        else:
            assert found.a3m("q") == search({"q": QUERY}, {"db": path}, shards=1, **options).a3m("q")
            assert_sound(found["q"])
    assert 0 < refused < 40


def test_a_folder_of_damaged_databases(tmp_path: Path):
    """What is no FASTA at all does not stop `databases_in` itself."""
    (tmp_path / "a.fasta").write_bytes(b"\x00\xff" * 100)
    (tmp_path / "b.fasta.gz").write_bytes(b"\x1f\x8b\x00")
    databases = databases_in(tmp_path)
    with pytest.raises(SearchError, match=r"[ab]\.fasta"):
        search({"q": QUERY}, databases, executor="serial", cache=None)
