import json
import os
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa.database import Database
from parafold.msa.fingerprint import Fingerprint, fingerprint

CONTENT = bytes(range(256)) * 40_000


@pytest.fixture
def database(tmp_path: Path) -> Database:
    path = tmp_path / "db.fasta"
    path.write_bytes(CONTENT)
    return Database("db", path)


def test_the_same_files_have_the_same_fingerprint(database: Database):
    first, second = fingerprint(database), fingerprint(database)
    assert first == second and first.key == second.key
    assert first.difference(second) == ""
    assert first.bytes == len(CONTENT)
    assert Fingerprint.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_copies_differ_by_date_and_name_only(database: Database, tmp_path: Path):
    copy = Database("copy", tmp_path / "copy.fasta")
    copy.path.write_bytes(CONTENT)
    os.utime(copy.path, ns=(1, 1))
    first, second = fingerprint(database), fingerprint(copy)
    assert first.content_key == second.content_key
    assert first.key != second.key
    assert first.difference(second) == "name db.fasta -> copy.fasta, date"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content + b"AC", f"size {len(CONTENT)} -> {len(CONTENT) + 2} bytes, date"),
        (lambda content: content[:-1] + b"A", "content, date"),
        (lambda content: b"A" + content[1:], "content, date"),
        (lambda content: content[::-1], "content, date"),
        (lambda content: b"", f"size {len(CONTENT)} -> 0 bytes, date"),
    ],
)
def test_a_change_is_noticed_and_put_in_words(database: Database, change, words: str):
    before = fingerprint(database)
    database.path.write_bytes(change(CONTENT))
    os.utime(database.path, ns=(1, 1))
    after = fingerprint(database)
    assert before.key != after.key and before.content_key != after.content_key
    assert before.difference(after) == words


def test_every_byte_of_a_small_file_counts(tmp_path: Path):
    path = tmp_path / "db.fasta"
    keys = set()
    for at in range(0, 200_000, 9_973):
        content = bytearray(200_000)
        content[at] = 1
        path.write_bytes(content)
        keys.add(fingerprint(Database("db", path)).content_key)
    assert len(keys) == len(range(0, 200_000, 9_973))


def test_a_date_alone_changes_the_key_alone(database: Database):
    before = fingerprint(database)
    os.utime(database.path, ns=(5, 5))
    after = fingerprint(database)
    assert (before.key == after.key, before.content_key == after.content_key) == (False, True)
    assert before.difference(after) == "date"


def test_databases_of_several_files(tmp_path: Path):
    for ending in ("_a3m.ffdata", "_a3m.ffindex"):
        (tmp_path / f"bfd{ending}").write_bytes(b"one")
    bfd = Database("bfd", tmp_path / "bfd")
    before = fingerprint(bfd)
    assert [mark.name for mark in before.files] == ["bfd_a3m.ffdata", "bfd_a3m.ffindex"]
    (tmp_path / "bfd_a3m.ffindex").write_bytes(b"more")
    os.utime(tmp_path / "bfd_a3m.ffindex", ns=(before.files[1].modified_ns,) * 2)
    assert before.difference(fingerprint(bfd)) == "bfd_a3m.ffindex: size 3 -> 4 bytes"
    (tmp_path / "bfd_hhm.ffdata").write_bytes(b"")
    assert before.difference(fingerprint(bfd)) == "2 -> 3 files"


def test_large_files_are_sampled(tmp_path: Path):
    path = tmp_path / "db.fasta"
    with path.open("wb") as file:
        file.truncate(500 << 30)
    assert fingerprint(Database("db", path)).bytes == 500 << 30


def test_what_is_missing_or_no_fingerprint(tmp_path: Path):
    with pytest.raises(SearchError, match=r"absent\.fasta: cannot be read"):
        fingerprint(Database("db", tmp_path / "absent.fasta"))
    with pytest.raises(SearchError, match="cannot be read"):
        fingerprint(Database("db", tmp_path))
    for data in ([{"name": "x"}], [1], [{"name": "x", "bytes": "many", "modified_ns": 1, "sample": ""}]):
        with pytest.raises(SearchError, match="not a database's fingerprint"):
            Fingerprint.from_json(data)
