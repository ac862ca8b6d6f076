"""What was found is found again, for exactly the same search, and never in a damaged state."""

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parafold.errors import OutputError, SearchError
from parafold.files import UNFINISHED
from parafold.msa import Alignment, Database, SearchResults, search
from parafold.msa.cache import Cache, cache_key, default_cache
from parafold.msa.engines import Row
from parafold.msa.executors.serial import SerialExecutor
from parafold.msa.sealed import DamagedError, read_sealed, write_sealed

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
QUERIES = {"whole": UBIQUITIN, "half": UBIQUITIN[:45]}
ALIGNMENT = Alignment(
    "MKV", "db", "other", 7, [Row("a/1-3", "MkK-", 31.400001525878906, 1e-300), Row("ä", "MKV", 0.1, 3e-5)]
)
KEY = cache_key("MKV", {"name": "e"}, {"fingerprint": "f"})


def records(*changed: int) -> str:
    """A family of the query; of some members one residue is changed."""
    family = [list(UBIQUITIN[i:] + UBIQUITIN[:i] + UBIQUITIN) for i in range(8)]
    for number in changed:
        family[number][-30] = "W"
    return "".join(f">member{number}\n{''.join(residues)}\n" for number, residues in enumerate(family))


@pytest.fixture
def databases(tmp_path) -> list[Database]:
    for name in ("uniref90_x", "mgnify_x"):
        (tmp_path / f"{name}.fasta").write_text(records())
    return [Database(name, tmp_path / f"{name}.fasta") for name in ("uniref90_x", "mgnify_x")]


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def run(databases, cache: Path, queries=QUERIES, **options) -> SearchResults:
    """A search in this process. A warning would be an error."""
    return search(queries, databases, cache=cache, executor="serial", **options)


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "alignments").rglob("*") if path.is_file())


class BreaksOff(SerialExecutor):
    """Does some tasks and is then broken off, as by Ctrl-C."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.left = tasks

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        for number in super().run(folder, tasks):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            yield number


# One entry


def test_an_entry_is_read_to_the_last_bit(tmp_path):
    cache = Cache(tmp_path / "new")
    assert cache.get(KEY) is None
    cache.put(KEY, ALIGNMENT)
    assert cache.get(KEY) == ALIGNMENT
    (path,) = entries(cache.folder)
    assert path.name == KEY and path.parent.name == KEY[:2]


def test_the_key_changes_with_each_of_its_parts():
    keys = {
        cache_key(sequence, engine, database)
        for sequence in ("MKV", "MKVV")
        for engine in ({"name": "e"}, {"name": "e", "version": 2})
        for database in ({"fingerprint": "f"}, {"fingerprint": "f", "z": None})
    }
    assert len(keys) == 8 and KEY in keys


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    elif how == "another key":
        head, _, packed = read_sealed(path).partition(b"\n")
        write_sealed(path, [json.dumps(json.loads(head) | {"key": "x"}).encode(), b"\n", packed])
    elif how == "other content":
        write_sealed(path, [b'{"key": "' + path.name.encode() + b'"}\n', zlib.compress(b"[]")])


@pytest.mark.parametrize("how", ["truncated", "empty", "a bit", "another key", "other content"])
def test_a_damaged_entry_is_named_and_gone(tmp_path, how):
    cache = Cache(tmp_path)
    cache.put(KEY, ALIGNMENT)
    damage(entries(tmp_path)[0], how)
    with pytest.raises(DamagedError, match=f"{KEY}.*will be made again"):
        cache.get(KEY)
    assert cache.get(KEY) is None


def test_the_default_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "parafold" / "msa"
    found = search({"q": UBIQUITIN[:20]}, {"db": _one(tmp_path)})
    assert len(found.tasks) == 1 and len(entries(default_cache())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "parafold" / "msa"


def _one(folder: Path) -> Path:
    path = folder / "db.fasta"
    path.write_text(f">a\n{UBIQUITIN}\n")
    return path


# Whole searches


def test_a_second_run_does_no_task(databases, cache):
    first = run(databases, cache)
    assert len(first.tasks) == 2
    assert not list((cache / "work").iterdir())
    again = run(databases, cache)
    assert again.tasks == [] and again.alignments == first.alignments
    assert {name: msa.sequences for name, msa in again.items()} == {
        name: msa.sequences for name, msa in first.items()
    }
    # Shards, workers, schedule and memory have no part in what is found.
    for options in ({"shards": 3}, {"schedule": "static"}, {"max_memory": 10**9}):
        assert run(databases, cache, **options).tasks == []
    assert search(QUERIES, databases, cache=cache, workers=2).tasks == []


def test_without_a_cache_everything_is_done_and_nothing_stays(databases, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        assert len(search(QUERIES, databases, cache=None).tasks) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_only_what_is_missing_is_searched_for(databases, cache):
    run(databases[:1], cache, {"whole": UBIQUITIN})
    found = run(databases, cache)
    assert [(record.database, record.queries) for record in found.tasks] == [
        ("uniref90_x", 1),
        ("mgnify_x", 2),
    ]
    assert found.alignments == run(databases, None).alignments


def test_names_have_no_part_in_it(databases, cache):
    """Names of queries, databases and their kinds are the caller's; the alignment is the same."""
    run(databases, cache)
    renamed = [Database("bfd_y", databases[0].path, max_hits=10_000), *databases[1:]]
    found = run(renamed, cache, {"another": UBIQUITIN.lower()})
    assert found.tasks == []
    alignment = found.alignments["another"]["bfd_y"]
    assert (alignment.database, alignment.kind) == ("bfd_y", "bfd")


