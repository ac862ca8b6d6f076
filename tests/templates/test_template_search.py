"""Template search gives what AlphaFold gets from HMMER's programs."""

import datetime
import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import template_programs as programs

from parafold.errors import InputError, SearchError
from parafold.msa import Database, demo_databases, search
from parafold.msa.database import shard_path
from parafold.protein.alignment import Msa, fasta_records, parse_a3m, parse_stockholm
from parafold.templates import parse_hmmsearch_a3m
from parafold.templates.entry import read_chains
from parafold.templates.hmmsearch import a3m_rows
from parafold.templates.profile import build_profile
from parafold.templates.search import find_templates, hmmsearch, hmmsearch_a3m

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "tests/golden/oracle/data"
DATA = Path(os.environ.get("PARAFOLD_DATA", "/nonexistent"))
# CI installs HMMER: there the comparison is made, or it fails.
needs_hmmer = pytest.mark.skipif(
    not programs.HAVE_HMMER and "CI" not in os.environ, reason="needs HMMER's programs: apt-get install hmmer"
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="PARAFOLD_DATA does not point to real databases")

EXAMPLES = {
    path.stem: path.read_text().split("\n")[1].partition(":")[0]
    for path in sorted((ROOT / "examples").glob("*.fasta"))
}
UBIQUITIN = EXAMPLES["ubiquitin"]


def demo(name):
    return next(database.path for database in demo_databases() if database.name.startswith(name))


@pytest.fixture(scope="module")
def seqres(tmp_path_factory):
    """A pdb_seqres of the demonstration's simulated proteins, a few of them called nucleic acids."""
    folder = tmp_path_factory.mktemp("seqres")
    records = []
    for number, (_, _, sequence) in enumerate(fasta_records(demo("small_bfd").read_text(), "demo")):
        molecule = "na" if number % 50 == 7 else "protein"
        records.append(
            f">{_name(number)} mol:{molecule} length:{len(sequence)}  SIMULATED {number}\n{sequence}\n"
        )
    path = folder / "pdb_seqres.fasta"
    path.write_text("".join(records))
    return path


