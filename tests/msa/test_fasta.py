import bz2
import gzip
import lzma
import re
import shutil
import subprocess
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parafold.errors import SearchError
from parafold.msa.fasta import EMPTY, NAMES, STARS, count_records, read_blocks, unpacked_bytes

FASTA = b">a first\nACDEFGHIKL\nMNPQRSTVWY\n\n>b\nacdefg\n>c\n\nWWWW*\n"
RECORDS = [("a", "ACDEFGHIKLMNPQRSTVWY"), ("b", "ACDEFG"), ("c", "WWWW*")]


def write(path, data):
    path.write_bytes(data)
    return path


def records(path, residues=250_000, **options):
    return [
        (record.name, record.textize().sequence)
        for block in read_blocks(path, residues=residues, **options)
        for record in block
    ]


@pytest.mark.parametrize("residues", [1, 25, 1000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_plain_and_packed_files_read_alike(tmp_path, pack, residues):
    assert records(write(tmp_path / "db", pack(FASTA)), residues) == RECORDS


def test_windows_line_ends(tmp_path):
    assert records(write(tmp_path / "db", FASTA.replace(b"\n", b"\r\n"))) == RECORDS


LONG = b"".join(b">s%d\nACDEFGHIKLMNPQRSTVWY\n" % i for i in range(5000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "holds no sequence"),
        (b"<html><body>404</body></html>", "line 1: unexpected char <"),
        (b"ACDEF\n", "line 1: unexpected char A"),
        (b">a\nACDEF\n>b\nAC1DEF\n", "line 4: illegal character 1"),
        (LONG + b">bad\nACD EF-\n", "line 10002: illegal character -"),
        (b">a\nAC\0DEF\n", "line 2: illegal character NUL"),
        (b">\nACDEF\n", "line 1: no FASTA name"),
        (b"\xef\xbb\xbf>a\nACDEF\n", "byte order mark"),
        (b">a\nACDEFGHIKL\n>b the last one\n", "line 3: ends after the header of b"),
        (b">a\n" + b"ACGT" * 100, "line 1: holds nucleotides"),
        (b">a\nACD\n>b\n" + b"ACDEF" * 20_001, "line 3: record b has 100005 residues"),
        (b">a\nAC\x0bDEF\n", r"line 2: illegal character \\x0b"),
        (b">a\nAC\xe9DEF\n", "line 2: non-ASCII character in sequence"),
        (b"\n\n>a\n\n\nACD\n\nAC1\n", "line 8: illegal character 1"),
        (gzip.compress(LONG)[:-5000], "damaged or truncated"),
        (lzma.compress(LONG)[:-500], "damaged or truncated"),
        (gzip.compress(LONG)[:200] + b"?" * 40 + gzip.compress(LONG)[240:], "damaged or truncated"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 40, "packed by zstd"),
    ],
)
def test_what_is_no_protein_database_is_refused(tmp_path, data, message):
    path = write(tmp_path / "db.fasta", data)
    with pytest.raises(SearchError, match=message) as caught:
        records(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.integers(0, len(FASTA)), st.binary(max_size=6), st.integers(0, 6))
def test_damage_is_refused_or_harmless_but_never_another_error(tmp_path, pack, at, inserted, lost):
    packed = (bytes, gzip.compress, lzma.compress, bz2.compress)[pack](FASTA)
    damaged = packed[:at] + inserted + packed[at + lost :]
    try:
        blocks = list(read_blocks(write(tmp_path / "db.fasta", damaged)))
    except SearchError as error:
        assert str(error).startswith(str(tmp_path / "db.fasta"))
    else:
        assert sum(map(len, blocks)) >= 1


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent.fasta", tmp_path):
        with pytest.raises(SearchError, match="cannot be read"):
            records(path)


def test_what_is_odd_but_read_is_counted(tmp_path):
    path = write(tmp_path / "db.fasta", b">a\n>b\nAC*DEF\n>c\n\n>d\nACDEF*\n>h\xe9t\nACD\n>h\xc3\xa9t\nACD\n")
    for residues in (1, 250_000):
        warnings = Counter()
        found = records(path, residues, warnings=warnings)
        assert warnings == {EMPTY: 2, STARS: 2, NAMES: 1}
        assert [name for name, _ in found] == ["a", "b", "c", "d", r"h\xe9t", "hét"]
    warnings = Counter()
    records(write(tmp_path / "fine.fasta", LONG), warnings=warnings)
    assert not warnings


@pytest.mark.parametrize(
    "read",
    [
        lambda path, told: list(unpacked_bytes(path, told)),
        lambda path, told: records(path, 9000, progress=told),
    ],
)
def test_progress_is_told_in_bytes_of_the_file(tmp_path, read):
    path = write(tmp_path / "db.fasta.gz", gzip.compress(LONG))
    steps = []
    read(path, lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1] == (path.stat().st_size,) * 2


def test_records_are_counted_in_packed_files(tmp_path):
    for pack in (bytes, gzip.compress, lzma.compress, bz2.compress):
        assert count_records(write(tmp_path / "db", pack(LONG))) == 5000


HIT = b">hit\nMQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG\n"
REST = b">r1\nACDEFGHIKLMNPQRSTVWYACDEFGHIKLMNPQRSTVWY\n>r2\nMKVLAAGIVGLLLAQWERTYPASDFGHKLCVNM\n"
MALFORMED = {
    "empty record": b">e\n" + HIT,
    "empty record at the begin": b">e\n>f\n" + HIT,
    "star inside": HIT[:40] + b"*" + HIT[40:],
    "star at the end": HIT[:-1] + b"*\n",
    "digit": b">x\nACD1EF\n" + HIT,
    "gap": b">x\nAC-DEF\n" + HIT,
    "dots": b">x\nAC..DEF~\n" + HIT,
    "rare letters": b">x\nACOUJBZX\n" + HIT,
    "comment": b";comment\n" + HIT,
    "byte order mark inside": b"\xef\xbb\xbf" + HIT,
    "NUL in sequence": b">x\nAC\0D\n" + HIT,
    "NUL in name": b">x\0y\nACD\n" + HIT,
    "tab": b">x\nAC\tD\n" + HIT,
    "form feed": b">x\nAC\x0cD\n" + HIT,
    "one residue": b">x\nA\n" + HIT,
    "unknown residues": b">x\n" + b"X" * 50 + b"\n" + HIT,
    "no name": b">\nACD\n" + HIT,
    "spaces for a name": b">  \nACD\n" + HIT,
    "space before the name": b">  x\nACD\n" + HIT,
    "record after spaces": b"  >x\nACD\n" + HIT,
    "record within a line": b">x\nACD>EF\n" + HIT,
    "'>' at a line's end": b">x\nACD>\n" + HIT,
    "blank lines": b"\n\n" + HIT[:30] + b"\n\n" + HIT[30:] + b" \n\n",
    "nucleotides inside": b">x\n" + b"ACGT" * 30 + b"\n" + HIT,
    "name twice": HIT + HIT,
    "long header": b">x " + b"d" * 1_000_000 + b"\nACD\n" + HIT,
    "long line": b">x\n" + b"ACDEF" * 19_000 + b"\n" + HIT,
    "too long": b">x\n" + b"ACDEF" * 2_000_000 + b"\n" + HIT,
    "Latin-1 name": b">x\xe9\nACD\n" + HIT,
    "lower case": HIT.lower(),
    "one CR": b">x\rACD\rEF\n" + HIT,
}


@pytest.mark.skipif(shutil.which("jackhmmer") is None, reason="needs the program jackhmmer")
@pytest.mark.parametrize("form", [bytes, lambda t: t.replace(b"\n", b"\r\n"), lambda t: t[:-1]])
@pytest.mark.parametrize("defect", MALFORMED)
def test_what_jackhmmer_takes_is_taken_alike(tmp_path, defect, form):
    path = write(tmp_path / "db.fasta", form(REST + MALFORMED[defect] + REST.replace(b"r", b"s")))
    query = write(tmp_path / "query.fasta", HIT)
    program = subprocess.run(
        ["jackhmmer", "-N", "1", "--cpu", "0", "-o", tmp_path / "out", query, path],
        capture_output=True,
        timeout=60,
    )
    try:
        found = records(path)
    except SearchError as error:
        assert program.returncode != 0
        line = re.search(rb"Line (\d+)", program.stderr)
        told = re.search(r"db.fasta line (\d+): ", str(error))
        assert told and (line is None or int(told[1]) == int(line[1]))
    else:
        assert program.returncode == 0, program.stderr
        counts = re.search(rb"Target sequences: +(\d+) +\((\d+) res", (tmp_path / "out").read_bytes())
        residues = sum(len(sequence) for _, sequence in found)
        assert counts and (int(counts[1]), int(counts[2])) == (len(found), residues)


LINES = st.lists(
    st.sampled_from([b">x\n", b">y > z\r\n", b"ACDEF\n", b"acd\r\n", b"\n", b"  \n", b"\r\n", b">e\n\n\n"]),
    max_size=30,
).map(b"".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, LINES)
def test_the_line_of_an_error_is_that_of_an_editor(tmp_path, before, after):
    text = b">first\n" + before + b"AC1\n" + after
    with pytest.raises(SearchError, match=f" line {2 + before.count(bytes([10]))}: illegal character 1"):
        records(write(tmp_path / "db.fasta", text))