@pytest.mark.parametrize(
    "change", ["sequence", "content", "date", "size", "z", "max_hits", "limit of the call", "engine"]
)
def test_another_search_is_done(databases, cache, change):
    run(databases, cache)
    path, options, queries = databases[0].path, {}, QUERIES
    if change == "sequence":
        queries = {"whole": UBIQUITIN[:-1], "half": UBIQUITIN[:44]}
    elif change == "content":
        status = path.stat()
        path.write_text(records(3))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "date":
        os.utime(path, ns=(0, 0))
    elif change == "size":
        path.write_text(records() + ">more\nMKV\n")
    elif change in ("z", "max_hits"):
        databases[0] = Database(databases[0].name, path, **{change: 9})
    elif change == "limit of the call":
        options = {"max_hits": {databases[0].name: 3}}
    else:
        options = {"engine": "needleman-wunsch"}
        pytest.importorskip("parasail")
    found = run(databases, cache, queries, **options)
    both = change in ("sequence", "engine")
    assert {record.database for record in found.tasks} == {d.name for d in databases[: 1 + both]}
    assert found.alignments == run(databases, None, queries, **options).alignments
    assert run(databases, cache, queries, **options).tasks == []


@pytest.mark.parametrize("how", ["truncated", "a bit"])
def test_a_damaged_entry_is_named_and_only_it_is_made_again(databases, cache, how):
    first = run(databases, cache)
    victim = entries(cache)[1]
    good = victim.read_bytes()
    damage(victim, how)
    said: list[str] = []
    found = run(databases, cache, warn=said.append)
    assert found.alignments == first.alignments
    assert [record.queries for record in found.tasks] == [1]
    assert len(said) == 1 and str(victim) in said[0] and "damaged" in said[0]
    assert victim.read_bytes() == good
    assert run(databases, cache).tasks == []


@pytest.mark.parametrize("how", ["truncated", "a bit", "empty"])
def test_a_damaged_result_of_a_task_is_named_and_only_it_is_made_again(databases, cache, how):
    with pytest.raises(KeyboardInterrupt):
        search(QUERIES, databases, cache=cache, shards=4, executor=BreaksOff(6))
    (folder,) = (cache / "work").iterdir()
    done = sorted((folder / "tasks").iterdir())
    assert len(done) == 7
    damage(done[2], how)
    said: list[str] = []
    found = run(databases, cache, warn=said.append)
    assert found.alignments == run(databases, None).alignments
    assert len(found.tasks) == 2 and int(done[2].stem) in {record.task for record in found.tasks}
    assert len(said) == 1 and str(done[2]) in said[0]


def test_a_result_that_is_damaged_while_the_search_runs_ends_it_and_only_it_is_made_again(databases, cache):
    """A file may change between the task's end and the merge: never a wrong alignment."""
    queries = {"whole": UBIQUITIN}

    def spoil(progress):
        if progress.doing == "searching" and progress.fraction > 0.99:
            (victim,) = (cache / "work").glob("*/tasks/00003.jsonl")
            victim.write_bytes(victim.read_bytes().replace(b"LTGK", b"LTGG"))

    with pytest.raises(SearchError, match=r"00003\.jsonl.*search again"):
        run(databases, cache, queries, shards=4, progress=spoil)
    said: list[str] = []
    found = run(databases, cache, queries, warn=said.append)
    assert [record.task for record in found.tasks] == [3]
    assert "00003.jsonl" in said[0]
    assert found.alignments == run(databases, None, queries).alignments


