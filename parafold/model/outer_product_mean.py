"""Outer product mean: how the MSA representation speaks to the pair representation."""

from __future__ import annotations

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from parafold.model import blocks
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, Linear, dropout, initializer


class OuterProductMean(hk.Module):
    """Suppl. Alg. 10."""

    def __init__(self, config: Config, ctx: Context, name: str = "outer_product_mean"):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx

    def __call__(
        self,
        msa: Float[Array, "s i c_m"],
        mask: Float[Array, "s i"],
        pair: Float[Array, "i r c_z"],
    ) -> Float[Array, "i r c_z"]:
        """The updated pair representation, sharded along axis 0; the MSA and its mask along axis 1."""
        channels, dtype, ctx = self.config.num_outer_channel, self.ctx.compute_dtype, self.ctx
        norm = LayerNorm(name="layer_norm_input")
        left_projection = Linear(channels, name="left_projection")
        right_projection = Linear(channels, name="right_projection")
        output_w = hk.get_parameter(
            "output_w",
            (channels, channels, pair.shape[-1]),
            jnp.float32,
            initializer(ctx.final_init, (channels, channels)),
        ).astype(dtype)
        output_b = hk.get_parameter(
            "output_b", (pair.shape[-1],), jnp.float32, hk.initializers.Constant(0.0)
        ).astype(dtype)

        def project(msa, mask):
            x, mask = norm(msa, dtype), mask[..., None].astype(dtype)
            both = jnp.concatenate([mask * left_projection(x), mask * right_projection(x)], axis=-1)
            # Residues first: a block of rows of the pair representation is a block of residues of `left`.
            return both.swapaxes(0, 1)

        sequences, residues = msa.shape[:2]
        row_bytes = 3 * sequences * msa.shape[-1] * 4
        whole = blocks.block_rows(msa, 1, row_bytes, ctx) >= residues
        out = None if whole else jnp.zeros((residues, sequences, 2 * channels), dtype)
        both = blocks.fill(out, project, msa, mask, axis=1, out_axis=0, row_bytes=row_bytes, ctx=ctx)
        left, right = jnp.split(both, 2, axis=-1)
        # Sequences first, once: in each block the compiler would bring it into this order again.
        right = ctx.seams.gather(right, axis=0).swapaxes(0, 1)
        right_mask = ctx.seams.gather(mask.T, axis=0)

        def delta(_, left, left_mask):
            outer = jnp.einsum("isc,sje->ijce", left, right)
            out = jnp.einsum("ijce,cef->ijf", outer, output_w) + output_b
            count = jnp.einsum("is,js->ij", left_mask, right_mask)[..., None]
            out = out / (1e-3 + count).astype(dtype)
            return dropout(out, self.config.dropout_rate, shared_axis=0) if ctx.dropout else out

        row_bytes = 2 * right.shape[1] * (channels**2 + pair.shape[-1]) * 4
        return blocks.update(pair, delta, left, mask.T, axis=0, row_bytes=row_bytes, ctx=ctx)
