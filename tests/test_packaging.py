"""What `pip install .` puts into an environment."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """parafold installed into a folder of its own, as a user's pip does it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", folder, ROOT]
    subprocess.run(command, check=True, timeout=300)
    return folder


def test_an_installed_package_brings_its_databases(site, tmp_path):
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from parafold.msa import demo_databases, search\n"
        "query = {'q': 'MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGK'}\n"
        "found = search(query, demo_databases(), cache=None).by_database('q')\n"
        "print(json.dumps([sys.modules['parafold'].__file__, {k: len(v) for k, v in found.items()}]))\n"
    )
    run = [sys.executable, "-c", program, site]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    file, rows = json.loads(done.stdout)
    assert Path(file).is_relative_to(site)
    assert list(rows) == ["uniref90_demo", "small_bfd_demo", "mgnify_demo"]
    assert all(count > 30 for count in rows.values())


def test_an_installed_package_brings_its_licence(site):
    (licence,) = site.glob("parafold-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("lock", ["cpu.lock", "cuda13.lock"])
def test_locked_environments_hold_what_the_package_needs(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {requirement.split(">")[0].split("[")[0] for requirement in project["dependencies"]}
    lines = (ROOT / "env" / lock).read_text().splitlines()
    pinned = {line.split("==")[0].split("[")[0] for line in lines if "==" in line and line[0] != "#"}
    assert needed <= pinned
    # Both hold the compiler for GPUs, which a test uses; only one holds what it takes to run on them.
    assert ("nvidia-cudnn-cu13" in pinned) == (lock == "cuda13.lock")
    assert sum("--hash=sha256:" in line for line in lines) > len(pinned)
