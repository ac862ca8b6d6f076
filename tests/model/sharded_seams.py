"""Run as a program: the model inside `jax.shard_map` with collectives at its seams equals the plain one.

Two simulated devices; prints the largest differences as JSON. `test_seams.py` starts it.
"""

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.sharding import PartitionSpec

from parafold.model.alphafold import AlphaFold, model_arrays
from parafold.model.seams import Seams

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
import reference

AXIS = "devices"


class Collectives(Seams):
    """Each seam as the collective that its name promises."""

    def turn(self, x, *, source, target):
        return jax.lax.all_to_all(x, AXIS, target, source, tiled=True)

    def gather(self, x, *, axis):
        return jax.lax.all_gather(x, AXIS, axis=axis, tiled=True)

    def shard(self, x, *, axis):
        size = x.shape[axis] // jax.lax.axis_size(AXIS)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXIS) * size, size, axis)


def main(name: str, block_size: str) -> None:
    meta = reference.read_json(name, "case.json")
    overrides = meta["overrides"] | {"model.global_config.subbatch_size": int(block_size)}
    shapes = reference.read_json(name, "param_shapes.json")
    params = reference.parameters(shapes, meta["param_seed"])
    features = model_arrays(reference.read_npz(name, "features.npz"))

    def run(seams):
        model = AlphaFold(meta["model_name"], overrides, seams=seams)
        return lambda params, features: model.apply(params, features, rng=meta["rng_seed"])

    mesh = jax.make_mesh((2,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    whole = PartitionSpec()
    sharded = jax.shard_map(
        run(Collectives()), mesh=mesh, in_specs=(whole, whole), out_specs=whole, check_vma=False
    )

    def outputs(function):
        return reference.flatten(jax.tree.map(np.asarray, jax.jit(function)(params, features)))

    got, want = outputs(sharded), outputs(run(None))
    assert got.keys() == want.keys()
    text = jax.jit(sharded).lower(params, features).as_text()
    print(
        json.dumps(
            {
                "differences": {key: reference.relative_error(got[key], want[key]) for key in want},
                "all_to_all": text.count("all_to_all"),
                "all_gather": text.count("all_gather"),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
