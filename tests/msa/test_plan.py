"""How a search is cut into tasks and goes on after it was broken off."""

import dataclasses
import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa import Database, Search, demo_databases, search
from parafold.msa.engines import make_engine
from parafold.msa.executors.serial import SerialExecutor
from parafold.msa.plan import Plan, make_plan, result_path
from parafold.msa.sealed import write_sealed

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
QUERIES = {"ubiquitin": UBIQUITIN, "half": UBIQUITIN[:40], "trp_cage": "NLYIQWLKDGGPSSGRPPPS"}


def sequences(count: int, length: int) -> dict[str, str]:
    rng = random.Random(0)
    return {f"q{i}": "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=length)) for i in range(count)}


def planned(queries=None, databases=None, **options) -> Plan:
    databases = demo_databases() if databases is None else databases
    engines = [make_engine("pyhmmer")] * len(databases)
    return make_plan(queries or sequences(100, 1000), databases, engines, **{"memory": 10**9, **options})


class BreaksOff(SerialExecutor):
    """Does some tasks and is then broken off, as by Ctrl-C."""

    def __init__(self, tasks: int) -> None:
        super().__init__(2)
        self.left = tasks

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        for number in super().run(folder, tasks):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield number


# Cutting


@pytest.mark.parametrize("workers", [2, 4, 9])
def test_there_are_at_least_eight_tasks_for_each_worker_where_there_is_enough_work(workers):
    plan = planned(workers=workers)
    assert 8 * workers <= len(plan.tasks) <= 40 * workers
    assert [task.number for task in plan.tasks] == list(range(len(plan.tasks)))
    # None is so long that the others would wait for it.
    assert max(task.cost for task in plan.tasks) < sum(task.cost for task in plan.tasks) / (2 * workers)


def test_little_work_is_not_cut_to_pieces():
    assert len(planned(QUERIES, workers=4).tasks) <= 6
    assert len(planned(workers=1).tasks) == 3


@pytest.mark.parametrize(
    "options", [{"workers": 5}, {"shards": 7}, {"schedule": "static"}, {"shards": 10**6}]
)
def test_the_shards_of_each_database_cover_it_exactly(options):
    plan = planned(**options)
    for index, database in enumerate(plan.databases):
        mine = [task for task in plan.tasks if task.database == index]
        edges = [(task.shard.start, task.shard.end) for task in mine]
        assert edges[0][0] == 0 and edges[-1][1] == database.path.stat().st_size
        assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
        text = database.path.read_bytes()
        assert all(text[start : start + 1] == b">" for start, _ in edges)
        assert all(task.queries == tuple(range(100)) for task in mine)
        assert len(mine) == {7: 7, 10**6: text.count(b">")}.get(options.get("shards", 0), len(mine))
    assert plan.file_bytes == {str(d.path): d.path.stat().st_size for d in plan.databases}


def test_many_queries_are_searched_for_in_batches():
    plan = planned(sequences(250, 1000), shards=2)
    batches = [task.queries for task in plan.tasks if task.database == 0 and task.shard.start == 0]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert sorted(itertools.chain(*batches)) == list(range(250))
    assert [len(task.queries) for task in planned(sequences(2, 150_000), shards=1).tasks] == [1] * 6


def test_queries_that_are_wanted_of_some_databases_only():
    queries = sequences(3, 50)
    names = list(queries.values())
    plan = planned(queries, shards=1, wanted={0: names, 2: names[1:2]})
    assert [(task.database, task.queries) for task in plan.tasks] == [(0, (0, 1, 2)), (2, (1,))]


def test_an_empty_database_is_no_reason_to_fail_yet(tmp_path):
    (tmp_path / "db.fasta").write_text("")
    assert len(planned(QUERIES, [Database("db", tmp_path / "db.fasta")], workers=3).tasks) == 1


def test_the_longest_come_first_and_the_static_schedule_keeps_the_order():
    plan = planned(shards=4)
    costs = [plan.tasks[number].cost for number in plan.order]
    assert sorted(plan.order) == list(range(12))
    assert costs == sorted(costs, reverse=True) and costs[0] > 2 * costs[-1]
    static = planned(databases=demo_databases()[::-1], schedule="static", workers=8)
    assert static.order == [0, 1, 2]
    names = [static.databases[static.tasks[number].database].name for number in static.order]
    assert names == ["mgnify_demo", "small_bfd_demo", "uniref90_demo"]


def test_what_cannot_be_split_comes_first_and_whole(tmp_path):
    for ending in ("a3m.ffdata", "a3m.ffindex", "cs219.ffdata", "cs219.ffindex"):
        (tmp_path / f"bfd_{ending}").write_bytes(b"x")
    databases = [*demo_databases(), Database("bfd", tmp_path / "bfd")]
    engines = [make_engine("pyhmmer")] * 3 + [make_engine("hhblits")]
    plan = make_plan(sequences(2, 100), databases, engines, memory=10**9, workers=8, shards=None)
    assert [plan.tasks[number].database for number in plan.order[:2]] == [3, 3]
    assert [task.queries for task in plan.tasks if task.database == 3] == [(0,), (1,)]
    with pytest.raises(SearchError, match="hhblits cannot search parts"):
        make_plan(QUERIES, databases, engines, memory=10**9, shards=3)


@pytest.mark.parametrize("of", [1, 2, 3, 7, 100])
def test_shares_are_all_tasks_each_once_and_about_equal(of):
    plan = planned(shards=11)
    shares = [plan.share(index, of) for index in range(of)]
    assert sorted(itertools.chain(*shares)) == list(range(33))
    assert all(share == sorted(share, key=plan.order.index) for share in shares)
    loads = [sum(plan.tasks[number].cost for number in share) for share in shares]
    assert max(loads) - min(loads) <= max(task.cost for task in plan.tasks) * 1.001


# In a folder


@pytest.mark.parametrize("schedule", ["longest-first", "static"])
def test_a_plan_is_read_as_it_was_written(tmp_path, schedule):
    databases = [*demo_databases(), Database("Näme", Path("x@3"), "other", 7, 5, (Path("y"),))]
    plan = planned(QUERIES, schedule=schedule)
    engines = (*plan.engines, ("hhblits", {"cpu": 2}))
    plan = dataclasses.replace(plan, databases=tuple(databases), engines=engines)
    plan.save(tmp_path)
    loaded = Plan.load(tmp_path)
    assert loaded == plan
    assert (loaded.key, loaded.order) == (plan.key, plan.order)


def test_the_key_is_that_of_what_tasks_find():
    plan = planned(QUERIES, shards=2)
    same = planned(QUERIES, shards=2, memory=2 * 10**9)
    named = planned({f"other {name}": sequence for name, sequence in QUERIES.items()}, shards=2)
    assert plan.key == same.key == named.key
    others = [planned(QUERIES, shards=3), planned(sequences(2, 50), shards=2)]
    others.append(planned(QUERIES, demo_databases()[:2], shards=2))
    others.append(dataclasses.replace(plan, file_bytes={name: 1 for name in plan.file_bytes}))
    others.append(dataclasses.replace(plan, engines=(("jackhmmer", {}),) * 3))
    assert len({plan.key, *(other.key for other in others)}) == 6


def test_a_damaged_plan_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(SearchError, match="holds no plan; make one"):
        Plan.load(tmp_path)
    planned(QUERIES, shards=2).save(tmp_path)
    path = tmp_path / "plan.json"
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content.replace(b"ubiquitin", b"ubiquiton"), content[9:]):
        path.write_bytes(damaged)
        with pytest.raises(SearchError, match=r"plan\.json: is damaged.*make the plan again"):
            Plan.load(tmp_path)
    write_sealed(path, [json.dumps({"format": 0}).encode()])
    with pytest.raises(SearchError, match="another version of parafold; make the plan again"):
        Plan.load(tmp_path)


