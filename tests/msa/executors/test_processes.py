"""Workers that are killed, interrupted or orphaned lose nothing and leave nothing."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_plan import found, make_plan, processes, serially, wait_for

from parafold.errors import OutputError, SearchError
from parafold.msa.executors.processes import ProcessExecutor
from parafold.msa.plan import Plan, result_path
from parafold.msa.results import Result

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")

SEQUENCES = """
import random
rng = random.Random(0)
queries = {f"q{i}": "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=600)) for i in range(30)}
queries["trp_cage"] = "NLYIQWLKDGGPSSGRPPPS"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict]:
    """A plan of eighteen tasks, of which nothing is done, and what its tasks find."""
    folder = tmp_path_factory.mktemp("plan")
    make_plan(folder, queries=12, length=400, shards=6)
    shutil.copytree(folder, folder / "copy")
    return folder / "copy", serially(folder)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "a plan"))


@pytest.fixture
def expected(made) -> dict:
    return made[1]


def children() -> list[int]:
    """This process's own."""
    tasks = Path("/proc/self/task")
    return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()]


def run(folder: Path, workers: int) -> list[int]:
    with ProcessExecutor(workers) as executor:
        return list(executor.run(folder, Plan.load(folder).order))


def worker_of(folder: Path, number: int) -> int:
    return int(Result(result_path(folder, number)).record.worker.rpartition(":")[2])


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_finds_what_one_process_finds(folder, expected, workers):
    before = children()
    assert sorted(run(folder, workers)) == list(range(18))
    assert found(folder) == expected
    assert children() == before
    assert 1 <= len({worker_of(folder, number) for number in range(18)}) <= workers


def test_only_the_tasks_that_are_asked_for_in_their_order(folder):
    with ProcessExecutor(1) as executor:
        assert list(executor.run(folder, [7, 3, 11])) == [7, 3, 11]
    assert set(found(folder)) == {3, 7, 11}


def test_one_executor_serves_one_folder_after_another(made, expected, tmp_path):
    """Workers that were started for the one must not do tasks of the other."""
    folders = [Path(shutil.copytree(made[0], tmp_path / name)) for name in "ab"]
    with ProcessExecutor(2) as executor:
        executor.start(folders[1])
        for folder in folders:
            assert sorted(executor.run(folder, range(18))) == list(range(18))
            assert found(folder) == expected
    # It may be used again after it was closed.
    with executor:
        assert list(executor.run(folders[0], [2])) == [2]


def test_workers_that_are_killed_are_replaced(folder, expected):
    """Each of the first five to finish a task is killed in the middle of its next."""
    done = []
    with ProcessExecutor(2) as executor:
        for number in executor.run(folder, Plan.load(folder).order):
            done.append(number)
            if len(done) <= 5:
                os.kill(worker_of(folder, number), signal.SIGKILL)
    assert sorted(done) == list(range(18))
    assert found(folder) == expected


def test_idle_workers_that_are_killed_are_no_loss(folder, expected):
    with ProcessExecutor(4) as executor:
        executor.start(folder)
        waiting = children()
        assert len(waiting) == 4
        for pid in waiting[:2]:
            os.kill(pid, signal.SIGKILL)
        assert sorted(executor.run(folder, [1, 2, 3])) == [1, 2, 3]
    assert found(folder) == {number: expected[number] for number in (1, 2, 3)}


def test_a_task_that_always_ends_its_worker_is_given_up(folder):
    """As one does that takes more memory than there is: its workers are killed as soon as they are there."""
    before = set(children())
    stop = threading.Event()

    def kill():
        while not stop.is_set():
            for pid in set(children()) - before:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(SearchError) as caught:
            run(folder, 1)
    finally:
        stop.set()
        killer.join()
    (line,) = str(caught.value).splitlines()
    assert "_demo bytes" in line and "3 times" in line and "SIGKILL" in line and "memory" in line
    assert set(children()) == before
    assert sorted(run(folder, 2)) == list(range(18))


def test_a_worker_that_cannot_start_is_named(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(SearchError, match=r"3 times.*ended with code 1"):
        run(folder, 2)


def test_what_a_task_raises_is_raised(folder):
    plan = Plan.load(folder)
    shutil.rmtree(folder / "tasks", ignore_errors=True)
    (folder / "tasks").write_text("in the way")
    with pytest.raises(OutputError, match="tasks"):
        run(folder, 2)
    (folder / "tasks").unlink()
    (folder / "prepared" / "pyhmmer").write_bytes(b"")
    with pytest.raises(SearchError, match="pyhmmer: is damaged"):
        run(folder, 2)
    assert plan == Plan.load(folder)


# Beside other programs


def script(body: str) -> list[str]:
    return [sys.executable, "-c", f"{SEQUENCES}\n{body}"]


def test_a_script_needs_no_guard_and_may_use_threads_and_jax(tmp_path):
    """Forked workers would hang or warn beside them; started ones would run an unguarded script again."""
    path = tmp_path / "script.py"
    path.write_text(
        SEQUENCES + "import threading\n"
        "import jax\n"
        "assert jax.numpy.ones(3).sum() == 3\n"
        "from parafold.msa import demo_databases, search\n"
        "def find():\n"
        "    options = dict(executor='processes', workers=2, shards=2, cache=None)\n"
        "    print(len(search({'q': queries['trp_cage']}, demo_databases(), **options)['q']))\n"
        "threads = [threading.Thread(target=find) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "find()\n"
    )
    command = [sys.executable, "-W", "error", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    counts = done.stdout.split()
    assert len(counts) == 3 and len(set(counts)) == 1 and int(counts[0]) > 50


# A search that is at its tasks when the first result is there, and says what it found in the end.
SEARCH = """
import sys
from parafold.msa import demo_databases, search
found = search(queries, demo_databases(), shards=8, executor="processes", workers=2, cache=sys.argv[1])
print(len(found.tasks), hash(str(found.alignments)))
"""


def start(cache: Path, **options) -> subprocess.Popen[str]:
    """Start the search and wait until some tasks are done."""
    process = subprocess.Popen(
        [*script(SEARCH), str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        **options,
    )
    wait_for(lambda: process.poll() is not None or len(list(cache.glob("work/*/tasks/*.jsonl"))) > 2)
    assert process.poll() is None
    return process


def finish(cache: Path) -> list[str]:
    process = subprocess.run(
        [*script(SEARCH), str(cache)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    assert process.stderr == ""
    return process.stdout.split()


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory) -> list[str]:
    return finish(tmp_path_factory.mktemp("peace"))


def test_workers_of_a_killed_parent_are_gone_within_a_second(tmp_path, in_peace):
    process = start(tmp_path)
    assert len(processes(str(tmp_path))) == 3
    process.kill()
    process.communicate()
    wait_for(lambda: not processes(str(tmp_path)), seconds=1)
    tasks, result = finish(tmp_path)
    assert (24, result) == (int(in_peace[0]), in_peace[1])
    assert int(tasks) < 24 - 2
    assert not list((tmp_path / "work").iterdir())


def test_an_interrupt_from_the_terminal_ends_all(tmp_path, in_peace):
    """Ctrl-C goes to the workers too; that they do not die of it is seen by the one traceback."""
    process = start(tmp_path, start_new_session=True)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert told.count("Traceback") == 1 and told.splitlines()[-1] == "KeyboardInterrupt"
    assert not processes(str(tmp_path))
    tasks, result = finish(tmp_path)
    assert result == in_peace[1] and int(tasks) < 24 - 2
