"""The published way to search for templates, through HMMER's own programs, for comparison."""

import re
import shutil
import subprocess
from pathlib import Path

from parafold.protein.alignment import (
    convert_stockholm_to_a3m,
    deduplicate_stockholm,
    fasta_records,
    remove_empty_columns_from_stockholm,
)

_FILTERS = ("--F1", "0.0005", "--F2", "5e-05", "--F3", "5e-07")
JACKHMMER_FLAGS = (*_FILTERS, "--incE", "0.0001", "-E", "0.0001", "-N", "1")
_NO_FILTERS = ("--F1", "0.1", "--F2", "0.1", "--F3", "0.1")
HMMSEARCH_FLAGS = (*_NO_FILTERS, "--incE", "100", "-E", "100", "--domE", "100", "--incdomE", "100")
PROGRAMS = ("jackhmmer", "hmmbuild", "hmmsearch")
HAVE_HMMER = all(map(shutil.which, PROGRAMS))
# What says when, where and from which file a profile was made; and a sum over the file's letters.
_ORIGIN = ("HMMER3", "NAME", "DATE", "COM", "CKSUM")


def run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def jackhmmer(query: str, database: Path, folder: Path) -> str:
    """The Stockholm text of jackhmmer's alignment."""
    (folder / "query.fasta").write_text(f">query\n{query}\n")
    output = folder / "output.sto"
    run(
        "jackhmmer",
        *("-o", "/dev/null", "-A", output, "--noali", *JACKHMMER_FLAGS, "--cpu", 1),
        *(folder / "query.fasta", database),
    )
    return output.read_text()


def hmmbuild(stockholm: str, folder: Path) -> str:
    """The profile that AlphaFold makes of jackhmmer's alignment, as HMMER's text."""
    distinct = remove_empty_columns_from_stockholm(deduplicate_stockholm(stockholm))
    (folder / "distinct.sto").write_text(distinct)
    run("hmmbuild", "--hand", "--amino", folder / "query.hmm", folder / "distinct.sto")
    return (folder / "query.hmm").read_text()


def hmmsearch(profile: str, database: Path, folder: Path) -> str:
    """The hits as AlphaFold's a3m."""
    (folder / "query.hmm").write_text(profile)
    output = folder / "hits.sto"
    output.unlink(missing_ok=True)
    run(
        "hmmsearch",
        *("--noali", "--cpu", 1, *HMMSEARCH_FLAGS, "-A", output, folder / "query.hmm", database),
    )
    text = output.read_text() if output.exists() else ""
    return convert_stockholm_to_a3m(text, remove_first_row_gaps=False) if text.strip() else ""


def a3m_rows(stockholm: str) -> list[str]:
    """The rows in the query's columns, with the letters of insertions in lower case."""
    return [row for _, _, row in fasta_records(convert_stockholm_to_a3m(stockholm), "sto")]


def content(profile: str) -> list[str]:
    """A profile's text less what says where it comes from."""
    return [line for line in profile.splitlines() if not line.startswith(_ORIGIN)]


def insertion_free(lines: list[str]) -> list[list[float | str]]:
    """The numbers of a profile, less the emissions of insert states, which HMMER does not search with."""
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["1"])
    kept = [line for i, line in enumerate(lines) if i < start or (i - start) % 3 != 1]
    return [[_number(word) for word in line.split()] for line in kept]


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def stockholm(rows: list[str]) -> str:
    """A3m rows as jackhmmer would write them: the query last, but first among the rows."""
    width = [0] * (sum(not letter.islower() for letter in rows[0]) + 1)
    cut = []
    for row in rows:
        pieces = re.findall("([a-z]*)([A-Z-]|$)", row)
        cut.append(pieces)
        width = [max(old, len(inserted)) for old, (inserted, _) in zip(width, pieces, strict=False)]
    names = [f"s{number}" for number in range(len(rows))]
    lines = ["# STOCKHOLM 1.0", *(f"#=GS {name} DE hit" for name in names[1:])]
    for name, pieces in zip(names, cut, strict=True):
        columns = zip(pieces, width, strict=False)
        lines.append(f"{name} {''.join(a.upper().ljust(most, '-') + b for (a, b), most in columns)}")
    lines.append(f"#=GC RF {''.join('.' * most + 'x' for most in width[:-1])}")
    return "\n".join([*lines, "//"]) + "\n"
