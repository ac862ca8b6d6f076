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
) -> Float[Array, "{channels} i j"] | None:
    """The one buffer that all triangle multiplications of a stack fill anew, or None where none is needed.

    It is carried through the layers: a buffer made in each of them from equal zeros would be shared by the
    compiler and then copied, at the price of one more pair tensor.
    """
    if blocks.block_rows(pair, 0, multiplication_row_bytes(pair, channels), ctx) >= pair.shape[0]:
        return None
    return jnp.zeros((channels, *pair.shape[:2]), ctx.compute_dtype)


def _half(layer: Linear, side: int):
    """Apply the left (0) or right (1) half of a layer's output channels."""

    def apply(x):
        both = layer.parameters(x.shape[-1:])
        weights, bias = (jnp.split(p, 2, axis=-1)[side] for p in both if p is not None)
        return x @ weights.astype(x.dtype) + bias.astype(x.dtype)

    return apply


class TriangleMultiplication(hk.Module):
    """Suppl. Alg. 11 (outgoing edges) and Alg. 12 (incoming edges).

    `right` is needed whole and fills the workspace. `left`, the output and its gate are local to a block:
    of rows for outgoing edges, x_ij = sum_k left_ik right_jk; of columns for incoming ones,
    x_ij = sum_k left_kj right_ki.
    """

    def __init__(self, config: Config, ctx: Context, *, outgoing: bool, name: str | None = None):
        super().__init__(name=name or f"triangle_multiplication_{'outgoing' if outgoing else 'incoming'}")
        self.config = config
        self.ctx = ctx
        self.outgoing = outgoing

    @hk.transparent
    def _layers(self, pair_channels: int):
        """Norm, center norm, left, right, output, gating; left and right map (x, mask) to channels-first."""
        channels = self.config.num_intermediate_channel

        def gated(x, mask, projection, gate):
            out = projection(x) * jax.nn.sigmoid(gate(x)) * mask[..., None].astype(x.dtype)
            # Channels lead from here on: a contraction over ikc,jkc would make the GPU transpose all of it.
            return jnp.moveaxis(out, -1, 0)

        # The checkpoints hold left and right apart (monomer, multimer v1 and v2) or fused, left half first.
        fused = self.config.fuse_projection_weights
        if fused:
            projection = Linear(2 * channels, name="projection")
            gate = Linear(2 * channels, init="zeros", bias_init=1.0, name="gate")
            sides = [(_half(projection, 0), _half(gate, 0)), (_half(projection, 1), _half(gate, 1))]
        else:
            sides = [
                (
                    Linear(channels, name=f"{side}_projection"),
                    Linear(channels, init="zeros", bias_init=1.0, name=f"{side}_gate"),
                )
                for side in ("left", "right")
            ]
        left, right = (functools.partial(gated, projection=p, gate=g) for p, g in sides)
        norm = LayerNorm(fast_variance=fused, name="left_norm_input" if fused else "layer_norm_input")
        center_norm = LayerNorm(fast_variance=fused, name="center_norm" if fused else "center_layer_norm")
        output = Linear(pair_channels, init=self.ctx.final_init, name="output_projection")
        gating = Linear(pair_channels, init="zeros", bias_init=1.0, name="gating_linear")
        return norm, center_norm, left, right, output, gating

    def __call__(
        self,
        pair: Float[Array, "i j c_z"],
        mask: Float[Array, "i j"],
        workspace: Float[Array, "c i j"] | None = None,
    ) -> tuple[Float[Array, "i j c_z"], Float[Array, "c i j"] | None]:
        """The updated pair representation and the workspace; pair sharded along axis 0 (outgoing) or 1."""
        norm, center_norm, left, right, output, gating = self._layers(pair.shape[-1])
        axis = 0 if self.outgoing else 1
        dtype = self.ctx.compute_dtype
        size = {
            "axis": axis,
            "row_bytes": multiplication_row_bytes(pair, self.config.num_intermediate_channel),
            "ctx": self.ctx,
        }
        filled = blocks.fill(
            workspace, lambda z, m: right(norm(z, dtype), m), pair, mask, out_axis=1 + axis, **size
        )
        whole = self.ctx.seams.gather(filled, axis=1 + axis)

        def delta(z, mask):
            z = norm(z, dtype)
            equation = "cik,cjk->cij" if self.outgoing else "ckj,cki->cij"
            x = jnp.einsum(equation, left(z, mask), whole)
            out = output(center_norm(jnp.moveaxis(x, 0, -1), dtype)) * jax.nn.sigmoid(gating(z))
            return dropout(out, self.config.dropout_rate, shared_axis=0) if self.ctx.dropout else out

        return blocks.update(pair, delta, mask, **size), None if workspace is None else filled


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
        if not self.starting:
            bias = bias.swapaxes(1, 2)

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