def test_a_folder_that_holds_a_plan_is_not_taken_for_another(tmp_path):
    Search(QUERIES, demo_databases(), cache=None).plan(tmp_path, 2)
    with pytest.raises(SearchError, match="holds a plan already"):
        Search(QUERIES, demo_databases(), cache=None).plan(tmp_path, 2)


def test_a_plan_names_files_for_processes_in_other_folders(tmp_path, monkeypatch):
    (tmp_path / "db.fasta").write_text(f">a\n{UBIQUITIN}\n")
    monkeypatch.chdir(tmp_path)
    plan = Search(QUERIES, "db.fasta", cache=None).plan("plan", 1)
    assert [task.shard.path for task in plan.tasks] == [tmp_path / "db.fasta"]


# Going on


@pytest.fixture(scope="module")
def in_peace():
    return search(QUERIES, demo_databases(), cache=None).alignments


@pytest.fixture
def broken_off(tmp_path):
    """A cache with a search of fifteen tasks that was broken off after six."""
    with pytest.raises(KeyboardInterrupt):
        search(QUERIES, demo_databases(), shards=5, cache=tmp_path, executor=BreaksOff(6))
    (folder,) = (tmp_path / "work").iterdir()
    assert len(list((folder / "tasks").iterdir())) == 7  # one was done, but not yet told
    return folder


