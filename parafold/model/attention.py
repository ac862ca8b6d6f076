"""Gated attention and the attention updates of the MSA representation."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parafold.kernels.attention import attention
from parafold.model import blocks
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, dropout, initializer, masked_mean


def head_projection(name: str, x: Array, heads: int, width: int) -> Array:
    """Project the channels of `x` to `heads` heads of `width` channels, with a published weight name."""
    channels = x.shape[-1]
    weights = hk.get_parameter(
        name,
        (channels, heads, width),
        jnp.float32,
        hk.initializers.VarianceScaling(1.0, "fan_avg", "uniform"),
    )
    return jnp.einsum("...a,ahc->...hc", x, weights.astype(x.dtype))


def gated_output(heads: Array, x: Array | None, num_output: int, final_init: str) -> Array:
    """Gate the heads by `x` (None: no gating) and merge them into `num_output` channels."""
    num_head, width = heads.shape[-2:]
    if x is not None:
        gating_w = hk.get_parameter(
            "gating_w", (x.shape[-1], num_head, width), jnp.float32, hk.initializers.Constant(0.0)
        )
        gating_b = hk.get_parameter("gating_b", (num_head, width), jnp.float32, hk.initializers.Constant(1.0))
        gate = jnp.einsum("...a,ahc->...hc", x, gating_w.astype(x.dtype)) + gating_b.astype(x.dtype)
        heads = heads * jax.nn.sigmoid(gate)
    output_w = hk.get_parameter(
        "output_w", (num_head, width, num_output), jnp.float32, initializer(final_init, (num_head, width))
    )
    output_b = hk.get_parameter("output_b", (num_output,), jnp.float32, hk.initializers.Constant(0.0))
    return jnp.einsum("...hc,hco->...o", heads, output_w.astype(heads.dtype)) + output_b.astype(heads.dtype)


class Attention(hk.Module):
    """Multi-head attention with optional gating, the core of suppl. algorithms 7, 8, 13, 14 and 17."""

    def __init__(
        self,
        num_head: int,
        num_output: int,
        *,
        final_init: str,
        key_dim: int | None = None,
        value_dim: int | None = None,
        gating: bool = True,
        name: str = "attention",
    ):
        super().__init__(name=name)
        self.num_head = num_head
        self.num_output = num_output
        self.final_init = final_init
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.gating = gating

    def __call__(
        self,
        query: Float[Array, "b q a"],
        memory: Float[Array, "b k m"],
        *,
        mask: Float[Array, "b k"] | None = None,
        bias: Float[Array, "h k q"] | None = None,
    ) -> Float[Array, "b q o"]:
        key_width = (self.key_dim or query.shape[-1]) // self.num_head
        value_width = (self.value_dim or memory.shape[-1]) // self.num_head
        q = head_projection("query_w", query, self.num_head, key_width)
        k = head_projection("key_w", memory, self.num_head, key_width)
        v = head_projection("value_w", memory, self.num_head, value_width)
        heads = attention(q, k, v, mask=mask, bias=bias)
        return gated_output(heads, query if self.gating else None, self.num_output, self.final_init)


class GlobalAttention(hk.Module):
    """Global attention of suppl. Alg. 19: one averaged query a column, one key and value head for all."""

    def __init__(self, num_head: int, num_output: int, *, final_init: str, name: str = "attention"):
        super().__init__(name=name)
        self.num_head = num_head
        self.num_output = num_output
        self.final_init = final_init

    def __call__(self, x: Float[Array, "b k a"], mask: Float[Array, "b k"]) -> Float[Array, "b k o"]:
        width = x.shape[-1] // self.num_head
        average = masked_mean(mask[..., None].astype(jnp.float32), x.astype(jnp.float32), axis=1).astype(
            x.dtype
        )
        q = head_projection("query_w", average, self.num_head, width) * jnp.asarray(width**-0.5, x.dtype)
        uniform = hk.initializers.VarianceScaling(1.0, "fan_avg", "uniform")
        key_w = hk.get_parameter("key_w", (x.shape[-1], width), jnp.float32, uniform)
        value_w = hk.get_parameter("value_w", (x.shape[-1], width), jnp.float32, uniform)
        k = x @ key_w.astype(x.dtype)
        v = x @ value_w.astype(x.dtype)
        logits = jnp.einsum("bhc,bkc->bhk", q, k, preferred_element_type=jnp.float32)
        logits = jnp.where(mask[:, None, :] > 0, logits, -1e9)
        heads = jnp.einsum("bhk,bkc->bhc", jax.nn.softmax(logits, axis=-1).astype(v.dtype), v)
        # The heads of a column serve all its rows; each row gates them for itself.
        return gated_output(heads[:, None], x, self.num_output, self.final_init)


def attention_row_bytes(batch_row: Array, keys: int, heads: int) -> int:
    """Bytes of temporaries for one batch row of attention: two float32 logit arrays and the projections."""
    queries, channels = batch_row.shape[-2:]
    return 2 * heads * queries * keys * 4 + 6 * queries * channels * 4


def pair_bias(
    pair: Float[Array, "i j c"], norm: LayerNorm, num_head: int, *, axis: int, ctx: Context
) -> Float[Array, "h k q"]:
    """Attention bias from the pair representation, whole, with keys before queries as `attention` reads it.

    The queries are the positions along `axis`, along which `pair` is sharded: i for attention within rows,
    j for attention within columns.
    """
    weights = hk.get_parameter(
        "feat_2d_weights",
        (pair.shape[-1], num_head),
        jnp.float32,
        hk.initializers.RandomNormal(pair.shape[-1] ** -0.5),
    )

    def bias(part):
        part = norm(part, ctx.compute_dtype)
        return jnp.einsum("ijc,ch->hji" if axis == 0 else "ijc,ch->hij", part, weights.astype(part.dtype))

    queries, keys = pair.shape[axis], pair.shape[1 - axis]
    row_bytes = 3 * keys * pair.shape[-1] * 4
    whole = blocks.block_rows(pair, axis, row_bytes, ctx) >= queries
    out = None if whole else jnp.zeros((num_head, keys, queries), ctx.compute_dtype)
    out = blocks.fill(out, bias, pair, axis=axis, out_axis=2, row_bytes=row_bytes, ctx=ctx)
    return ctx.seams.gather(out, axis=2)


class MSARowAttentionWithPairBias(hk.Module):
    """Suppl. Alg. 7: attention within each row of the MSA, biased by the pair representation."""

    def __init__(
        self,
        config: Config,
        ctx: Context,
        name: str = "msa_row_attention_with_pair_bias",
    ):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx

    def __call__(
        self, msa: Float[Array, "s r c_m"], mask: Float[Array, "s r"], pair: Float[Array, "i r c_z"]
    ) -> Float[Array, "s r c_m"]:
        """The updated MSA representation; MSA and pair sharded along axis 0."""
        norm = LayerNorm(name="query_norm")
        heads = self.config.num_head
        bias = pair_bias(pair, LayerNorm(name="feat_2d_norm"), heads, axis=0, ctx=self.ctx)
        attend = Attention(heads, msa.shape[-1], final_init=self.ctx.final_init)

        def delta(rows, mask):
            rows = norm(rows, self.ctx.compute_dtype)
            out = attend(rows, rows, mask=mask, bias=bias)
            return dropout(out, self.config.dropout_rate, shared_axis=0) if self.ctx.dropout else out

        row_bytes = attention_row_bytes(msa[0], msa.shape[1], heads)
        return blocks.update(msa, delta, mask, axis=0, row_bytes=row_bytes, ctx=self.ctx)


class MSAColumnAttention(hk.Module):
    """Suppl. Alg. 8, or with `is_global` Alg. 19 (extra MSA): attention within each column of the MSA."""

    def __init__(
        self,
        config: Config,
        ctx: Context,
        *,
        is_global: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            name=name or ("msa_column_global_attention" if is_global else "msa_column_attention")
        )
        self.config = config
        self.ctx = ctx
        self.is_global = is_global

    def __call__(self, msa: Float[Array, "s r c_m"], mask: Float[Array, "s r"]) -> Float[Array, "s r c_m"]:
        """The updated MSA representation, sharded along axis 1."""
        norm = LayerNorm(name="query_norm")
        heads, channels, init = self.config.num_head, msa.shape[-1], self.ctx.final_init
        attend = (GlobalAttention if self.is_global else Attention)(heads, channels, final_init=init)

        def delta(columns, mask):
            x = norm(columns, self.ctx.compute_dtype).swapaxes(0, 1)
            out = attend(x, mask.T) if self.is_global else attend(x, x, mask=mask.T)
            out = out.swapaxes(0, 1)
            return dropout(out, self.config.dropout_rate, shared_axis=1) if self.ctx.dropout else out

        keys = 1 if self.is_global else msa.shape[0]
        row_bytes = attention_row_bytes(msa[:, 0], keys, heads)
        return blocks.update(msa, delta, mask, axis=1, row_bytes=row_bytes, ctx=self.ctx)
