"""Which targets and chains a run folds, and with which of the user's templates."""

import json
from pathlib import Path

import gemmi
import numpy as np
import pytest
import small
from typer.testing import CliRunner, Result

from parafold.cli import app
from parafold.features import read_features

TRP_CAGE = "NLYIQWLKDGGPSSGRPPPS"
VILLIN = "LSDEDFKAVFGMTRSAFANLPLWKQQNLKKEKGLF"
COMPLEX = ["--num-recycles", "0", *(f"--config={name}={value}" for name, value in small.MULTIMER.items())]


def fold(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["fold", *map(str, arguments)], catch_exceptions=False)


def write(path: Path, **records: str) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


def msa(folder: Path, sequence: str) -> Path:
    """An alignment of the sequence alone, so that nothing is searched."""
    return write(folder / f"{sequence[:4]}.a3m", query=sequence)


def chains(path: Path) -> dict[str, str]:
    """Chain id -> one-letter sequence of a structure file."""
    return {
        chain.name: gemmi.one_letter_code([residue.name for residue in chain])
        for chain in gemmi.read_structure(str(path))[0]
    }


@pytest.fixture(scope="module")
def villin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A structure of villin's sequence: as good a template as any."""
    folder = tmp_path_factory.mktemp("villin")
    target = write(folder / "villin.fasta", villin=VILLIN)
    assert fold(target, *small.OPTIONS, "-o", folder, "--msa", msa(folder, VILLIN)).exit_code == 0
    return folder / "villin/ranked_0.cif"


def test_a_bad_record_is_named_and_the_others_fold(tmp_path: Path):
    path = write(
        tmp_path / "many.fasta",
        good=TRP_CAGE,
        letter="ACDJE",
        short="M",
        long="A" * 20_000,
        empty="",
        last=TRP_CAGE[1:],
    )
    result = fold(path, *small.OPTIONS, "-o", tmp_path / "out")
    assert result.exit_code == 2
    letter, short, long, empty = result.stderr.splitlines()
    assert f"letter: {path} line 4: 'J' is not an amino acid" in letter
    assert f"short: {path} line 5: the sequence has 1 residue" in short
    assert f"long: {path} line 7: 20,000 residues" in long
    assert f"empty: {path} line 9: the sequence has no residues" in empty
    assert "2 folded, 4 failed" in result.stdout
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"good", "last"}
    again = fold(path, *small.OPTIONS, "-o", tmp_path / "out")
    assert again.exit_code == 2
    assert "2 complete already, 4 failed" in again.stdout


def test_a_wrong_file_is_one_error_and_the_other_files_fold(tmp_path: Path):
    good = write(tmp_path / "good.fasta", good=TRP_CAGE)
    wrong = tmp_path / "wrong.fasta"
    wrong.write_text(f"no header\n{TRP_CAGE}\n>second\n{TRP_CAGE}\n")
    result = fold(wrong, good, *small.OPTIONS, "-o", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"{wrong} line 1" in line
    assert "1 folded, 1 failed" in result.stdout


def test_a_name_that_another_file_has_is_refused_alone(tmp_path: Path):
    first = write(tmp_path / "first.fasta", same=TRP_CAGE)
    second = write(tmp_path / "second.fasta", SAME=TRP_CAGE[2:], other=TRP_CAGE[1:])
    result = fold(first, second, *small.OPTIONS, "-o", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert str(first) in line and str(second) in line and "rename" in line
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"same", "other"}
    assert chains(tmp_path / "out/same/ranked_0.cif") == {"A": TRP_CAGE}


def test_chains_keep_their_ids_although_copies_stand_together(tmp_path: Path):
    entities = [("P", TRP_CAGE), ("Q", VILLIN), ("R", TRP_CAGE)]
    sequences = [{"protein": {"id": id, "sequence": sequence}} for id, sequence in entities]
    job = {"name": "trimer", "modelSeeds": [1], "dialect": "alphafold3", "version": 1, "sequences": sequences}
    named = tmp_path / "trimer.json"
    named.write_text(json.dumps(job))
    plain = write(tmp_path / "plain.fasta", plain=f"{TRP_CAGE}:{VILLIN}:{TRP_CAGE}")
    own = ["--msa", msa(tmp_path, TRP_CAGE), "--msa", msa(tmp_path, VILLIN)]
    result = fold(named, plain, *COMPLEX, *own, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for suffix in ("cif", "pdb"):
        assert chains(tmp_path / f"out/trimer/ranked_0.{suffix}") == dict(entities)
        assert chains(tmp_path / f"out/plain/ranked_0.{suffix}") == {
            "A": TRP_CAGE,
            "B": VILLIN,
            "C": TRP_CAGE,
        }
    manifest = json.loads((tmp_path / "out/trimer/manifest.json").read_text())
    assert {chain["id"]: chain["sequence"] for chain in manifest["chains"]} == dict(entities)


def test_a_template_goes_to_the_chains_it_fits(villin: Path, tmp_path: Path):
    target = write(tmp_path / "dimer.fasta", dimer=f"{TRP_CAGE}:{VILLIN}")
    own = ["--msa", msa(tmp_path, TRP_CAGE), "--msa", msa(tmp_path, VILLIN)]
    result = fold(target, *COMPLEX, *own, "-o", tmp_path / "out", "--template", f"{villin}:A")
    assert result.exit_code == 0, result.output
    assert "ranked_0.cif chain A is a template for chain B" in result.stdout
    assert "a template for chain A" not in result.stdout
    mask = read_features(tmp_path / "out/dimer/features.safetensors").arrays["template_all_atom_mask"]
    with_atoms = np.asarray(mask).sum((0, 2)) > 0
    assert not with_atoms[: len(TRP_CAGE)].any() and with_atoms[len(TRP_CAGE) :].all()


def test_a_template_that_fits_nothing_is_refused_unless_its_chain_is_named(villin: Path, tmp_path: Path):
    target = write(tmp_path / "trp.fasta", trp=TRP_CAGE)
    options = [target, *small.OPTIONS, "--msa", msa(tmp_path, TRP_CAGE), "-o", tmp_path / "out"]
    refused = fold(*options, "--template", f"{villin}:A")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "chain A of trp" in line and "aligned residues identical" in line and "% needed" in line
    assert f"--template {villin}:A=A" in line
    assert not (tmp_path / "out/trp").exists()

    unknown = fold(*options, "--template", f"{villin}:A=C")
    assert unknown.exit_code == 2 and "no chain C in the input; its chains are A" in unknown.stderr

    used = fold(*options, "--template", f"{villin}:A=A")
    assert used.exit_code == 0, used.output
    arrays = read_features(tmp_path / "out/trp/features.safetensors").arrays
    assert arrays["template_all_atom_masks"].shape[0] == 1 and arrays["template_all_atom_masks"].any()


def test_a_template_for_one_target_leaves_the_others_without(villin: Path, tmp_path: Path):
    target = write(tmp_path / "two.fasta", trp=TRP_CAGE, villin=VILLIN)
    own = ["--msa", msa(tmp_path, TRP_CAGE), "--msa", msa(tmp_path, VILLIN)]
    result = fold(target, *small.OPTIONS, *own, "-o", tmp_path / "out", "--template", f"{villin}:A")
    assert result.exit_code == 0, result.output
    count = {
        name: read_features(tmp_path / f"out/{name}/features.safetensors")
        .arrays["template_all_atom_masks"]
        .shape[0]
        for name in ("trp", "villin")
    }
    assert count == {"trp": 0, "villin": 1}