def go_on(folder: Path, **options):
    """The same search again. A warning would be an error."""
    return search(QUERIES, demo_databases(), cache=folder.parent.parent, **options)


@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_goes_on_with_the_old_cut(broken_off, in_peace, workers):
    found = go_on(broken_off, executor="processes", workers=workers)
    assert found.alignments == in_peace
    assert len(found.tasks) == 15 - 7
    assert not broken_off.exists()


def test_the_same_number_of_shards_goes_on_too(broken_off, in_peace):
    found = go_on(broken_off, shards=5)
    assert (found.alignments, len(found.tasks)) == (in_peace, 8)


def test_another_number_of_shards_is_another_plan(broken_off, in_peace):
    found = go_on(broken_off, shards=4)
    assert (found.alignments, len(found.tasks)) == (in_peace, 12)


def test_names_and_order_of_queries_may_change(broken_off, in_peace):
    queries = {f"new {name}": sequence for name, sequence in reversed(QUERIES.items())}
    found = search(queries, demo_databases(), cache=broken_off.parent.parent)
    assert len(found.tasks) == 8
    assert list(found) == list(queries)
    assert found.alignments == {f"new {name}": alignments for name, alignments in in_peace.items()}


def test_a_query_that_is_refused_keeps_no_search_from_going_on(tmp_path, in_peace):
    refused = []
    options = {"cache": tmp_path, "on_error": lambda name, error: refused.append(name)}
    queries = {**QUERIES, "bad": "M"}
    with pytest.raises(KeyboardInterrupt):
        search(queries, demo_databases(), shards=5, executor=BreaksOff(6), **options)
    found = search(queries, demo_databases(), **options)
    assert (found.alignments, len(found.tasks)) == (in_peace, 8)
    assert refused == ["bad", "bad"]


def test_a_killed_run_that_had_planned_only(broken_off, in_peace):
    shutil.rmtree(broken_off / "tasks")
    found = go_on(broken_off)
    assert (found.alignments, len(found.tasks)) == (in_peace, 15)


@pytest.mark.parametrize("part", ["plan.json", "prepared/pyhmmer"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_plan_is_made_again(broken_off, in_peace, part, damage):
    path = broken_off / part
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    else:
        path.unlink()
    said = []
    found = go_on(broken_off, shards=4, warn=said.append)
    assert (found.alignments, len(found.tasks)) == (in_peace, 12)
    if (part, damage) != ("plan.json", "missing"):
        (line,) = said
        assert str(broken_off) in line and "damaged" in line


def test_results_of_another_plan_are_not_believed(broken_off, in_peace, tmp_path_factory):
    """Their tasks have the same numbers: a worker of an older run may still be writing them."""
    cache = tmp_path_factory.mktemp("other")
    with pytest.raises(KeyboardInterrupt):
        search(QUERIES, demo_databases(), shards=4, cache=cache, executor=BreaksOff(6))
    (other,) = (cache / "work").iterdir()
    told = sorted(path.name for path in (other / "tasks").iterdir())
    for number in (int(name.partition(".")[0]) for name in told[:2]):
        shutil.copy(result_path(other, number), result_path(broken_off, number))
    said = []
    found = go_on(broken_off, warn=said.append)
    assert found.alignments == in_peace
    assert 8 <= len(found.tasks) <= 10
    assert len(said) == 2 and all("another plan" in line for line in said)
