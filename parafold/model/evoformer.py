"""The Evoformer block, shared by the main stack, the extra MSA stack and all models."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float

from parafold.model.attention import MSAColumnAttention, MSARowAttentionWithPairBias
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.outer_product_mean import OuterProductMean
from parafold.model.primitives import layer_stack
from parafold.model.transition import Transition
from parafold.model.triangle import TriangleAttention, TriangleMultiplication


class Activations(NamedTuple):
    """What travels through the stacks; `workspace` is the triangle multiplications' buffer (see there)."""

    msa: Float[Array, "s r c_m"]
    pair: Float[Array, "i r c_z"]
    workspace: Float[Array, "c i r"] | None


def pair_stack(
    pair: Float[Array, "i r c_z"],
    mask: Float[Array, "r r"],
    buffer: Float[Array, "c i r"] | None,
    config: Config,
    ctx: Context,
    *,
    attention_first: bool = False,
) -> tuple[Float[Array, "i r c_z"], Float[Array, "c i r"] | None]:
    """The five pair updates of a block, in the caller's module scope; pair sharded along axis 0.

    `attention_first` is the order of the monomer's template pair stack.
    """
    seams = ctx.seams
    row_mask, column_mask = seams.shard(mask, axis=0), seams.shard(mask, axis=1)

    def multiply(pair, buffer):
        outgoing = TriangleMultiplication(config.triangle_multiplication_outgoing, ctx, outgoing=True)
        incoming = TriangleMultiplication(config.triangle_multiplication_incoming, ctx, outgoing=False)
        pair, buffer = outgoing(pair, row_mask, buffer)
        pair = seams.turn(pair, source=0, target=1)
        pair, buffer = incoming(pair, column_mask, buffer)
        return seams.turn(pair, source=1, target=0), buffer

    def attend(pair):
        starting = TriangleAttention(config.triangle_attention_starting_node, ctx, starting=True)
        ending = TriangleAttention(config.triangle_attention_ending_node, ctx, starting=False)
        pair = starting(pair, row_mask)
        return ending(seams.turn(pair, source=0, target=1), column_mask)

    transition = Transition(config.pair_transition, ctx, name="pair_transition")
    if attention_first:
        pair = seams.turn(attend(pair), source=1, target=0)
        pair, buffer = multiply(pair, buffer)
        return transition(pair, axis=0), buffer
    pair, buffer = multiply(pair, buffer)
    pair = transition(attend(pair), axis=1)
    return seams.turn(pair, source=1, target=0), buffer


def evoformer_block(
    activations: Activations,
    msa_mask: Float[Array, "s r"],
    pair_mask: Float[Array, "r r"],
    config: Config,
    ctx: Context,
    *,
    is_extra_msa: bool,
) -> Activations:
    """Suppl. Alg. 6, lines 2 to 10; with `is_extra_msa` Alg. 18, whose column attention is global."""
    msa, pair, buffer = activations
    seams = ctx.seams
    row_mask, column_mask = seams.shard(msa_mask, axis=0), seams.shard(msa_mask, axis=1)
    outer_product_mean = OuterProductMean(config.outer_product_mean, ctx)
    row_attention = MSARowAttentionWithPairBias(config.msa_row_attention_with_pair_bias, ctx)
    column_attention = MSAColumnAttention(config.msa_column_attention, ctx, is_global=is_extra_msa)
    transition = Transition(config.msa_transition, ctx, name="msa_transition")

    if config.outer_product_mean.first:  # between blocks the MSA is sharded by columns
        pair = outer_product_mean(msa, column_mask, pair)
        msa = seams.turn(msa, source=1, target=0)
    msa = row_attention(msa, row_mask, pair)
    msa = seams.turn(msa, source=0, target=1)
    msa = column_attention(msa, column_mask)
    msa = transition(msa, axis=1)
    if not config.outer_product_mean.first:
        pair = outer_product_mean(msa, column_mask, pair)
        msa = seams.turn(msa, source=1, target=0)
    pair, buffer = pair_stack(pair, pair_mask, buffer, config, ctx)
    return Activations(msa, pair, buffer)


def evoformer_stack(
    msa: Float[Array, "s r c_m"],
    pair: Float[Array, "i r c_z"],
    buffer: Float[Array, "c r i"] | None,
    msa_mask: Float[Array, "s r"],
    pair_mask: Float[Array, "r r"],
    config: Config,
    ctx: Context,
    *,
    num_block: int,
    is_extra_msa: bool = False,
) -> Activations:
    """`num_block` blocks with their own parameters; `pair` sharded along axis 0, the MSA whole."""
    seams = ctx.seams
    axis = 1 if config.outer_product_mean.first else 0
    carry = Activations(seams.shard(msa, axis=axis), pair, buffer)
    carry = layer_stack(
        lambda x: evoformer_block(x, msa_mask, pair_mask, config, ctx, is_extra_msa=is_extra_msa),
        carry,
        num_layers=num_block,
        name="extra_msa_stack" if is_extra_msa else "evoformer_iteration",
        remat=ctx.remat,
    )
    return carry._replace(msa=seams.gather(carry.msa, axis=axis))
