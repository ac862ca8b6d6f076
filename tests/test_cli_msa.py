"""`parafold msa`, run for real on the demonstration databases."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from typer.testing import CliRunner, Result

from parafold.cli import app
from parafold.msa import demo_databases
from parafold.protein.alignment import parse_a3m

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
TRP_CAGE = small.EXAMPLES / "trp_cage.fasta"
DATABASES = ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """A cache and a current folder of each test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user data"))
    monkeypatch.chdir(tmp_path)


def msa(*arguments: str | Path, expected: int = 0) -> Result:
    words = ["msa", *(str(argument) for argument in arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == expected, result.output
    if expected == 0:
        assert result.stderr == ""
    return result


def error(*arguments: str | Path) -> str:
    """The one line of a command that fails."""
    (line,) = msa(*arguments, expected=2).stderr.splitlines()
    assert line.startswith("parafold: ")
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "queries.fasta"
    path.write_text(f">ubi/1 a description\n{UBIQUITIN}\n>two\n{UBIQUITIN[:40]}:{UBIQUITIN[:30]}\n")
    return path


def test_help():
    for command in ([], ["search"], ["plan"], ["worker"], ["merge"]):
        assert "--help" in msa(*command, "--help").output


def test_jax_is_not_loaded():
    program = (
        "import sys; from parafold.cli import app\n"
        f"try: app(['msa', {str(TRP_CAGE)!r}, '-o', 'out', '--executor', 'serial'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_each_query_gets_its_files(fasta, tmp_path):
    out = tmp_path / "out"
    result = msa(fasta, TRP_CAGE, "-o", out)
    names = ["ubi_1", "two_A", "two_B", "trp_cage"]
    assert set(contents(out)) == {
        file
        for name in names
        for file in (
            f"{name}.a3m",
            *(f"{name}/{db}.{ending}" for db in DATABASES for ending in ("a3m", "tsv")),
        )
    }
    assert re.search(
        r"^ubi_1: \d+ in uniref90_demo, \d+ in small_bfd_demo, \d+ in mgnify_demo$", result.stdout, re.M
    )
    assert result.stdout.splitlines()[-1] == f"4 of 4 queries are in {out}"
    merged = parse_a3m((out / "ubi_1.a3m").read_text())
    parts = [parse_a3m((out / "ubi_1" / f"{name}.a3m").read_text()) for name in DATABASES]
    assert merged.sequences == list(dict.fromkeys(row for part in parts for row in part.sequences))
    assert merged.sequences[0] == UBIQUITIN and len(merged) > 100
    head, *rows = (out / "ubi_1" / "mgnify_demo.tsv").read_text().splitlines()
    assert head == "#hit\tscore\tevalue"
    assert [row.split("\t")[0] for row in rows] == parts[2].descriptions[1:]
    scores = [float(row.split("\t")[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_second_run_takes_all_from_the_cache(fasta, tmp_path):
    first = msa(fasta, "-o", "first")
    again = msa(fasta, "-o", "again")
    assert contents(Path("first")) == contents(Path("again"))
    assert "searching" in first.stdout and "searching" not in again.stdout
    own = msa(fasta, "-o", "own", "--cache", "my cache")
    assert "searching" in own.stdout and Path("my cache/alignments").is_dir()
    assert "searching" not in msa(fasta, "-o", "own", "--cache", "my cache").stdout


def test_without_a_cache_nothing_stays(fasta, tmp_path):
    for _ in range(2):
        assert "searching" in msa(fasta, "-o", "out", "--no-cache").stdout
    assert {path.name for path in tmp_path.iterdir()} == {"out", "queries.fasta"}


def test_plan_worker_and_merge_give_what_one_command_gives(fasta, tmp_path, monkeypatch):
    msa(fasta, "-o", "at once", "--no-cache")
    made = msa("plan", fasta, "--to", "the plan", "--workers", "3", "--shards", "4")
    assert "12 tasks in the plan" in made.stdout
    assert "parafold msa worker 'the plan'" in made.stdout or "parafold msa worker the plan" in made.stdout
    # Workers may be started elsewhere.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for index in ("2", "0"):
        done = run("worker", "../the plan", "--index", index, "--of", "3")
        assert re.search(r"^\d of \d: \w+_demo bytes \d+-\d+$", done, re.M)
    assert "results of" in error("merge", "../the plan") and "missing" in error("merge", "../the plan")
    assert not list(elsewhere.iterdir())
    run("worker", "../the plan", "--index", "1", "--of", "3")
    assert "ubi_1: " in msa("merge", "../the plan", "-o", "in steps").stdout
    assert contents(Path("in steps")) == contents(tmp_path / "at once")
    assert "holds a plan already" in error("plan", fasta, "--to", "../the plan")


def run(*arguments: str) -> str:
    """In a process of its own, as it limits its memory."""
    command = [sys.executable, "-m", "parafold", "msa", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_damaged_result_is_named_by_merge(fasta):
    msa("plan", fasta, "--to", "plan", "--shards", "2")
    run("worker", "plan")
    path = Path("plan/tasks/00004.jsonl")
    path.write_bytes(path.read_bytes()[:-1])
    first, second = msa("merge", "plan", expected=2).stderr.splitlines()
    assert "00004.jsonl: is damaged" in first
    assert "1 of 2 results of mgnify_demo are missing" in second
    run("worker", "plan")
    assert "ubi_1" in msa("merge", "plan").stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--executor", "serial", "--shards", "5"],
        ["--executor", "processes", "--workers", "2", "--max-memory", "1G"],
        ["--schedule", "static", "--workers", "2"],
    ],
)
def test_how_it_is_done_makes_no_difference(fasta, options):
    msa(fasta, "-o", "plain", "--no-cache")
    msa(fasta, "-o", "other", "--no-cache", *options)
    assert contents(Path("plain")) == contents(Path("other"))


def test_the_limit_on_rows_counts_the_query(fasta):
    msa(fasta, "-o", "out", "--no-cache", "--max-hits", "7")
    for name in DATABASES:
        assert Path(f"out/ubi_1/{name}.a3m").read_text().count(">") == 7


def test_databases_are_given_by_file_and_folder(fasta):
    path = demo_databases()[0].path
    msa(fasta, "-o", "file", "-d", path)
    assert {p.name for p in Path("file/ubi_1").iterdir()} == {"uniref90_demo.a3m", "uniref90_demo.tsv"}
    msa(fasta, "-o", "folder", "--databases", path.parent)
    assert len(list(Path("folder/ubi_1").iterdir())) == 6
    Path("data/uniref90").mkdir(parents=True)
    Path("data/uniref90/uniref90.fasta").write_text(f">a\n{UBIQUITIN}\n")
    msa(fasta, "-o", "layout", "--data-dir", "data")
    assert {p.name for p in Path("layout/ubi_1").iterdir()} == {"uniref90.a3m", "uniref90.tsv"}


def test_copies_and_json_jobs(tmp_path):
    job = {
        "name": "my job",
        "sequences": [
            {"protein": {"id": ["A", "B"], "sequence": UBIQUITIN[:40]}},
            {"protein": {"id": "C", "sequence": UBIQUITIN}},
        ],
        "modelSeeds": [1],
        "dialect": "alphafold3",
        "version": 1,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    msa("job.json", "-o", "out", "--no-cache")
    assert {path.name for path in Path("out").glob("*.a3m")} == {f"my_job_{c}.a3m" for c in "ABC"}
    assert Path("out/my_job_A.a3m").read_bytes() == Path("out/my_job_B.a3m").read_bytes()


def test_bad_records_are_named_and_the_others_found(tmp_path):
    (tmp_path / "q.fasta").write_text(f">bad\nMK1\n>good\n{UBIQUITIN}\n>unknown\nXXXX\n")
    result = msa("q.fasta", "-o", "out", expected=2)
    first, second = result.stderr.splitlines()
    assert "bad" in first and "q.fasta line 2" in first
    assert "unknown" in second and "unknown residues" in second
    assert result.stdout.splitlines()[-1] == "1 of 3 queries are in out"
    assert [path.name for path in Path("out").glob("*.a3m")] == ["good.a3m"]
    # A plan is for all of its queries or none.
    assert "q.fasta line 2" in error("plan", "q.fasta", "--to", "plan")
    assert not Path("plan").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.fasta"], r"missing\.fasta"),
        (["queries.fasta", "-d", "nowhere"], "nowhere: no such folder of databases"),
        (["queries.fasta", "--data-dir", "nowhere"], "nowhere"),
        (["queries.fasta", "-d", "empty.fasta"], r"empty\.fasta: is empty"),
        (["queries.fasta", "-o", "empty.fasta"], r"empty\.fasta"),
        (["queries.fasta", "same.fasta"], r"same\.fasta: ubi_1 names another sequence already"),
        (["empty.fasta"], r"empty\.fasta"),
        (["queries.fasta", "--schedule", "static", "--shards", "3"], "static schedule searches whole"),
        (["queries.fasta", "--max-memory", "lots"], "--max-memory lots: give 200M or more"),
        (["queries.fasta", "--max-memory", "2"], "--max-memory 2: give 200M or more"),
        (["queries.fasta", "--max-memory", "199MB"], "199MB"),
        (["queries.fasta", "--max-memory", "-3G"], "-3G"),
        (["queries.fasta", "--max-memory", "infinity"], "infinity"),
        (["queries.fasta", "--max-memory", "nan"], "nan"),
        (["worker", "nowhere"], "nowhere: holds no plan"),
        (["merge", "nowhere"], "nowhere: holds no plan"),
        (["worker", "nowhere", "--index", "3", "--of", "3"], "the index goes from 0 to 2"),
    ],
)
def test_errors_are_told_in_one_line(fasta, tmp_path, arguments, message):
    (tmp_path / "empty.fasta").write_text("")
    (tmp_path / "same.fasta").write_text(">ubi/1\nMKVLAA\n")
    options = () if arguments[0] in ("worker", "merge") else ("--no-cache",)
    assert re.search(message, error(*arguments, *options))


@pytest.mark.parametrize("size", ["200M", "1G", "1.5GB", "2GiB", "300000000", "1000000k", "1t"])
def test_sizes_of_memory(fasta, size):
    msa("plan", fasta, "--to", "plan", "--max-memory", size)
    memory = json.loads(Path("plan/plan.json").read_text().splitlines()[0][:-64])["memory"]
    assert (
        memory
        == {
            "200M": 2 * 10**8,
            "1G": 10**9,
            "1.5GB": 1.5 * 10**9,
            "2GiB": 2**31,
            "300000000": 3 * 10**8,
            "1000000k": 10**9,
            "1t": 10**12,
        }[size]
    )


def test_an_interrupt_ends_in_one_line_and_the_next_run_goes_on(tmp_path):
    sequences = {f"q{i}": (UBIQUITIN[i:] + UBIQUITIN[:i]) * 5 for i in range(20)}
    (tmp_path / "q.fasta").write_text("".join(f">{name}\n{s}\n" for name, s in sequences.items()))
    command = [
        sys.executable,
        "-m",
        "parafold",
        "msa",
        "q.fasta",
        "-o",
        "out",
        "--cache",
        "cache",
        "--shards",
        "8",
    ]
    command += ["--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 60
    while not list(Path("cache").glob("work/*/tasks/*.jsonl")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    (line,) = told.splitlines()
    assert "interrupted" in line and "continues" in line
    assert not Path("out").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "searching, 0%" not in done.stdout and "20 of 20 queries" in done.stdout
