"""`max_memory` bounds the resident memory of each worker, or the search ends and says for which query."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parafold.errors import SearchError
from parafold.msa import Search, demo_databases
from parafold.msa.engines.pyhmmer import PyHmmer
from parafold.msa.search import MIN_MEMORY

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
MEMBERS = 50_000

# Prints what the search's processes had in memory; a process of its own, for the tests' has grown already.
MEASURED = """
import json, sys
from pathlib import Path
from parafold.msa import Database, Search
from parafold.msa.alignment import stacked
from parafold.protein.sequence import read_inputs

queries, database, memory, workers = sys.argv[1:]
sequences = {target.name: target.chains[0].sequence for target in read_inputs(queries)}
work = Search(
    sequences, Database("db", Path(database), max_hits=None), cache=None, max_memory=int(memory)
)
rows = {}
for name, found in work.run("processes", int(workers)):
    rows[name] = len(found["db"].rows)
    text = stacked(found.values())
status = Path("/proc/self/status").read_text()
print(json.dumps({
    "rows": rows,
    "workers": [task.peak_bytes for task in work.tasks],
    "parent": 1024 * int(status.partition("VmHWM:")[2].split()[0]),
}))
"""


# Prints what one process has in memory after 20 and after 200 tasks, each for other queries.
MANY_TASKS = """
import sys
from pathlib import Path
from parafold.msa.database import Database
from parafold.msa.engines.pyhmmer import PyHmmer
from parafold.msa.shards import whole

folder, path = map(Path, sys.argv[1:])
engine, database = PyHmmer(), Database("db", path)
for i, prepared in enumerate(sorted(folder.glob("*.hmm")), start=1):
    list(engine.search({i: prepared.read_bytes()}, database, whole(database), 0))
    if i in (20, 200):
        print(1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]))
"""


def sequence_of(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(AMINO_ACIDS, k=length))


def mutated(rng: random.Random, sequence: str, share: float) -> str:
    letters = list(sequence)
    for at in rng.sample(range(len(letters)), int(share * len(letters))):
        letters[at] = rng.choice(AMINO_ACIDS)
    return "".join(letters)


def write_fasta(path: Path, records: Iterator[tuple[str, str]]) -> Path:
    with path.open("w") as file:
        file.writelines(f">{name}\n{sequence}\n" for name, sequence in records)
    return path


def measured(queries: Path, database: Path, memory: int, workers: int = 2) -> dict[str, Any]:
    arguments = [str(queries), str(database), str(memory), str(workers)]
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_family_of_50_000(tmp_path: Path):
    rng = random.Random(0)
    query = sequence_of(rng, 100)
    queries = write_fasta(tmp_path / "q.fasta", iter([("q", query)]))
    description = "of a family whose members are described at length " * 8
    family = ((f"member_{i:05} {description}", mutated(rng, query, share=0.3)) for i in range(MEMBERS))
    found = measured(queries, write_fasta(tmp_path / "db.fasta", family), MIN_MEMORY)
    assert found["rows"] == {"q": MEMBERS}
    assert max(found["workers"]) < 0.6 * MIN_MEMORY
    # All rows of one alignment are in the parent's memory, several times while they become text.
    assert found["parent"] < MIN_MEMORY


def test_many_queries_do_not_make_a_worker_grow(tmp_path: Path):
    rng = random.Random(1)
    sequences = [sequence_of(rng, 40) for _ in range(300)]
    database = write_fasta(
        tmp_path / "db.fasta", ((f"t{i}", mutated(rng, s, 0.2)) for i, s in enumerate(sequences))
    )
    peaks = {}
    for count in (30, 300):
        queries = write_fasta(
            tmp_path / f"q{count}.fasta", ((f"q{i}", s) for i, s in enumerate(sequences[:count]))
        )
        found = measured(queries, database, MIN_MEMORY, workers=1)
        assert len(found["rows"]) == count and min(found["rows"].values()) == 1
        peaks[count] = max(found["workers"])
    assert peaks[300] < peaks[30] + 10e6


def test_profiles_of_earlier_tasks_are_not_kept(tmp_path: Path):
    rng = random.Random(4)
    prepared = PyHmmer().prepare(sequence_of(rng, 2000))
    for i in range(200):
        (tmp_path / f"{i}.hmm").write_bytes(prepared.replace(b"query", b"q%04d" % i))
    database = write_fasta(tmp_path / "db.fasta", iter([("t", sequence_of(rng, 50))]))
    done = subprocess.run(
        [sys.executable, "-c", MANY_TASKS, str(tmp_path), str(database)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split())
    assert last < first + 20e6  # of 200 profiles, 0.6 MB each


@pytest.fixture(scope="module")
def repeats() -> str:
    """35,100 residues of one domain and its relatives, as titin is."""
    rng = random.Random(2)
    domain = sequence_of(rng, 90)
    return "".join(mutated(rng, domain, 0.5) for _ in range(390))


def test_a_query_and_a_target_that_are_long(tmp_path: Path):
    """HMMER's matrices of both would take 2 GB, but the two are not similar."""
    rng = random.Random(3)
    queries = write_fasta(tmp_path / "q.fasta", iter([("q", sequence_of(rng, 2500))]))
    target = sequence_of(rng, 35_000)
    database = write_fasta(tmp_path / "db.fasta", iter([("unrelated", target)]))
    found = measured(queries, database, MIN_MEMORY)
    assert found["rows"] == {"q": 0}
    assert max(found["workers"]) < MIN_MEMORY


@pytest.mark.parametrize(
    ("query_length", "target_length"), [(2500, 35_100), (600, 8_000)], ids=["dies", "is told"]
)
def test_what_takes_more_ends_with_the_names_of_query_and_database(
    tmp_path: Path, repeats: str, query_length: int, target_length: int
):
    database = write_fasta(tmp_path / "giants.fasta", iter([("giant", repeats[:target_length])]))
    queries = {"small": repeats[:90], "large": repeats[5000 : 5000 + query_length]}
    search = Search(queries, database, cache=tmp_path / "cache", max_memory=MIN_MEMORY)
    with pytest.raises(SearchError, match=r"giants.*\blarge\b.*--max-memory"):
        list(search.run("processes", 1))


def test_a_limit_that_nothing_fits_into_is_refused():
    with pytest.raises(SearchError, match="max_memory is 50 MB; give workers 200 MB or more"):
        Search({"q": "MKTAYIAKQR"}, demo_databases(), max_memory=50_000_000)