def _name(number):
    letters = "abcdefghijklmnopqrstuvwxyz"
    middle = "".join(letters[number // 26**i % 26] for i in range(3))
    return f"{number % 9 + 1}{middle}_{'ABCD'[number % 4]}"


def write_shards(path, count):
    """Physical shards of a FASTA file, named as AlphaFold 3 names them."""
    records = [">" + text for text in path.read_text().split(">")[1:]]
    base = path.with_name(f"{count}_{path.name}")
    for index in range(count):
        part = records[len(records) * index // count : len(records) * (index + 1) // count]
        shard_path(base, index, count).write_text("".join(part))
    return base.with_name(f"{base.name}@{count}")


def found_by_program(stockholm, database, folder):
    return programs.hmmsearch(programs.hmmbuild(stockholm, folder), database, folder)


def text_of(profile, folder):
    path = folder / "ours.hmm"
    with path.open("wb") as file:
        profile.write(file)
    return path.read_text()


def assert_equal_but_for_the_last_digits(first, second):
    """Two profiles, apart from the emissions of insert states."""
    for ours, theirs in zip(programs.insertion_free(first), programs.insertion_free(second), strict=True):
        assert [type(word) for word in ours] == [type(word) for word in theirs]
        for a, b in zip(ours, theirs, strict=True):
            if not isinstance(a, str) and not isinstance(b, str):
                assert abs(a - b) < 5e-5
            else:
                assert a == b


@needs_hmmer
@pytest.mark.parametrize("name", EXAMPLES)
def test_as_the_programs_on_demonstration_data(name, seqres, tmp_path):
    stockholm = programs.jackhmmer(EXAMPLES[name], demo("uniref90"), tmp_path)
    expected = found_by_program(stockholm, seqres, tmp_path)
    profile = programs.content((tmp_path / "query.hmm").read_text())
    rows = programs.a3m_rows(stockholm)
    assert programs.content(text_of(build_profile(rows), tmp_path)) == profile
    assert hmmsearch_a3m(rows, seqres) == expected
    msa = parse_stockholm(stockholm)
    assert_equal_but_for_the_last_digits(
        programs.content(text_of(build_profile(a3m_rows(msa)), tmp_path)), profile
    )
    assert hmmsearch_a3m(msa, seqres) == expected
    hits = hmmsearch(msa, seqres)
    assert hits == parse_hmmsearch_a3m(EXAMPLES[name], expected, skip_first=False)
    assert hits


@needs_hmmer
def test_our_own_alignment_gives_the_same(seqres, tmp_path):
    found = search(
        {"q": UBIQUITIN}, Database("uniref90", demo("uniref90")), executor="serial", cache=None
    ).alignments["q"]["uniref90"]
    stockholm = programs.jackhmmer(UBIQUITIN, demo("uniref90"), tmp_path)
    expected = found_by_program(stockholm, seqres, tmp_path)
    assert len(found.rows) > 10
    assert hmmsearch_a3m(found, seqres) == expected
    assert hmmsearch_a3m(found.msa(), seqres) == expected


def real_queries():
    if not DATA.is_dir():
        return []
    text = (DATA / "structures30/sequences.fasta").read_text()
    return [(name.split()[0], sequence) for _, name, sequence in fasta_records(text, "sequences")]


@needs_hmmer
@needs_data
def test_as_the_programs_on_real_data(tmp_path):
    """30 queries with the alignments that were made for them, and one with AlphaFold's own Stockholm file."""
    database = DATA / "af3_mini/pdb_seqres_2022_09_28__subsampled_1000.fasta"
    alignments = {}
    for path in sorted((DATA / "msa30_a3m").glob("*.a3m")):
        rows = [row for _, _, row in fasta_records(path.read_text(), path.name)][:200]
        alignments[path.stem] = (rows, programs.stockholm(rows))
    published = (DATA / "openfold_2q_short/alignments/uniref90_hits.sto").read_text()
    alignments["2q2k"] = (programs.a3m_rows(published), published)
    assert len(alignments) == 31
    for name, (rows, stockholm) in alignments.items():
        expected = found_by_program(stockholm, database, tmp_path)
        profile = programs.content((tmp_path / "query.hmm").read_text())
        assert programs.content(text_of(build_profile(rows), tmp_path)) == profile, name
        assert hmmsearch_a3m(rows, database) == expected, name
        assert hmmsearch_a3m(parse_a3m("".join(f">x\n{row}\n" for row in rows)), database) == expected, name


@needs_hmmer
@pytest.mark.parametrize("copies", [1, 2, 10, 11])
def test_equal_names_are_numbered_as_easel_does(copies, tmp_path):
    record = f">1abc_A mol:protein length:76  UBIQUITIN\n{UBIQUITIN}\n"
    path = tmp_path / "x.fasta"
    path.write_text(record * copies + f">9xyz_B\n{UBIQUITIN}\n")
    stockholm = programs.stockholm([UBIQUITIN])
    text = hmmsearch_a3m([UBIQUITIN], path)
    assert text == found_by_program(stockholm, path, tmp_path)
    assert next(name.split("/")[0] for _, name, _ in fasta_records(text, "x")) == (
        "1abc_A" if copies == 1 else "0|1abc_A" if copies == 2 else "00|1abc_A"
    )
    assert [hit.name for hit in hmmsearch([UBIQUITIN], path)] == ["1abc_A"] * copies


@pytest.fixture(scope="module")
def whole(seqres):
    return hmmsearch_a3m([UBIQUITIN], seqres, workers=1)


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("count", [2, 7, 60])
def test_shards_and_workers_change_nothing(workers, count, seqres, whole):
    database = Database("pdb_seqres", write_shards(seqres, count))
    assert hmmsearch_a3m([UBIQUITIN], database, workers=workers) == whole
    assert whole.count(">") > 100


def test_the_number_of_sequences_can_be_given(seqres, whole):
    """E-values of a larger database than the one that is searched: the last hits are no longer reported."""
    size = seqres.read_text().count(">")
    same = hmmsearch_a3m([UBIQUITIN], Database("pdb_seqres", seqres, z=size))
    larger = hmmsearch_a3m([UBIQUITIN], Database("pdb_seqres", seqres, z=1000 * size), workers=-1)
    assert same == whole
    assert whole.startswith(larger)
    assert 0 < len(larger) < len(whole)


def test_a_packed_database(seqres, whole, tmp_path):
    path = tmp_path / "pdb_seqres.gz"
    path.write_bytes(gzip.compress(seqres.read_bytes()))
    told = []
    assert hmmsearch_a3m([UBIQUITIN], path, progress=told.append) == whole
    assert told[-1] == seqres.read_text().count(">")


def test_order_of_the_database_does_not_matter(seqres, whole, tmp_path):
    records = [">" + text for text in seqres.read_text().split(">")[1:]]
    random.Random(1).shuffle(records)
    path = tmp_path / "shuffled.fasta"
    path.write_text("".join(records))
    assert hmmsearch_a3m([UBIQUITIN], path) == whole


def test_nothing_found(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_text(">1abc_A mol:protein length:20  X\nWWWWWWWWWWWWWWWWWWWW\n")
    assert hmmsearch_a3m([UBIQUITIN], path) == ""
    assert hmmsearch([UBIQUITIN], path) == []


def test_nucleic_acids_are_no_templates(seqres, whole):
    names = [hit.name for hit in hmmsearch([UBIQUITIN], seqres)]
    in_text = [name for _, name, _ in fasta_records(whole, "x")]
    assert len(names) == sum("mol:protein" in name for name in in_text) < len(in_text)


def test_letters_of_insertions_move_no_more_than_the_last_digits(tmp_path):
    rows = [UBIQUITIN, UBIQUITIN[:20] + "wwwcc" + UBIQUITIN[20:]]
    rows.append(UBIQUITIN[:30] + "g" + UBIQUITIN[30:60] + "-" * 16)
    other = [row.translate(str.maketrans("wcg", "xxx")) for row in rows]
    profiles = [programs.content(text_of(build_profile(each), tmp_path)) for each in (rows, other)]
    assert profiles[0] != profiles[1]
    assert_equal_but_for_the_last_digits(*profiles)
    msa = parse_a3m("".join(f">x\n{row}\n" for row in rows))
    assert programs.content(text_of(build_profile(a3m_rows(msa)), tmp_path)) == profiles[1]


def test_repeated_rows_do_not_count(tmp_path):
    rows = [UBIQUITIN, UBIQUITIN[:20] + "w" + UBIQUITIN[20:], UBIQUITIN[:40] + "-" * 36]
    once = text_of(build_profile([rows[0], rows[2]]), tmp_path)
    assert programs.content(text_of(build_profile([*rows, rows[2]]), tmp_path)) == programs.content(once)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the alignment has no row"),
        (["---"], "no query to build a profile of"),
        (["MKV", "MK"], "a row of 2 columns in the alignment of a query of 3 residues"),
        (["MKV", "M1V"], "HMMER makes no profile"),
        (["MKV", "MéV"], "HMMER makes no profile"),
    ],
)
def test_alignments_that_are_none(rows, message, seqres):
    with pytest.raises(SearchError, match=message):
        hmmsearch(rows, seqres)


@pytest.mark.parametrize("query", ["M", "XXXXXXXX", "WW", "U" * 12, "BZJOUX" * 4, "M" * 3000])
def test_odd_queries(query, seqres):
    assert all(hit.query == query for hit in hmmsearch(Msa.query_only(query), seqres))


def test_a_database_of_other_proteins():
    with pytest.raises(SearchError, match=r"have no 'mol:protein length:\.\.\.' in their headers"):
        hmmsearch([UBIQUITIN], demo("uniref90"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b">1abc_A mol:protein length:3  X\nM?V\n", "line 2: "),
        (None, "No such file"),
    ],
)
def test_damaged_databases(data, message, tmp_path):
    path = tmp_path / "x.fasta"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SearchError, match=message):
        hmmsearch([UBIQUITIN], path)


