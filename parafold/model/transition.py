"""Transition: a two-layer perceptron at each position."""

from __future__ import annotations

import haiku as hk
import jax
from jaxtyping import Array, Float

from parafold.model import blocks
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, Linear, dropout


class Transition(hk.Module):
    """Suppl. Alg. 9 (MSA) and Alg. 15 (pair representation)."""

    def __init__(self, config: Config, ctx: Context, *, name: str):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx

    def __call__(self, x: Float[Array, "i j c"], *, axis: int = 0) -> Float[Array, "i j c"]:
        """The updated representation, in blocks along the sharded `axis`."""
        hidden = x.shape[-1] * self.config.num_intermediate_factor
        norm = LayerNorm(name="input_layer_norm")
        transition1 = Linear(hidden, init="relu", name="transition1")
        transition2 = Linear(x.shape[-1], init=self.ctx.final_init, name="transition2")

        def delta(x):
            out = transition2(jax.nn.relu(transition1(norm(x, self.ctx.compute_dtype))))
            return dropout(out, self.config.dropout_rate, shared_axis=0) if self.ctx.dropout else out

        row_bytes = x.shape[1 - axis] * (2 * hidden + 2 * x.shape[-1]) * 4
        return blocks.update(x, delta, axis=axis, row_bytes=row_bytes, ctx=self.ctx)
