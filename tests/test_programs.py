"""Programs are found, run, and never outlive whoever started them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa import demo_databases
from parafold.programs import find_program, program_version, run_program

# A program that starts another one and stays, as wrapper scripts do.
WRAPPER = "#!/bin/sh\nsleep {seconds}\nexit 0\n"


def running(marker: str) -> list[str]:
    """The processes whose command line holds the marker."""
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
    return [row[2] for row in rows if len(row) == 3 and marker in row[2] and not row[1].startswith("Z")]


def until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def seconds() -> str:
    """A number of seconds by which this test's `sleep` is known."""
    return f"30.{time.time_ns()}"


@pytest.fixture
def wrapper(tmp_path: Path, seconds: str) -> Path:
    path = tmp_path / "wrapper"
    path.write_text(WRAPPER.format(seconds=seconds))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "jackhmmer",
            ("apt install hmmer", "conda", "pip install hmmer", "the engine pyhmmer needs no program"),
        ),
        ("hhblits", ("apt install hhsuite", "bioconda hhsuite", "pip has no")),
        ("mmseqs", ("apt install mmseqs2", "bioconda mmseqs2")),
        ("kalign", ("apt install kalign", "bioconda kalign3")),
    ],
)
def test_a_missing_program_is_named_with_the_ways_to_get_it(monkeypatch, tmp_path, name, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SearchError) as caught:
        find_program(name)
    message = str(caught.value)
    assert name in message and "\n" not in message
    assert all(word in message for word in words)


def test_a_program_beside_the_running_python_is_found(monkeypatch, tmp_path, wrapper):
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_program("wrapper") == wrapper


@pytest.mark.parametrize(
    "name", ["jackhmmer", "hmmbuild", "hmmsearch", "hhblits", "hhsearch", "mmseqs", "kalign"]
)
def test_versions_are_read_from_banners(name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    version = program_version(name)
    assert version[0].isdigit() and " " not in version
    assert program_version(name) == version


def test_a_version_is_asked_again_when_the_program_changes(monkeypatch, tmp_path):
    program = tmp_path / "mmseqs"
    monkeypatch.setenv("PATH", str(tmp_path))
    for version in ("13-abc", "14-def"):
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
        os.utime(program, ns=(0, int(version[1])))
        assert program_version("mmseqs") == version
    program.write_text("#!/bin/sh\n")
    os.utime(program, ns=(0, 0))
    with pytest.raises(SearchError, match="does not tell its version"):
        program_version("mmseqs")


def test_a_run_returns_what_was_printed(tmp_path):
    (tmp_path / "inside").touch()
    assert run_program(["ls"], what="listing", cwd=tmp_path).stdout == "inside\n"
    printed = run_program(["seq", "1000000"], what="counting").stdout
    assert printed.startswith("1\n2\n") and printed.endswith("\n1000000\n") and len(printed) < 10_000


def test_standard_input_is_empty():
    assert run_program(["cat"], what="reading", timeout=20).stdout == ""


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo out; echo 'bad file' >&2; exit 3", r"^T1: sh failed \(exit code 3\): out / bad file$"),
        ("kill -9 $$", r"^T1: sh was killed \(SIGKILL\), perhaps the machine ran out of memory$"),
        ("sh -c 'kill -11 $$'; exit $?", r"was killed \(SIGSEGV\)"),
        ("kill -15 $$", r"was killed \(signal 15\)"),
        ("printf 'a\\033[31mb'; exit 1", r": a \[31mb$"),
    ],
)
def test_a_failed_run_tells_how_in_one_line(script, message):
    with pytest.raises(SearchError, match=message):
        run_program(["sh", "-c", script], what="T1")


def test_a_file_that_cannot_be_run(tmp_path):
    program = tmp_path / "broken"
    program.write_bytes(b"\x00\x01")
    program.chmod(0o755)
    with pytest.raises(SearchError, match=r"T1: broken failed .*cannot be started"):
        run_program([program], what="T1")
    with pytest.raises(SearchError, match=r"T1: ls cannot be run .*check the paths"):
        run_program(["ls"], what="T1", cwd=tmp_path / "none")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce the limit")
def test_memory_is_limited():
    hold = [sys.executable, "-c", "bytearray(400 << 20)"]
    run_program(hold, what="T1", memory=800 << 20)
    with pytest.raises(SearchError, match="MemoryError"):
        run_program(hold, what="T1", memory=200 << 20)


def test_time_is_limited_and_nothing_stays(wrapper, seconds):
    with pytest.raises(SearchError, match=r"wrapper was stopped after 0\.3 seconds"):
        run_program([wrapper], what="T1", timeout=0.3)
    assert until(lambda: not running(seconds), 1)


def test_children_of_a_program_that_ended_are_stopped(tmp_path, seconds):
    run_program(["sh", "-c", f"sleep {seconds} & exit 0"], what="T1", timeout=20)
    assert until(lambda: not running(seconds), 1)


def test_an_interrupt_stops_the_program(wrapper, seconds):
    def interrupt():
        until(lambda: running(f"sleep {seconds}"), 10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_program([wrapper], what="T1")
    thread.join()
    assert until(lambda: not running(seconds), 1)


def run_in_a_thread(arguments: list[str]) -> str:
    """A parent that starts the program in a thread, as pools do."""
    return (
        "import threading\nfrom parafold.programs import run_program\n"
        f"threading.Thread(target=run_program, args=({arguments!r},), kwargs={{'what': 'T1'}}).start()\n"
    )


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_wrapped_program_dies_with_its_parent(wrapper, seconds, kill):
    parent = subprocess.Popen([sys.executable, "-c", run_in_a_thread([str(wrapper)])])
    assert until(lambda: running(f"sleep {seconds}"), 20)
    parent.send_signal(kill)
    parent.wait()
    assert until(lambda: not running(seconds) and not running(str(wrapper)), 1)


def test_jackhmmer_dies_with_its_parent(tmp_path):
    if shutil.which("jackhmmer") is None:
        pytest.skip("jackhmmer is not installed")
    large = tmp_path / "large.fasta"
    records = demo_databases()[0].path.read_bytes()
    with large.open("wb") as file:
        for _ in range((100 << 20) // len(records)):
            file.write(records)
    query = tmp_path / "query.fasta"
    query.write_text(">query\nNLYIQWLKDGGPSSGRPPPSNLYIQWLKDGGPSSGRPPPS\n")
    arguments = ["jackhmmer", "-N", "1", "-o", "/dev/null", "--cpu", "1", str(query), str(large)]
    parent = subprocess.Popen([sys.executable, "-c", run_in_a_thread(arguments)])
    assert until(lambda: any("jackhmmer" in line and "-S" not in line for line in running(str(large))), 20)
    time.sleep(0.2)
    assert running(str(large)), "the database is too small for this test"
    parent.kill()
    parent.wait()
    assert until(lambda: not running(str(large)), 1)