_MEMORY = """
import resource, sys
from parafold.templates.search import hmmsearch_a3m
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
hmmsearch_a3m([sys.argv[1]], sys.argv[2], workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_database(tmp_path):
    """40 MB of sequences that are not like the query."""
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    drawn = np.random.default_rng(1).integers(0, 20, 1_000_000)
    sequences = letters[drawn].tobytes().decode()
    path = tmp_path / "large.fasta"
    with path.open("w") as file:
        for copy in range(40):
            for start in range(0, len(sequences), 20_000):
                file.write(f">{_name(copy)} mol:protein length:20000\n{sequences[start : start + 20_000]}\n")
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, UBIQUITIN, str(path)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) * (1 if sys.platform != "darwin" else 1 / 1024) < 100_000


def test_find_templates_from_alignment_to_features(tmp_path):
    """A relative of one of the oracle's structures finds it, and lies on it residue by residue."""
    query = "QAQDIMTQNVVSIRGTATVADAVRLMKEKKLKGLIVEP"
    sequences = {path.stem: _sequence(path) for path in sorted((ORACLE / "mmcif").glob("*.cif"))}
    database = tmp_path / "pdb_seqres.txt"
    database.write_text(
        "".join(f">{name}_A mol:protein length:{len(s)}  X\n{s}\n" for name, s in sequences.items())
        + f">9zzz_A mol:protein length:{len(query)}  X\n{query[:30]}WWWWWWWW\n"
    )

    def find(date: str | datetime.date = "2022-01-01", **options):
        result = find_templates(query, [query], database, ORACLE / "mmcif", date, **options)
        return result.features["template_domain_names"].tolist(), result

    names, result = find()
    assert names == [b"1aaa_A"]
    start = sequences["1aaa"].index("QAQEIMTQ")
    partners = sequences["1aaa"][start : start + len(query)]
    assert result.features["template_sequence"].tolist() == [partners.encode()]
    atoms = read_chains(ORACLE / "mmcif/1aaa.cif")["A"].atoms()[0][start : start + len(query)]
    np.testing.assert_array_equal(result.features["template_all_atom_positions"][0], atoms)
    assert result.errors == []
    assert "lacks the mmCIF files of 1 hit, left out: 9zzz_A" in result.warnings[0]
    assert find(datetime.date(2010, 1, 1))[0] == [b"1aaa_A"]
    assert find("2009-12-31")[0] == find(obsolete={"1aaa": None})[0] == find(max_hits=0)[0] == []


def _sequence(path):
    return read_chains(path)["A"].sequence


def never(searched):
    raise AssertionError(searched)


def test_what_is_wrong_is_said_before_the_search(seqres, tmp_path):
    def find(query=UBIQUITIN, database=seqres, folder=ORACLE / "mmcif", date="2022-01-01"):
        return find_templates(query, [UBIQUITIN], database, folder, date, progress=never)

    with pytest.raises(InputError, match="write it as YYYY-MM-DD"):
        find(date="2022")
    with pytest.raises(InputError, match="No such file or directory"):
        find(folder=tmp_path / "none")
    with pytest.raises(InputError, match="the first row of its alignment is another sequence"):
        find(query="MKV")
    with pytest.raises(SearchError, match="is a folder; give the FASTA file of pdb_seqres"):
        find(database=tmp_path)
    (tmp_path / "x.dbtype").write_bytes(b"")
    with pytest.raises(SearchError, match="a database of mmseqs holds no templates"):
        find(database=tmp_path / "x")
