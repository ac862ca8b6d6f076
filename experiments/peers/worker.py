"""One side of `evoformer.py`: run a model in this process's environment and print its cost as one JSON line.

Usage: python worker.py {parafold|alphafold} CASE_FOLDER REPEATS

Reads `case.json`, `features.npz` and `params.npz` from the folder. Both sides get the same arrays, compile
with the same flags and run the same number of times.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np


def parafold_forward(case, params, features):
    from parafold import AlphaFold

    model = AlphaFold(case["model"], case["overrides"])

    def forward(params, features):
        out = model.apply(params, features, rng=0)
        return out["representations"]["pair"], out["structure_module"]["final_atom_positions"]

    return forward, (params, features)


def alphafold_forward(case, params, features):
    import haiku as hk
    from alphafold.model import config, modules

    cfg = config.model_config(case["model"])
    overrides = {**case["overrides"], "model.global_config.bfloat16": False}
    for name in ("outgoing", "incoming"):  # the published files hold the projections apart
        section = f"model.embeddings_and_evoformer.evoformer.triangle_multiplication_{name}"
        overrides[f"{section}.fuse_projection_weights"] = False
    cfg.update_from_flattened_dict(overrides)
    network = hk.transform(
        lambda batch: modules.AlphaFold(cfg.model)(
            batch,
            is_training=False,
            compute_loss=False,
            ensemble_representations=True,
            return_representations=True,
        )
    )
    features = features | case_extras(features)

    def forward(params, features):
        out = network.apply(params, jax.random.PRNGKey(0), features)
        out = out[0] if isinstance(out, tuple) else out
        return out["representations"]["pair"], out["structure_module"]["final_atom_positions"]

    return forward, (params, features)


def case_extras(features):
    """What the fork's recycling reads besides the published features."""
    length = features["aatype"].shape[1]
    return {
        "iter": np.zeros((1,), np.int32),
        "prev_pos": np.zeros((1, length, 37, 3), np.float32),
        "prev_msa_first_row": np.zeros((1, length, 256), np.float32),
        "prev_pair": np.zeros((1, length, length, 128), np.float32),
    }


def main(side: str, folder: str, repeats: str) -> None:
    path = Path(folder)
    case = json.loads((path / "case.json").read_text())
    with np.load(path / "features.npz") as file:
        features = {name: file[name] for name in file.files}
    params: dict = {}
    with np.load(path / "params.npz") as file:
        for name in file.files:
            module, _, leaf = name.partition("//")
            params.setdefault(module, {})[leaf] = file[name]
    forward, arguments = {"parafold": parafold_forward, "alphafold": alphafold_forward}[side](
        case, params, features
    )
    arguments = jax.tree.map(jax.numpy.asarray, arguments)
    start = time.process_time()
    compiled = jax.jit(forward).lower(*arguments).compile()
    compile_seconds = time.process_time() - start
    out = jax.block_until_ready(compiled(*arguments))
    cpu, wall = [], []
    for _ in range(int(repeats)):
        start, start_wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        cpu.append(time.process_time() - start)
        wall.append(time.perf_counter() - start_wall)
    np.savez(path / f"out_{side}_{os.getpid()}.npz", pair=out[0], positions=out[1])
    print(
        json.dumps(
            {
                "side": side,
                "pid": os.getpid(),
                "cpu_seconds": cpu,
                "wall_seconds": wall,
                "compile_cpu_seconds": compile_seconds,
                "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
                "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
