"""Damage to what a search keeps is noticed: what is found is what it would have found anyway, or an error."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import damage
import pytest

from parafold.errors import ParafoldError, SearchError
from parafold.msa import Search, SearchResults, search
from parafold.msa.cache import Cache
from parafold.msa.execute import finished, merged
from parafold.msa.plan import Plan, result_path
from parafold.msa.prepared import Prepared
from parafold.msa.results import Result
from parafold.msa.sealed import DamagedError
from parafold.msa.worker import run_task

CASES = 1000
QUERIES = {"trp_cage": "NLYIQWLKDGGPSSGRPPPS", "villin": "LSDEDFKAVFGMTRSAFANLPLWKQQNLKKEKGLF"}
SHARDS = 4


class BrokenOffError(Exception):
    """Stands for whatever ends a run."""


def write_database(path: Path, seed: int) -> Path:
    rng = random.Random(seed)
    with path.open("w") as file:
        for number in range(60):
            letters = list(rng.choice(list(QUERIES.values())) * 2)
            for at in rng.sample(range(len(letters)), len(letters) // 6):
                letters[at] = rng.choice("ACDEFGHIKLMNPQRSTVWY")
            file.write(f">sp|P{number:05}|N{number}_HUMAN relative {number}\n{''.join(letters)}\n")
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_database(tmp_path_factory.mktemp("database") / "db.fasta", seed=0)


def searched(database: Path, cache: Path, warned: list[str] | None = None) -> SearchResults:
    said = [] if warned is None else warned
    options = {"executor": "serial", "shards": SHARDS, "cache": cache, "warn": said.append}
    return search(QUERIES, {"db": database}, **options)


def tables(results: SearchResults) -> dict[str, tuple[str, str]]:
    """All that a search wrote: rows, scores, E-values."""
    found = {name: alignments["db"] for name, alignments in results.alignments.items()}
    return {name: (alignment.a3m(), alignment.table()) for name, alignment in found.items()}


@pytest.fixture(scope="module")
def finished_cache(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """The cache after a search."""
    cache = tmp_path_factory.mktemp("finished") / "cache"
    searched(database, cache)
    return cache


@pytest.fixture(scope="module")
def unfinished_cache(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """The cache after a search that was broken off when three of its four tasks were done."""
    cache = tmp_path_factory.mktemp("unfinished") / "cache"

    def stop(progress) -> None:
        if progress.fraction > 0.7:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        search(QUERIES, {"db": database}, executor="serial", shards=SHARDS, cache=cache, progress=stop)
    assert len(list(cache.glob("work/*/tasks/*.jsonl"))) == 3
    return cache


@pytest.fixture(scope="module")
def expected(database: Path, finished_cache: Path) -> dict[str, tuple[str, str]]:
    return tables(searched(database, finished_cache))


@pytest.fixture(scope="module")
def plan_folder(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """A plan whose tasks are all done."""
    folder = tmp_path_factory.mktemp("plan") / "plan"
    plan = Search(QUERIES, {"db": database}, shards=SHARDS, cache=None).plan(folder, workers=2)
    for task in plan.tasks:
        run_task(folder, task.number)
    return folder


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def noticed(original: Path, place: Path, read: Callable[[Path], object], seed: int) -> int:
    """How many of the damaged copies of a file were refused; the others must read as the original does."""
    rng = random.Random(seed)
    data, sound = original.read_bytes(), read(original)
    refused = 0
    for number in range(CASES):
        place.write_bytes(damage.damaged(data, rng))
        try:
            assert read(place) == sound, number
        except ParafoldError as error:
            assert str(place) in str(error) and "\n" not in str(error)
            refused += 1
    return refused


def test_cache_entries(tmp_path: Path, finished_cache: Path):
    entry = next(path for path in files_in(finished_cache / "alignments"))
    place = tmp_path / "alignments" / entry.parent.name / entry.name
    place.parent.mkdir(parents=True)
    assert noticed(entry, place, lambda path: Cache(path.parents[2]).get(path.name), seed=1) > 0.9 * CASES


def test_an_entry_under_another_name(tmp_path: Path, finished_cache: Path):
    first, second = files_in(finished_cache / "alignments")
    shutil.copytree(finished_cache, tmp_path / "cache")
    place = tmp_path / "cache" / second.relative_to(finished_cache)
    place.write_bytes(first.read_bytes())
    with pytest.raises(DamagedError, match="not the alignment of its name"):
        Cache(tmp_path / "cache").get(place.name)


def test_results_of_tasks(tmp_path: Path, plan_folder: Path):
    plan = Plan.load(plan_folder)

    def read(path: Path) -> object:
        result = Result(path, plan.key)
        return [list(result.hits(query)) for query in range(len(plan.sequences))]

    place = tmp_path / "00001.jsonl"
    assert noticed(result_path(plan_folder, 1), place, read, seed=2) > 0.9 * CASES


def test_results_that_change_after_they_were_checked(tmp_path: Path, plan_folder: Path):
    """A result is read again when alignments are merged."""
    plan, rng = Plan.load(plan_folder), random.Random(3)
    data = result_path(plan_folder, 1).read_bytes()
    place = tmp_path / "00001.jsonl"
    place.write_bytes(data)
    result = Result(place, plan.key)
    sound = [list(result.hits(query)) for query in range(len(plan.sequences))]
    refused = 0
    for number in range(CASES):
        place.write_bytes(damage.damaged(data, rng))
        try:
            assert [list(result.hits(query)) for query in range(len(plan.sequences))] == sound, number
        except DamagedError as error:
            assert str(place) in str(error)
            refused += 1
    assert refused > 0.5 * CASES


def test_plans(tmp_path: Path, plan_folder: Path):
    place = tmp_path / "plan.json"
    read = lambda path: Plan.load(path.parent)  # noqa: E731
    assert noticed(plan_folder / "plan.json", place, read, seed=4) > 0.9 * CASES


def test_prepared_queries(tmp_path: Path, plan_folder: Path):
    (tmp_path / "prepared").mkdir()

    def read(path: Path) -> object:
        prepared = Prepared(path.parents[1], path.name)
        return [prepared[query] for query in range(len(QUERIES))]

    original = plan_folder / "prepared" / "pyhmmer"
    assert noticed(original, tmp_path / "prepared" / "pyhmmer", read, seed=5) > 0.9 * CASES


def test_a_damaged_plan_folder_is_not_merged(tmp_path: Path, plan_folder: Path):
    sound = dict(merged(Plan.load(plan_folder), finished(plan_folder, Plan.load(plan_folder), print)))
    folder, rng = tmp_path / "plan", random.Random(6)
    for _ in range(60):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(plan_folder, folder)
        victim = rng.choice([folder / "plan.json", *folder.glob("tasks/*")])
        victim.write_bytes(damage.damaged(victim.read_bytes(), rng))
        said: list[str] = []
        try:
            plan = Plan.load(folder)
            assert dict(merged(plan, finished(folder, plan, said.append))) == sound
        except SearchError:
            assert said or victim.name == "plan.json"


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_the_next_run_finds_the_same(
    tmp_path: Path,
    database: Path,
    finished_cache: Path,
    unfinished_cache: Path,
    expected: dict[str, tuple[str, str]],
    state: str,
):
    """Whatever is damaged in the cache: an alignment; or the plan, a prepared query, a result of a search
    that was broken off."""
    source = finished_cache if state == "finished" else unfinished_cache
    cache, rng = tmp_path / "cache", random.Random(7)
    victims = [path.relative_to(source) for path in files_in(source)]
    warnings = 0
    for number in range(60):
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree(source, cache)
        for victim in rng.sample(victims, rng.choice((1, 1, 2))):
            (cache / victim).write_bytes(damage.damaged((cache / victim).read_bytes(), rng))
        said: list[str] = []
        assert tables(searched(database, cache, said)) == expected, number
        warnings += bool(said)
        assert all(str(cache) in message for message in said)
        if said:
            again: list[str] = []
            assert tables(searched(database, cache, again)) == expected
            assert not again, "the damage was not mended"
    assert warnings > 40


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b">more\nNLYIQWLKDGGPSSGRPPPS\n"),
        lambda path: path.write_bytes(path.read_bytes().rpartition(b">")[0]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"N", b"D")),
        lambda path: path.unlink(),
    ],
    ids=["grows", "shrinks", "other residues", "goes"],
)
def test_a_database_that_changes_meanwhile(tmp_path: Path, change: Callable[[Path], object]):
    path = write_database(tmp_path / "db.fasta", seed=8)
    cache = tmp_path / "cache"
    changed = False

    def disturb(progress) -> None:
        nonlocal changed
        if not changed and progress.fraction > 0.4:
            changed = True
            change(path)

    options = {"executor": "serial", "shards": SHARDS}
    with pytest.raises(SearchError, match=r"db\.fasta: (.*changed|cannot be read)"):
        search(QUERIES, {"db": path}, cache=cache, progress=disturb, **options)
    assert not files_in(cache / "alignments")
    if path.exists():
        found = tables(search(QUERIES, {"db": path}, cache=cache, **options))
        assert found == tables(search(QUERIES, {"db": path}, cache=None, **options))
