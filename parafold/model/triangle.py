"""Triangle updates of the pair representation, in place by blocks of rows or columns."""

from __future__ import annotations

import functools

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parafold.model import blocks
from parafold.model.attention import Attention, attention_row_bytes, pair_bias
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, Linear, dropout


def multiplication_row_bytes(pair: Array, channels: int) -> int:
    """Bytes of temporaries for one row of a triangle multiplication: about eight arrays of its width."""
    return 8 * pair.shape[0] * max(channels, pair.shape[-1]) * 4


def workspace(
    pair: Float[Array, "i j c_z"], channels: int, ctx: Context
) -> Float[Array, "{channels} j i"] | None:
    """The one buffer that all triangle multiplications of a stack fill anew, or None where none is needed.

    It is carried through the layers: a buffer made in each of them from equal zeros would be shared by the
    compiler and then copied, at the price of one more pair tensor.
    """
    if blocks.block_rows(pair, 0, multiplication_row_bytes(pair, channels), ctx) >= pair.shape[0]:
        return None
    return jnp.zeros((channels, pair.shape[1], pair.shape[0]), ctx.compute_dtype)


def _channels_first(layer: Linear, x: Float[Array, "b k c"], side: int | None) -> Float[Array, "f b k"]:
    """A linear layer, or the left (0) or right (1) half of its outputs, with the output channels leading.

    Channels lead throughout the contraction: over ikc,jkc an accelerator would first transpose all of both
    operands. Here the matrix product itself puts them there.
    """
    parameters = layer.parameters(x.shape[-1:])
    weights, bias = (
        p if side is None else jnp.split(p, 2, axis=-1)[side] for p in parameters if p is not None
    )
    out = jax.lax.dot_general(weights.astype(x.dtype), x, (((0,), (2,)), ((), ())))
    return out + bias.astype(x.dtype)[:, None, None]


class TriangleMultiplication(hk.Module):
    """Suppl. Alg. 11 (outgoing edges) and Alg. 12 (incoming edges).

    x_ij = sum_k left_ik right_jk for outgoing edges; for incoming ones x_ij = sum_k left_kj right_ki. `left`,
    the output and its gate are local to a block, of rows i or of columns j. `right` is needed whole and fills
    the workspace as [c, k, j] or [c, k, i], so that each block is a plain matrix product with it.
    """

    def __init__(self, config: Config, ctx: Context, *, outgoing: bool, name: str | None = None):
        super().__init__(name=name or f"triangle_multiplication_{'outgoing' if outgoing else 'incoming'}")
        self.config = config
        self.ctx = ctx
        self.outgoing = outgoing

    @hk.transparent
    def _projections(self):
        """Functions of (normalized block, mask) for left and right: masked, gated, channels first."""
        channels = self.config.num_intermediate_channel

        def layers(prefix, width):
            projection = Linear(width, name=f"{prefix}projection")
            return projection, Linear(width, init="zeros", bias_init=1.0, name=f"{prefix}gate")

        def gated(x, mask, projection, gate, side=None):
            out = _channels_first(projection, x, side) * jax.nn.sigmoid(_channels_first(gate, x, side))
            return out * mask.astype(x.dtype)

        # The checkpoints hold left and right fused, left half first (multimer v3), or apart.
        if self.config.fuse_projection_weights:
            projection, gate = layers("", 2 * channels)
            return [functools.partial(gated, projection=projection, gate=gate, side=side) for side in (0, 1)]
        sides = [layers("left_", channels), layers("right_", channels)]
        return [functools.partial(gated, projection=projection, gate=gate) for projection, gate in sides]

    def __call__(
        self,
        pair: Float[Array, "i j c_z"],
        mask: Float[Array, "i j"],
        workspace: Float[Array, "c k o"] | None = None,
    ) -> tuple[Float[Array, "i j c_z"], Float[Array, "c k o"] | None]:
        """The updated pair representation and the workspace; pair sharded along axis 0 (outgoing) or 1."""
        fused, dtype = self.config.fuse_projection_weights, self.ctx.compute_dtype
        norm = LayerNorm(fast_variance=fused, name="left_norm_input" if fused else "layer_norm_input")
        center_norm = LayerNorm(
            axis=0, fast_variance=fused, name="center_norm" if fused else "center_layer_norm"
        )
        left, right = self._projections()
        output = Linear(pair.shape[-1], init=self.ctx.final_init, name="output_projection")
        gating = Linear(pair.shape[-1], init="zeros", bias_init=1.0, name="gating_linear")
        axis = 0 if self.outgoing else 1
        row_bytes = multiplication_row_bytes(pair, self.config.num_intermediate_channel)

        def transposed(x):
            return x.swapaxes(0, 1)

        def fill(z, mask):  # a block of k, along the axis that is not sharded
            z = norm(z, dtype)
            return right(transposed(z), transposed(mask)) if self.outgoing else right(z, mask)

        filled = blocks.fill(
            workspace, fill, pair, mask, axis=1 - axis, out_axis=1, row_bytes=row_bytes, ctx=self.ctx
        )
        whole = self.ctx.seams.gather(filled, axis=2)

        def delta(z, mask):
            z = norm(z, dtype)
            if not self.outgoing:
                z, mask = transposed(z), transposed(mask)
            x = center_norm(jnp.einsum("cbk,cko->cbo", left(z, mask), whole), dtype)
            out = output(x, axis=0) * jax.nn.sigmoid(gating(z))
            if not self.outgoing:
                out = transposed(out)
            return dropout(out, self.config.dropout_rate, shared_axis=0) if self.ctx.dropout else out

        pair = blocks.update(pair, delta, mask, axis=axis, row_bytes=row_bytes, ctx=self.ctx)
        return pair, None if workspace is None else filled


class TriangleAttention(hk.Module):
    """Suppl. Alg. 13 (starting node, within rows) and Alg. 14 (ending node, within columns)."""

    def __init__(self, config: Config, ctx: Context, *, starting: bool, name: str | None = None):
        super().__init__(name=name or f"triangle_attention_{'starting' if starting else 'ending'}_node")
        self.config = config
        self.ctx = ctx
        self.starting = starting

    def __call__(self, pair: Float[Array, "i j c_z"], mask: Float[Array, "i j"]) -> Float[Array, "i j c_z"]:
        """The updated pair representation, sharded along axis 0 (starting node) or 1 (ending node)."""
        axis = 0 if self.starting else 1
        heads = self.config.num_head
        norm = LayerNorm(name="query_norm")
        attend = Attention(
            heads,
            pair.shape[-1],
            final_init=self.ctx.final_init,
            key_dim=self.config.get("key_dim"),
            value_dim=self.config.get("value_dim"),
        )
        bias = pair_bias(pair, norm, heads, axis=axis, ctx=self.ctx)

        def delta(z, mask):
            z = norm(z, self.ctx.compute_dtype)
            if self.starting:
                out = attend(z, z, mask=mask, bias=bias)
            else:
                z = z.swapaxes(0, 1)
                out = attend(z, z, mask=mask.T, bias=bias).swapaxes(0, 1)
            return dropout(out, self.config.dropout_rate, shared_axis=axis) if self.ctx.dropout else out

        length = pair.shape[1 - axis]
        row_bytes = attention_row_bytes(pair[0] if axis == 0 else pair[:, 0], length, heads)
        return blocks.update(pair, delta, mask, axis=axis, row_bytes=row_bytes, ctx=self.ctx)
