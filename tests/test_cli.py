"""The command line, run for real: demonstration databases, the smallest model, example proteins."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gemmi
import pytest
import small
from typer.testing import CliRunner, Result

from parafold import __version__
from parafold.cli import app

TRP_CAGE = small.EXAMPLES / "trp_cage.fasta"
SEQUENCE = "NLYIQWLKDGGPSSGRPPPS"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def fold(folder: Path, *arguments: str | Path, expected: int = 0) -> Result:
    result = run("fold", *small.OPTIONS, "-o", folder, *arguments)
    assert result.exit_code == expected, result.output
    return result


def state(folder: Path) -> dict[str, int]:
    """Every file and when it was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which trp_cage has been folded; tests that change it work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    fold(folder, TRP_CAGE)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_version_and_help():
    assert run("--version").output == f"parafold {__version__}\n"
    for command in ([], ["fold"], ["doctor"], ["weights"], ["weights", "fetch"], ["weights", "list"]):
        assert "--help" in run(*command, "--help").output


@pytest.mark.parametrize(
    "command", [["--help"], ["fold", "--help"], ["fold", "no_such_file.fasta"], ["--version"]]
)
def test_jax_is_not_loaded_for_help_and_errors_of_use(command: list[str]):
    program = (
        "import sys; from parafold.cli import app\n"
        f"try: app({command!r})\nexcept SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_the_package_loads_its_names_late():
    program = "import sys, parafold; dir(parafold); assert 'jax' not in sys.modules, 'jax'\n"
    program += "for name in parafold.__all__: assert getattr(parafold, name) is not None"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_name_of_the_package():
    import parafold

    with pytest.raises(AttributeError, match="no_such_name"):
        parafold.no_such_name  # noqa: B018


def test_fold_writes_everything_under_alphafolds_names(finished: Path):
    folder = finished / "trp_cage"
    assert set(state(folder)) == {
        "features.safetensors",
        "msas/uniref90_demo.a3m",
        "msas/small_bfd_demo.a3m",
        "msas/mgnify_demo.a3m",
        "result_demo_pred_0.safetensors",
        "unrelaxed_demo_pred_0.pdb",
        "unrelaxed_demo_pred_0.cif",
        "ranked_0.pdb",
        "ranked_0.cif",
        "ranking_debug.json",
        "timings.json",
        "confidence_demo_pred_0.json",
        "pae_demo_pred_0.json",
        "manifest.json",
        "msa_coverage.png",
        "plddt.png",
        "pae.png",
    }
    residues = gemmi.read_structure(str(folder / "ranked_0.cif"))[0][0]
    assert gemmi.one_letter_code([residue.name for residue in residues]) == SEQUENCE
    assert (folder / "msas/uniref90_demo.a3m").read_text().count(">") > 10
    timings = json.loads((folder / "timings.json").read_text())
    assert {"features", "process_features_demo_pred_0", "predict_and_compile_demo_pred_0"} <= set(timings)


def test_the_manifest_lists_every_file_with_its_digest(finished: Path):
    folder = finished / "trp_cage"
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {name: entry for stage in manifest["stages"].values() for name, entry in stage["files"].items()}
    assert set(listed) == set(state(folder)) - {"manifest.json"}
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in listed.values())
    assert manifest["chains"] == [{"id": "A", "sequence": SEQUENCE}]
    assert "RANDOM PARAMETERS" in manifest["warning"]
    assert manifest["versions"]["parafold"] == __version__
    assert manifest["seeds"] == [0]
    assert "random" in manifest["parameters"]["demo"]


def test_random_parameters_are_said_loudly(tmp_path: Path, copy: Path):
    result = fold(copy, TRP_CAGE, "--overwrite")
    assert result.stdout.startswith("WARNING: RANDOM PARAMETERS")
    assert "RANDOM PARAMETERS" in result.stdout.splitlines()[-1]
    assert result.stderr == ""


def test_a_second_run_does_nothing_and_says_so(finished: Path):
    before = state(finished)
    result = fold(finished, TRP_CAGE)
    assert state(finished) == before
    assert "complete already" in result.stdout and "Nothing to do" in result.stdout


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("unrelaxed_demo_pred_0.pdb", "features.safetensors"),
        ("features.safetensors", "result_demo_pred_0.safetensors"),
        ("msas/mgnify_demo.a3m", "features.safetensors"),
        ("ranked_0.pdb", "result_demo_pred_0.safetensors"),
    ],
)
def test_a_damaged_file_is_made_again_and_nothing_else(copy: Path, finished: Path, name: str, kept: str):
    folder = copy / "trp_cage"
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = state(folder)
    fold(copy, TRP_CAGE)
    after = state(folder)
    assert (folder / name).read_bytes() == content
    assert after[kept] == before[kept]
    assert set(after) == set(state(finished / "trp_cage"))


def test_a_missing_file_is_made_again(copy: Path):
    path = copy / "trp_cage/plddt.png"
    content = path.read_bytes()
    path.unlink()
    fold(copy, TRP_CAGE)
    assert path.read_bytes() == content


