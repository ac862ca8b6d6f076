"""Files cut off or changed at random: an error of ours that names the file, or a result; nothing else."""

import gzip
import random
import shutil
import string
from pathlib import Path

import numpy as np
import pytest

from parafold.errors import ParafoldError
from parafold.protein.alignment import parse_a3m
from parafold.templates import featurize_hits, parse_hhr, parse_hmmsearch_a3m, read_obsolete

DATA = Path(__file__).parents[1] / "golden/oracle/data"
QUERY = parse_a3m((DATA / "bfd.a3m").read_text()).sequences[0]
HHR = (DATA / "hits.hhr").read_text()
A3M = (DATA / "hmmsearch.a3m").read_text()
CIF = (DATA / "mmcif/1aaa.cif").read_text()
TIMES = 300
# What format and numbers are made of, and what is in no such file.
LETTERS = string.printable + "\0\x1bé²٣\u2028\ud7ff"


def damaged(text, seed):
    """Cut off (one in four), or with one to four changes: letters replaced, pieces lost, doubled or moved."""
    chance = random.Random(seed)
    if seed % 4 == 0:
        return text[: chance.randrange(len(text))]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) or 1)
        end = at + chance.choice([1, 1, 2, 5, 20, 200])
        piece = text[at:end]
        other = "".join(chance.choice(LETTERS) for _ in piece)
        place = chance.randrange(len(text) or 1)
        text = chance.choice(
            [
                text[:at] + other + text[end:],
                text[:at] + chance.choice(["", "9" * 400, "-1", "1e999", "nan", "-", "X"]) + text[end:],
                text[:at] + text[end:],
                text[:at] + piece + text[at:],
                text[:place] + piece + text[place:],
            ]
        )
    return text


def outcome(function, *arguments):
    """The result, or the error that the user sees: one line."""
    try:
        return function(*arguments)
    except ParafoldError as error:
        assert len(str(error).splitlines()) == 1
        return error


def featurize(hits, folder=DATA / "mmcif"):
    result = featurize_hits(QUERY, hits, folder, "2022-01-01")
    for name, array in result.features.items():
        assert array.dtype.kind == "S" or np.isfinite(array).all(), name
    return result


@pytest.mark.parametrize(
    ("text", "parse"),
    [(HHR, parse_hhr), (A3M, lambda text: parse_hmmsearch_a3m(QUERY, text))],
    ids=["hhr", "a3m"],
)
def test_hits(text, parse):
    errors = 0
    for seed in range(TIMES):
        hits = outcome(parse, damaged(text, seed))
        if isinstance(hits, ParafoldError):
            errors += 1
        else:
            outcome(featurize, hits)
    assert TIMES // 20 < errors < TIMES


def test_obsolete(tmp_path):
    lines = (f"OBSLTE    31-JUL-94 {n}16L     {'216L' if n % 3 else '':8}\n" for n in range(1, 10))
    text = " LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n" + "".join(lines)
    path = tmp_path / "obsolete.dat"
    errors = 0
    for seed in range(TIMES):
        path.write_text(damaged(text, seed), "utf-8")
        found = outcome(read_obsolete, path)
        if isinstance(found, ParafoldError):
            assert str(path) in str(found)
            errors += 1
        else:
            assert all(len(key) == 4 and (to is None or len(to) == 4) for key, to in found.items())
    assert TIMES // 20 < errors < TIMES


def test_structures(tmp_path):
    hits = parse_hhr(HHR)[:3]
    shutil.copytree(DATA / "mmcif", tmp_path, dirs_exist_ok=True)
    spoiled = 0
    for seed in range(TIMES):
        data = damaged(CIF, seed).encode()
        (tmp_path / "1aaa.cif").write_bytes(data)
        result = featurize(hits, tmp_path)
        names = result.features["template_domain_names"].tolist()
        assert names in ([b"2bbb_A", b"1aaa_A", b"3ccc_A"], [b"2bbb_A", b"3ccc_A"])
        spoiled += len(names) == 2
        messages = [*result.errors, *result.warnings]
        assert all("\n" not in message and message.startswith("1aaa_") for message in messages)
        assert len(names) == 3 or messages or "2010-01-01" not in data.decode()
    assert TIMES // 20 < spoiled < TIMES


def test_packed_structures(tmp_path):
    """The packed bytes themselves are damaged."""
    hits = parse_hhr(HHR)[:1]
    packed = gzip.compress(CIF.encode())
    chance = random.Random(1)
    for _ in range(TIMES):
        data = bytearray(packed)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / "1aaa.cif.gz").write_bytes(data[: chance.choice([None, chance.randrange(len(data))])])
        featurize(hits, tmp_path)