def test_litter_of_a_killed_run_goes(databases, cache):
    with pytest.raises(KeyboardInterrupt):
        search(QUERIES, databases, cache=cache, shards=4, executor=BreaksOff(3))
    (folder,) = (cache / "work").iterdir()
    litter = folder / "tasks" / ".part-0123456789abcdef~"
    litter.write_text("half a resu")
    seen: list[bool] = []
    run(databases, cache, progress=lambda progress: seen.append(litter.exists()))
    assert seen and not any(seen[1:])


class Fails(SerialExecutor):
    """One worker fails while another, then killed, is at a task."""

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        yield next(super().run(folder, tasks))
        (folder / "tasks" / ".part-0123456789abcdef~").touch()
        raise SearchError("this worker's disk is full")


def test_a_search_that_fails_leaves_nothing_half_written(databases, cache):
    with pytest.raises(SearchError, match="this worker"):
        search(QUERIES, databases, cache=cache, shards=2, executor=Fails())
    (folder,) = (cache / "work").iterdir()
    assert len(list((folder / "tasks").iterdir())) == 1
    assert not list(folder.rglob(UNFINISHED))


def test_a_cache_that_cannot_be(databases, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run(databases, tmp_path / "file")
    with pytest.raises(OutputError, match="file"):
        run(databases, tmp_path / "file" / "cache")


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="needs setpriv to give up the administrator's rights"
)
@pytest.mark.parametrize("part", ["", "alignments"])
def test_a_cache_that_may_not_be_written_is_named(databases, tmp_path, part):
    locked = tmp_path / "locked" / part
    locked.mkdir(parents=True)
    locked.chmod(0)
    script = (
        "import sys\nfrom parafold.errors import OutputError\nfrom parafold.msa import search\n"
        "try: search({'q': 'MQIFVKTLTGK'}, sys.argv[1], cache=sys.argv[2])\n"
        "except OutputError as error: print(error)"
    )
    program = [sys.executable, "-c", script, databases[0].path, tmp_path / "locked"]
    if os.geteuid() == 0:
        rights = "-dac_override,-dac_read_search"
        program = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *program]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True)
    locked.chmod(0o700)
    assert done.returncode == 0
    assert "locked" in done.stdout and "no permission" in done.stdout


SCRIPT = """
import sys, time
from pathlib import Path
from parafold.msa import search
fasta, cache, mark, stop = sys.argv[1:]
def slow(progress):
    if progress.doing == "searching" and progress.fraction:
        Path(mark).touch()
        while stop and not Path(stop).exists():
            time.sleep(0.01)
def warn(message):
    print(message, flush=True)
    Path(mark).touch()
queries = {"whole": "WHOLE", "half": "HALF"}
found = search(queries, fasta, cache=cache, shards=4, executor="serial", progress=slow, warn=warn)
print(len(found.tasks), found.alignments)
""".replace("WHOLE", UBIQUITIN).replace("HALF", UBIQUITIN[:45])


def test_of_two_processes_at_one_search_one_waits_and_both_are_right(databases, cache, tmp_path):
    def start(name: str, stop: str) -> subprocess.Popen[str]:
        words = [databases[0].path, cache, tmp_path / name, stop]
        command = [sys.executable, "-c", SCRIPT, *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 60
        while not (tmp_path / name).exists() and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        return process

    # The first is held in the middle of its search; the third comes when it has finished.
    first = start("first", str(tmp_path / "go on"))
    second = start("second", "")
    (tmp_path / "go on").touch()
    told = [process.communicate(timeout=60)[0].splitlines() for process in (first, second)]
    told.append(start("third", "").communicate(timeout=60)[0].splitlines())
    assert [len(lines) for lines in told] == [1, 2, 1]
    assert "another process is at the same search" in told[1][0] and "waiting" in told[1][0]
    counts, alignments = zip(*(lines[-1].split(" ", 1) for lines in told), strict=True)
    assert counts == ("4", "0", "0")
    assert len(set(alignments)) == 1 and "member7" in alignments[0]
