"""A plan of a search that takes a few seconds, for tests of executors."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from parafold.msa import demo_databases
from parafold.msa.executors.serial import SerialExecutor
from parafold.msa.plan import Plan, result_path
from parafold.msa.results import Result
from parafold.msa.search import Search


def make_plan(folder: Path, queries: int = 4, length: int = 300, shards: int = 3) -> Plan:
    """Writes the plan of random and demonstration queries to the folder."""
    letters = random.Random(0)
    sequences = {f"q{i}": "".join(letters.choices("ACDEFGHIKLMNPQRSTVWY", k=length)) for i in range(queries)}
    trp_cage = "NLYIQWLKDGGPSSGRPPPS"
    return Search({"trp_cage": trp_cage, **sequences}, demo_databases(), shards=shards, cache=None).plan(
        folder, 2
    )


def serially(folder: Path) -> dict:
    """What a plan's tasks find when one process does them."""
    plan = Plan.load(folder)
    with SerialExecutor() as executor:
        assert list(executor.run(folder, plan.order)) == plan.order
    return found(folder)


def found(folder: Path) -> dict:
    """Task -> query -> hits, of those tasks that are done."""
    return {
        task.number: {query: list(Result(path).hits(query)) for query in task.queries}
        for task in Plan.load(folder).tasks
        if (path := result_path(folder, task.number)).exists()
    }


def processes(words: str) -> list[int]:
    """The processes whose command line or environment holds `words`."""
    numbers = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            told = (place / "cmdline").read_bytes() + b"\0" + (place / "environ").read_bytes()
        except OSError:
            continue
        if words.encode() in told:
            numbers.append(int(place.name))
    return numbers


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
