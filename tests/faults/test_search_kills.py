"""A search that is killed, or whose workers are: what was finished is neither lost nor done again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parafold.files import UNFINISHED
from parafold.msa import Search, databases_in, demo_databases
from parafold.protein.sequence import read_inputs

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc"
)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.fasta"))
KILLS = 25
WORKERS, SHARDS = 2, 8


class Place:
    """The folders of one search: its cache, its output."""

    def __init__(self, folder: Path, databases: Path) -> None:
        self.cache, self.out = folder / "cache", folder / "out"
        self._folder, self._databases = folder, databases

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "parafold", "msa", *map(str, EXAMPLES), "-d", str(self._databases)),
                *("-o", str(self.out), "--cache", str(self.cache)),
                *("--workers", str(WORKERS), "--shards", str(SHARDS)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def search(self) -> Search:
        """The same search, for this process."""
        queries = {
            f"{target.name}_{chain.id}": chain.sequence
            for path in EXAMPLES
            for target in read_inputs(path)
            for chain in target.chains
        }
        return Search(queries, databases_in(self._databases), shards=SHARDS, cache=self.cache)

    def processes(self, program: str = "") -> list[int]:
        """Those whose command names this place, and `program`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if str(self._folder) in command and program in command:
                    found.append(int(entry.name))
        return found

    def finished_tasks(self) -> dict[str, tuple[int, int]]:
        """Each complete result of an unfinished search, and what tells whether it was written again."""
        results = {}
        for path in self.cache.glob("work/*/tasks/*.jsonl"):
            status = path.stat()
            results[path.name] = (status.st_ino, status.st_mtime_ns)
        return results

    def found(self) -> dict[str, bytes]:
        return contents(self.out)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a final name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.match(UNFINISHED)
    }


def gone_within(seconds: float, place: Place) -> bool:
    deadline = time.monotonic() + seconds
    while place.processes():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration databases, twice."""
    folder = tmp_path_factory.mktemp("databases")
    for database in demo_databases():
        text = database.path.read_text()
        copies = [text.replace(">", f">copy{i}_") for i in range(1)]
        (folder / database.path.name).write_text("".join([text, *copies]))
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, databases: Path) -> dict[str, bytes]:
    """What a run that nobody disturbs writes, in one process and whole databases."""
    out = tmp_path_factory.mktemp("expected")
    command = [sys.executable, "-m", "parafold", "msa", *map(str, EXAMPLES), "-d", str(databases)]
    options = ["-o", str(out), "--no-cache", "--executor", "serial", "--shards", "1"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    found = contents(out)
    assert sum(name.endswith(".a3m") for name in found) == sum(name.endswith(".tsv") for name in found) + 10
    return found


@pytest.fixture
def places(tmp_path: Path, databases: Path) -> Iterator[Place]:
    return (Place(tmp_path / f"search{number:03}", databases) for number in range(1000))


def test_the_search_is_killed(places: Iterator[Place], expected: dict[str, bytes]):
    """Each rerun is killed again, until one comes through; then the next search begins."""
    rng = random.Random(0)
    place, before = next(places), {}
    kills = interrupted = 0
    while kills < KILLS:
        process = place.start()
        try:
            _, errors = process.communicate(timeout=rng.uniform(0.2, 1.4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            assert gone_within(2, place)
            after = place.finished_tasks()
            if after or before:
                assert not after or after.items() >= before.items(), "a finished task was done again"
            interrupted += 0 < len(after) < 3 * SHARDS
            before = after
            continue
        assert (process.returncode, errors) == (0, "")
        assert place.found() == expected
        place, before = next(places), {}
    assert interrupted >= KILLS // 4, "most kills came before or after the work; choose other moments"

    # The last one goes on here, where the tasks can be counted.
    search = place.search()
    list(search.run("processes", WORKERS))
    done_now = {task.task for task in search.tasks}
    assert done_now.isdisjoint(int(Path(name).stem) for name in before)
    assert len(done_now) + len(before) in (0, 3 * SHARDS)
    with place.start() as process:
        assert process.wait() == 0
    assert place.found() == expected


def test_workers_are_killed(places: Iterator[Place], expected: dict[str, bytes]):
    rng = random.Random(1)
    kills = 0
    while kills < KILLS:
        place = next(places)
        code = None
        while code != 0:
            with place.start() as process:
                before: dict[str, tuple[int, int]] = {}
                while process.poll() is None:
                    time.sleep(rng.uniform(0.05, 0.5))
                    workers = place.processes("parafold.msa.worker")
                    if workers and kills < KILLS:
                        after = place.finished_tasks()
                        assert not after or after.items() >= before.items(), "a finished task was done again"
                        before = after
                        try:
                            os.kill(rng.choice(workers), signal.SIGKILL)
                        except ProcessLookupError:
                            continue
                        kills += 1
                assert process.stderr is not None
                code, errors = process.returncode, process.stderr.read()
            # One task may be hit three times in a row: that is taken for the task's fault.
            assert code == 0 or (code == 2 and "ended its process 3 times (killed by SIGKILL" in errors)
            assert gone_within(2, place)
        assert place.found() == expected
