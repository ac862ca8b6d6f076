"""One forward pass of parafold beside the published code's maintained fork: CPU seconds and memory.

    python experiments/peers/evoformer.py [--lengths 128,256] [--rounds 3]

Both run the same model (model_3 with 4 Evoformer blocks and 1 extra MSA block, no recycling, float32) on
the same features and parameters, each in fresh processes of its own environment, in turns, so that a noisy
machine disturbs both alike. Their outputs are compared. The fork's environment is made beside this file on
first use. Every process is one line of `results/evoformer.jsonl`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from parafold import AlphaFold
from parafold.model.params import random_params
from parafold.protein import residue

HERE = Path(__file__).parent
PEER_PYTHON = HERE / ".venv" / "bin" / "python"
PEER_PACKAGES = (f"jax=={jax.__version__}", "alphafold-colabfold==2.3.27")
# Its kernels depend on a package of the same content under another name, so without dependencies.
PEER_PACKAGES_ALONE = ("colabfold-kernels==0.9.0",)
OVERRIDES = {
    "model.embeddings_and_evoformer.evoformer_num_block": 4,
    "model.embeddings_and_evoformer.extra_msa_stack_num_block": 1,
    "model.num_recycle": 0,
    "data.common.num_recycle": 0,
}


def ensure_peer() -> None:
    """Make the fork's environment unless it is there."""
    if PEER_PYTHON.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(HERE / ".venv")], check=True)
    pip = [str(PEER_PYTHON), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *PEER_PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", *PEER_PACKAGES_ALONE], check=True)


def write_case(folder: Path, length: int, clusters: int, extra: int) -> None:
    """Random features of one chain and random parameters, readable without parafold."""
    case = {"model": "model_3", "overrides": OVERRIDES}
    (folder / "case.json").write_text(json.dumps(case))
    # Nothing starts at zero, or most of the work would not show in the outputs.
    model = AlphaFold("model_3", OVERRIDES | {"model.global_config.zero_init": False})
    params = random_params(model, seed=0)
    flat = {f"{path}//{name}": np.asarray(v) for path, named in params.items() for name, v in named.items()}
    np.savez(folder / "params.npz", **flat)
    rng = np.random.default_rng(0)
    aatype = rng.integers(0, 20, length).astype(np.int32)

    def ones(*shape):
        return np.ones(shape, np.float32)

    features = {
        "aatype": aatype,
        "residue_index": np.arange(length, dtype=np.int32),
        "seq_length": np.asarray(length, np.int32),
        "seq_mask": ones(length),
        "target_feat": rng.random((length, 22), np.float32),
        "msa_feat": rng.random((clusters, length, 49), np.float32),
        "true_msa": rng.integers(0, 21, (clusters, length)).astype(np.int32),
        "msa_mask": ones(clusters, length),
        "msa_row_mask": ones(clusters),
        "bert_mask": 0 * ones(clusters, length),
        "extra_msa": rng.integers(0, 22, (extra, length)).astype(np.int32),
        "extra_msa_mask": ones(extra, length),
        "extra_msa_row_mask": ones(extra),
        "extra_has_deletion": 0 * ones(extra, length),
        "extra_deletion_value": 0 * ones(extra, length),
        "atom14_atom_exists": residue.ATOM14_MASK[aatype].astype(np.float32),
        "atom37_atom_exists": residue.ATOM37_MASK[aatype].astype(np.float32),
        "residx_atom14_to_atom37": residue.ATOM14_TO_ATOM37[aatype].astype(np.int32),
        "residx_atom37_to_atom14": residue.ATOM37_TO_ATOM14[aatype].astype(np.int32),
    }
    np.savez(folder / "features.npz", **{name: value[None] for name, value in features.items()})


def run(side: str, folder: Path, repeats: int) -> dict:
    """One fresh process of one side."""
    python = sys.executable if side == "parafold" else str(PEER_PYTHON)
    command = [python, str(HERE / "worker.py"), side, str(folder), str(repeats)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def difference(folder: Path) -> str:
    """How far the two sides' outputs are apart."""
    outputs = [np.load(next(folder.glob(f"out_{side}_*.npz"))) for side in ("parafold", "alphafold")]
    ours, theirs = ({name: file[name] for name in file.files} for file in outputs)
    pair = np.abs(ours["pair"] - theirs["pair"]).max() / np.sqrt(np.mean(theirs["pair"] ** 2))
    atoms = np.abs(ours["positions"] - theirs["positions"]).max()
    return f"pair {pair:.1e} of its rms, atoms {atoms:.1e} Å"


def main(
    lengths: Annotated[str, typer.Option(help="residues, comma-separated")] = "128,256",
    rounds: Annotated[int, typer.Option(help="processes of each side, in turns")] = 3,
    repeats: Annotated[int, typer.Option(help="runs in each process")] = 3,
    clusters: int = 128,
    extra: int = 256,
) -> None:
    ensure_peer()
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    table = Table("residues", "side", "CPU s a run", "temporaries MB", "peak resident MB")
    notes = []
    for length in map(int, lengths.split(",")):
        with tempfile.TemporaryDirectory() as name, (results / "evoformer.jsonl").open("a") as log:
            folder = Path(name)
            write_case(folder, length, clusters, extra)
            records: dict[str, list[dict]] = {"parafold": [], "alphafold": []}
            for _ in range(rounds):
                for side, found in records.items():
                    record = run(side, folder, repeats)
                    record |= {"length": length, "clusters": clusters, "extra": extra}
                    record |= {"machine": f"{platform.machine()} x{os.cpu_count()}"}
                    record |= {"load": os.getloadavg()[0]}
                    found.append(record)
                    log.write(json.dumps(record) + "\n")
            notes.append(f"{length} residues: {difference(folder)}")
        cost = {}
        for side, found in records.items():
            cpu = statistics.median(s for record in found for s in record["cpu_seconds"])
            resident = max(record["peak_resident_bytes"] for record in found) / 1e6
            cost[side] = cpu, found[0]["temporary_bytes"] / 1e6, resident
            table.add_row(str(length), side, f"{cpu:.2f}", *(f"{value:.0f}" for value in cost[side][1:]))
        ratios = [f"{a / b:.2f}x" for a, b in zip(cost["parafold"], cost["alphafold"], strict=True)]
        table.add_row("", "ratio", *ratios, end_section=True)
    console = Console()
    console.print(table)
    console.print("\n".join(["largest differences of the outputs:", *notes]))


if __name__ == "__main__":
    typer.run(main)
