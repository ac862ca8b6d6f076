import json
from pathlib import Path

import pytest

from parafold.manifest import NAME, PARTIAL, Manifest, digest, versions


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder with one finished stage of one file."""
    (tmp_path / "a.txt").write_text("alpha")
    Manifest(tmp_path).record("stage", "key", [tmp_path / "a.txt"], {"seconds": 1.5})
    return tmp_path


def test_a_recorded_stage_is_done_for_the_next_run(done: Path):
    again = Manifest(done)
    assert again.is_done("stage", "key")
    assert again.details("stage") == {"seconds": 1.5}
    assert not again.complete


def test_another_key_or_stage_is_not_done(done: Path):
    assert not Manifest(done).is_done("stage", "other key")
    assert not Manifest(done).is_done("other stage", "key")


@pytest.mark.parametrize("content", ["alphb", "alpha+", ""])
def test_a_changed_file_undoes_its_stage(done: Path, content: str):
    (done / "a.txt").write_text(content)
    assert not Manifest(done).is_done("stage", "key")


def test_a_missing_file_undoes_its_stage(done: Path):
    (done / "a.txt").unlink()
    assert not Manifest(done).is_done("stage", "key")


def test_fresh_forgets(done: Path):
    assert not Manifest(done, fresh=True).is_done("stage", "key")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 99, "stages": {}}', '{"format": 1, "stages": {"stage": []}}']
)
def test_a_damaged_record_counts_as_none(done: Path, text: str):
    (done / PARTIAL).write_text(text)
    assert not Manifest(done).is_done("stage", "key")


def test_finish_and_reopen_move_between_the_names(done: Path):
    manifest = Manifest(done)
    manifest.finish({"target": "T1"})
    assert manifest.complete
    assert not (done / PARTIAL).exists()
    content = json.loads((done / NAME).read_text())
    assert content["target"] == "T1"
    assert content["versions"]["parafold"] == versions()["parafold"]
    assert Manifest(done).is_done("stage", "key")
    manifest.reopen()
    assert not manifest.complete
    assert Manifest(done).is_done("stage", "key")


def test_files_that_only_an_earlier_version_of_a_stage_wrote_go_away(done: Path):
    (done / "b.txt").write_text("beta")
    Manifest(done).record("stage", "new key", [done / "b.txt"], {})
    assert not (done / "a.txt").exists()
    assert (done / "b.txt").read_text() == "beta"


def test_digest_does_not_depend_on_order_but_on_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
