"""The folder of mmCIF files: what is found in it, what it lacks, what in it is damaged."""

import datetime
import gzip
import shutil
from pathlib import Path

import pytest

from parafold.errors import InputError
from parafold.protein.alignment import parse_a3m
from parafold.templates import featurize_hits, parse_hhr, read_obsolete
from parafold.templates.library import Library

DATA = Path(__file__).parents[1] / "golden/oracle/data"
QUERY = parse_a3m((DATA / "bfd.a3m").read_text()).sequences[0]
HITS = parse_hhr((DATA / "hits.hhr").read_text())[:3]
TEXT = {path.stem: path.read_text() for path in sorted((DATA / "mmcif").iterdir())}


def featurize(folder, hits=HITS, **options):
    result = featurize_hits(QUERY, hits, folder, "2022-01-01", **options)
    return [name.decode() for name in result.features["template_domain_names"]], result


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize(
    "names",
    [
        ("1aaa.cif", "2bbb.cif", "3ccc.cif"),
        ("1AAA.cif", "2bbb.cif.gz", "3CCC.cif.gz"),
        ("aa/1aaa.cif.gz", "bb/2bbb.cif", "CC/3CCC.cif"),
    ],
)
def test_files_are_found_by_any_of_the_usual_names(names, tmp_path):
    for name, text in zip(names, TEXT.values(), strict=True):
        write(tmp_path / name, text)
    found, result = featurize(tmp_path)
    assert found == ["2bbb_A", "1aaa_A", "3ccc_A"]
    assert (result.errors, result.warnings) == ([], [])


def test_a_wrong_folder(tmp_path):
    with pytest.raises(InputError, match=r"no \.cif files in it; give the folder"):
        featurize(tmp_path)
    with pytest.raises(InputError, match=r"none: cannot be read \(No such file or directory\)"):
        featurize(tmp_path / "none")
    (tmp_path / "file.cif").write_text("data_x")
    with pytest.raises(InputError, match=r"file\.cif: cannot be read \(Not a directory\)"):
        featurize(tmp_path / "file.cif")


def test_many_missing_files_make_one_warning(tmp_path):
    write(tmp_path / "9zzz.cif", TEXT["1aaa"])
    found, result = featurize(tmp_path)
    assert (found, result.errors) == ([], [])
    assert result.warnings == [
        f"{tmp_path} lacks the mmCIF files of 3 hits, left out: 2bbb_A, 1aaa_A, 3ccc_A; fetch them for the "
        "best templates"
    ]


LOOP = "_pdbx_audit_revision_history.revision_date"


@pytest.mark.parametrize(
    ("name", "damaged", "reason"),
    [
        ("1aaa.cif", "", "1aaa.cif is empty"),
        ("1aaa.cif", "<html><body>not found</body></html>", "is a web page"),
        ("1aaa.cif", "data_1aaa\nloop_\n_a.b\n_a.c\n1 2 3\n", "not an mmCIF file"),
        ("1aaa.cif", "data_1aaa\n_a.b 'no end\n", "not an mmCIF file"),
        ("1aaa.cif", f"data_1aaa\n{LOOP} 2010-01-01\n", "no atoms in it"),
        ("1aaa.cif", f"data_1aaa\n{LOOP} 2010-13-01\n", "gives no release date"),
        ("1aaa.cif", "\x00\x01", "is a binary file"),
        ("1aaa.cif.gz", None, "cannot be unpacked"),
        ("1aaa.cif.gz", b"plain text", "cannot be unpacked"),
    ],
)
def test_a_damaged_file_costs_its_hit_only(name, damaged, reason, tmp_path):
    for other in ("2bbb", "3ccc"):
        write(tmp_path / f"{other}.cif", TEXT[other])
    data = gzip.compress(TEXT["1aaa"].encode())[:-500] if damaged is None else damaged
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    found, result = featurize(tmp_path)
    assert found == ["2bbb_A", "3ccc_A"]
    assert result.errors == []
    (warning,) = result.warnings
    assert warning.startswith("1aaa_A: ")
    assert reason in warning


@pytest.mark.parametrize("number", ["?", "1e300", "nan", "x"])
def test_coordinates_that_are_no_numbers(number, tmp_path):
    shutil.copytree(DATA / "mmcif", tmp_path, dirs_exist_ok=True)
    lines = TEXT["1aaa"].splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("ATOM") and " CA " in line)
    fields = lines[at].split()
    place = next(i for i, field in enumerate(fields) if field.count(".") and field[-1].isdigit() and i > 8)
    lines[at] = " ".join([*fields[:place], number, *fields[place + 1 :]])
    (tmp_path / "1aaa.cif").write_text("\n".join(lines) + "\n")
    found, result = featurize(tmp_path)
    assert found == ["2bbb_A", "3ccc_A"]
    assert (result.errors, len(result.warnings)) == ([], 1)
    assert "1aaa_A: not all coordinates in its file are numbers" in result.warnings[0]


def test_dates_and_withdrawn_entries():
    folder = DATA / "mmcif"
    day = datetime.date(2010, 1, 1)
    assert Library(folder, day).latest == Library(folder, "2010-01-01").latest == day
    # Who knows an entry's date knows the entry: it is not replaced, as in the published code.
    library = Library(folder, day, {"1aaa": day}, {"1aaa": "2bbb", "3ccc": "2bbb"})
    assert [library.current_id(name) for name in ("1aaa", "2bbb", "3ccc")] == ["1aaa", "2bbb", "2bbb"]


OBSOLETE = """ LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS
OBSLTE    31-JUL-94 116L     216L
OBSLTE    26-SEP-06 2H33     2JM5 2OWI  \n
OBSLTE    06-NOV-19 6G9Y                \n"""


def test_obsolete(tmp_path):
    path = tmp_path / "obsolete.dat"
    path.write_text(OBSOLETE)
    assert read_obsolete(path) == {"116l": "216l", "2h33": "2jm5", "6g9y": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OBSOLETE[: OBSOLETE.index("M5 2OWI")], r"obsolete\.dat line 3: expected a line such as"),
        (OBSOLETE.replace("216L", "2/.L"), r"obsolete\.dat line 2: expected a line such as"),
        ("nothing of the kind\n", "no line begins with OBSLTE"),
        ("", "is empty"),
    ],
)
def test_damaged_obsolete(text, message, tmp_path):
    path = tmp_path / "obsolete.dat"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_obsolete(path)