def test_another_seed_adds_to_what_is_there(copy: Path):
    before = state(copy)
    result = fold(copy, TRP_CAGE, "--seeds", "0,7")
    after = state(copy)
    assert "best of 2" in result.stdout
    assert (
        after["trp_cage/result_demo_pred_0.safetensors"] == before["trp_cage/result_demo_pred_0.safetensors"]
    )
    assert {"trp_cage/result_demo_pred_7.safetensors", "trp_cage/ranked_1.cif"} <= set(after)
    fold(copy, TRP_CAGE)
    assert "trp_cage/ranked_1.cif" not in state(copy)


def test_another_configuration_is_folded_again(copy: Path):
    before = state(copy)
    fold(copy, TRP_CAGE, "--config", "model.heads.structure_module.num_layer=1")
    after = state(copy)
    assert after["trp_cage/features.safetensors"] == before["trp_cage/features.safetensors"]
    assert (
        after["trp_cage/result_demo_pred_0.safetensors"] > before["trp_cage/result_demo_pred_0.safetensors"]
    )


def test_pickles_on_request(copy: Path):
    fold(copy, TRP_CAGE, "--pickle")
    result = pickle.loads((copy / "trp_cage/result_demo_pred_0.pkl").read_bytes())
    assert result["plddt"].shape == (len(SEQUENCE),)
    features = pickle.loads((copy / "trp_cage/features.pkl").read_bytes())
    assert features["sequence"][0].decode() == SEQUENCE


@pytest.mark.parametrize("file", ["features.safetensors", "features.pkl"])
def test_a_features_file_is_an_input(copy: Path, tmp_path: Path, file: str):
    fold(copy, TRP_CAGE, "--pickle")
    fold(tmp_path / "from_features", copy / "trp_cage" / file)
    (folder,) = (tmp_path / "from_features").iterdir()
    assert (folder / "ranked_0.pdb").read_text() == (copy / "trp_cage/ranked_0.pdb").read_text()


def test_an_own_alignment_replaces_the_search(tmp_path: Path):
    a3m = tmp_path / "mine.a3m"
    a3m.write_text(f">query\n{SEQUENCE}\n>other\n{SEQUENCE[:-1]}A\n>third\n-{SEQUENCE[1:]}\n")
    result = fold(tmp_path / "out", TRP_CAGE, "--msa", a3m)
    assert "searching" not in result.stdout
    assert [path.name for path in (tmp_path / "out/trp_cage/msas").iterdir()] == ["own.a3m"]
    assert (tmp_path / "out/trp_cage/msas/own.a3m").read_text().count(">") == 3


def test_an_own_template_changes_the_prediction(finished: Path, tmp_path: Path):
    template = f"{finished / 'trp_cage/ranked_0.cif'}:A"
    fold(tmp_path / "out", TRP_CAGE, "--template", template)
    with_template = (tmp_path / "out/trp_cage/ranked_0.pdb").read_text()
    assert with_template != (finished / "trp_cage/ranked_0.pdb").read_text()


def test_several_files_and_chains_in_one_run(tmp_path: Path):
    multimer = [f"--config={name}={value}" for name, value in small.OVERRIDES.items()]
    result = run(
        "fold", "--num-recycles", "0", *multimer, "-o", tmp_path, TRP_CAGE, small.EXAMPLES / "insulin.fasta"
    )
    assert result.exit_code == 0, result.output
    assert "2 folded" in result.stdout
    chains = gemmi.read_structure(str(tmp_path / "insulin/ranked_0.cif"))[0]
    assert [chain.name for chain in chains] == ["A", "B"]
    assert {path.name for path in (tmp_path / "insulin/msas").iterdir()} == {"A", "B"}


def test_a_program_run_alone_behaves_the_same(tmp_path: Path):
    """No terminal, a cache folder that cannot be made: plain lines on stdout, nothing on stderr."""
    (tmp_path / "parafold").write_text("no folder can be made here")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "parafold",
            "fold",
            str(TRP_CAGE),
            "-o",
            str(tmp_path / "out"),
            *small.OPTIONS,
        ],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert "searching uniref90_demo, small_bfd_demo, mgnify_demo for 1 sequence\n" in result.stdout
    assert (tmp_path / "out/trp_cage/manifest.json").is_file()


def test_the_compilation_cache_is_used_by_the_next_process(tmp_path: Path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "parafold", "fold", str(TRP_CAGE), *small.OPTIONS]
    programs = []
    for number in (1, 2):
        subprocess.run([*command, "-o", str(tmp_path / f"out{number}")], env=environment, check=True)
        programs.append(
            {path.name for path in (tmp_path / "cache/parafold/jax").iterdir() if "-cache" in path.name}
        )
    assert programs[0] and programs[0] == programs[1]


def test_doctor_and_weights_list(tmp_path: Path):
    assert "JAX" in run("doctor").stdout
    assert run("weights", "list", "--in", tmp_path).exit_code == 2
    (tmp_path / "params_model_1.npz").write_bytes(b"x" * 1_000_000)
    assert re.match(r"model_1 +1\.0 MB", run("weights", "list", "--in", tmp_path).stdout)
