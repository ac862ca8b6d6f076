"""A worker does tasks of a plan, as a function and as a program that is told their numbers."""

import dataclasses
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa import Search, demo_databases
from parafold.msa.execute import finished, merged
from parafold.msa.plan import Plan, result_path
from parafold.msa.results import Result
from parafold.msa.worker import is_done, run_share, run_task

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
QUERIES = {"ubiquitin": UBIQUITIN, "trp_cage": "NLYIQWLKDGGPSSGRPPPS"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A plan of six tasks."""
    Search(QUERIES, demo_databases(), shards=2, cache=None).plan(tmp_path / "a plan", 2)
    return tmp_path / "a plan"


class Program:
    """`python -m parafold.msa.worker FOLDER`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "parafold.msa.worker", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, *numbers: int) -> list[dict]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("".join(f"{number}\n" for number in numbers))
        self.process.stdin.flush()
        return [json.loads(self.process.stdout.readline()) for _ in numbers]

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate(timeout=20)


def test_a_task_leaves_its_result_and_record(folder):
    plan = Plan.load(folder)
    before = time.time()
    run_task(folder, 1)
    record = Result(result_path(folder, 1), plan.key).record
    task = plan.tasks[1]
    assert (record.task, record.database, record.bytes) == (1, "uniref90_demo", task.shard.bytes)
    assert (record.queries, record.query_residues) == (2, 96)
    text = task.shard.path.read_bytes()[task.shard.start : task.shard.end]
    assert record.sequences == text.count(b">") > 1000
    assert record.residues > 10 * record.sequences
    assert before <= record.started <= time.time()
    assert 0 < record.cpu_seconds < 60 and 0 < record.wall_seconds < 60
    assert record.peak_bytes > 10**7
    assert [path.name for path in (folder / "tasks").iterdir()] == ["00001.jsonl"]


def test_a_database_that_has_changed_since_is_refused(folder, tmp_path):
    database = tmp_path / "db.fasta"
    database.write_text(f">a\n{UBIQUITIN}\n")
    other = tmp_path / "other plan"
    Search(QUERIES, database, cache=None).plan(other, 1)
    database.write_text(f">a\n{UBIQUITIN}\n>b\nMKV\n")
    with pytest.raises(SearchError, match=r"db\.fasta: has changed since.*start the search again"):
        run_task(other, 0)
    database.unlink()
    with pytest.raises(SearchError, match=r"db\.fasta: cannot be read"):
        run_task(other, 0)
    assert not is_done(other, 0)


def test_no_plan_and_a_damaged_one(folder, tmp_path):
    with pytest.raises(SearchError, match="holds no plan"):
        run_task(tmp_path, 0)
    path = folder / "prepared" / "pyhmmer"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SearchError, match=r"pyhmmer: is damaged.*make the plan again"):
        run_task(folder, 0)


def test_the_shares_of_some_workers_are_the_whole(folder):
    plan = Plan.load(folder)
    done = [list(run_share(folder, index, 4)) for index in range(4)]
    assert sorted(itertools.chain(*done)) == list(range(6))
    warnings: list[str] = []
    results = finished(folder, plan, warnings.append)
    assert len(results) == 6 and not warnings
    for alignments in dict(merged(plan, results)).values():
        assert all(len(alignment.rows) > 30 for alignment in alignments.values())


def test_a_share_goes_on_where_it_stopped(folder):
    assert sorted(run_share(folder, 0, 1)) == list(range(6))
    damaged, gone = result_path(folder, 2), result_path(folder, 4)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "tasks").iterdir()}
    assert [is_done(folder, number) for number in range(6)] == [True, True, False, True, False, True]
    assert not damaged.exists()
    assert sorted(run_share(folder, 0, 1)) == list(range(6))
    changed = {path for path, modified in kept.items() if path.stat().st_mtime_ns != modified}
    assert changed == {damaged} and gone.exists()


def test_the_program_answers_each_number(folder):
    with Program(folder) as program:
        assert program.ask(0, 3) == [{"task": 0}, {"task": 3}]
        (answer,) = program.ask(5)
        assert answer == {"task": 5}
    assert program.process.returncode == 0
    assert [is_done(folder, number) for number in range(6)] == [True, False, False, True, False, True]


def test_the_program_tells_errors_and_goes_on(folder):
    path = folder / "plan.json"
    content = path.read_bytes()
    path.write_bytes(b"")
    with Program(folder) as program:
        (answer,) = program.ask(0)
        assert answer["task"] == 0 and answer["error"].startswith("SearchError: ")
        assert "plan.json: is damaged" in answer["error"]
        path.write_bytes(content)
        assert program.ask(0) == [{"task": 0}]


def test_the_program_ends_with_its_input_in_the_middle_of_a_task(tmp_path):
    queries = {f"q{i}": (UBIQUITIN[i:] + UBIQUITIN[:i]) * 20 for i in range(30)}
    Search(queries, demo_databases(), shards=1, cache=None).plan(tmp_path, 1)
    with Program(tmp_path) as program:
        assert program.process.stdin
        program.process.stdin.write("0\n")
        program.process.stdin.flush()
        end = time.monotonic() + 20
        while not list((tmp_path / "tasks").glob(".part-*")):
            assert time.monotonic() < end
            time.sleep(0.01)
        start = time.monotonic()
        program.process.stdin.close()
        program.process.wait(timeout=20)
        assert time.monotonic() - start < 1
        program.process.stdin = None
    assert not result_path(tmp_path, 0).exists()


def test_results_do_not_depend_on_the_memory_that_is_allowed(folder):
    list(run_share(folder, 0, 1))
    plan = Plan.load(folder)
    before = dict(merged(plan, finished(folder, plan, print)))
    dataclasses.replace(plan, memory=300_000_000).save(folder)
    for path in (folder / "tasks").iterdir():
        path.unlink()
    with Program(folder) as program:
        assert program.ask(*range(6)) == [{"task": number} for number in range(6)]
    assert dict(merged(plan, finished(folder, plan, print))) == before
