"""Peak memory of a program on a GPU that is not there: compile for it and read the compiler's account.

    python -m parafold.bench.memory pair-stack --length 2048

Needs the packages `jax-cuda13-plugin` and `jax-cuda13-pjrt` (in the extras `gpu` and `test`), no GPU and no
driver. The account holds arguments, outputs and temporaries; it covers no library workspace, no autotuning
and no fragmentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, cast

# The plugin looks for CUDA libraries on import; to compile, none is needed.
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")

import haiku as hk
import jax
import jax.numpy as jnp
import typer
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from parafold.errors import ParafoldError
from parafold.model.config import Config, model_config
from parafold.model.context import POLICIES, Context
from parafold.model.evoformer import pair_stack
from parafold.model.primitives import layer_stack
from parafold.model.triangle import workspace

H200 = "h200.txtpb"


@dataclass(frozen=True)
class Peak:
    """The compiler's account of one device, bytes.

    Attributes:
      arguments: what is handed in, parameters included.
      outputs: what comes out, without what reuses an argument's memory.
      temporaries: what lives only inside.
    """

    arguments: int
    outputs: int
    temporaries: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries


def gpu_devices(count: int = 1, target: str = H200) -> list[Any]:
    """Devices of a GPU to compile for.

    Raises:
      ParafoldError: the CUDA compiler plugin is not installed.
    """
    config = resources.files("parafold.bench").joinpath(target).read_text()
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name="gpu", topology=f"1x1x{count}", target_config=config
        )
    except (NotImplementedError, RuntimeError) as error:
        raise ParafoldError(
            f"cannot compile for a GPU ({error}); pip install jax-cuda13-plugin jax-cuda13-pjrt "
            "in the version of your jax"
        ) from None
    return list(topology.devices)


def compiled_peak(function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Peak:
    """Compile `function` for one H200 and read its memory account.

    Args:
      function: traced with `arguments`.
      arguments: trees of arrays or `jax.ShapeDtypeStruct`.
      donate: positions of arguments whose memory the outputs may take over.
    """
    sharding = SingleDeviceSharding(gpu_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments)
    traced = jax.jit(function, donate_argnums=donate).trace(*shapes)
    stats = traced.lower(lowering_platforms=("cuda",)).compile().memory_analysis()
    if stats is None:
        raise ParafoldError("this version of jax gives no account of memory; install another one")
    return Peak(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
    )


def pair_stack_peak(length: int, precision: str, *, num_blocks: int = 48) -> tuple[float, int]:
    """Peak of the Evoformer's pair stack in units of one pair tensor, and that unit's bytes.

    The stack is the five pair updates of `num_blocks` blocks of a published model; its input is donated.
    Parameters do not count: they are the same at every length.
    """
    model = cast(Config, model_config("model_1", {"model.global_config.precision": precision})).model
    config = model.embeddings_and_evoformer
    ctx = Context.of(model.global_config, platform="gpu")

    def forward(pair, mask):
        channels = config.evoformer.triangle_multiplication_outgoing.num_intermediate_channel
        buffer = workspace(pair, channels, ctx)
        return layer_stack(
            lambda x: pair_stack(x[0], mask, x[1], config.evoformer, ctx),
            (pair, buffer),
            num_layers=num_blocks,
            name="evoformer_iteration",
        )[0]

    network = hk.transform(forward)
    pair = jax.ShapeDtypeStruct((length, length, config.pair_channel), ctx.residual_dtype)
    mask = jax.ShapeDtypeStruct((length, length), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.PRNGKey(0), pair, mask)
    peak = compiled_peak(lambda p, x, m: network.apply(p, None, x, m), params, pair, mask, donate=(1,))
    unit = pair.size * pair.dtype.itemsize
    return (peak.total - sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(params))) / unit, unit


app = typer.Typer(add_completion=False, help=(__doc__ or "").partition("\n")[0])


@app.callback()
def _commands() -> None:
    """Commands are named after what is measured."""


@app.command("pair-stack")
def _pair_stack(
    length: Annotated[int, typer.Option(help="residues")] = 2048,
    precision: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(POLICIES)}")] = None,
) -> None:
    """Peak of the Evoformer's pair stack, compiled for an H200, in pair tensors (U)."""
    for name in precision or ["float32", "bfloat16"]:
        units, unit = pair_stack_peak(length, name)
        print(f"pair stack  H200  L={length}  {name:9s} peak {units:.2f} U  (U = {unit / 2**20:,.0f} MiB)")


if __name__ == "__main__":
    try:
        app()
    except ParafoldError as error:
        raise SystemExit(f"error: {error}") from None
