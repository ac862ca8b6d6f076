"""Each algorithm of the Evoformer on its own against the published code, in one piece and in blocks."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import pytest
import reference

from parafold.model.attention import (
    Attention,
    GlobalAttention,
    MSAColumnAttention,
    MSARowAttentionWithPairBias,
)
from parafold.model.config import model_config
from parafold.model.context import Context
from parafold.model.evoformer import Activations, evoformer_block, pair_stack
from parafold.model.outer_product_mean import OuterProductMean
from parafold.model.primitives import layer_stack
from parafold.model.transition import Transition
from parafold.model.triangle import TriangleAttention, TriangleMultiplication, workspace

CASE = reference.read_json("modules", "case.json")
ARRAYS = reference.read_npz("modules", "modules.npz")
NUM = CASE["config"]
GLOBAL = model_config("model_1").model.global_config
TOLERANCE = 2e-5

ATTENTION = ml_collections.ConfigDict({"num_head": NUM["msa_heads"], "dropout_rate": 0.0})
TRIANGLE_ATTENTION = ml_collections.ConfigDict({"num_head": NUM["pair_heads"], "dropout_rate": 0.0})
TRANSITION = ml_collections.ConfigDict(
    {"num_intermediate_factor": NUM["transition_factor"], "dropout_rate": 0.0}
)


def multiplication(fused: bool):
    return ml_collections.ConfigDict(
        {
            "num_intermediate_channel": NUM["tri_intermediate"],
            "fuse_projection_weights": fused,
            "dropout_rate": 0.0,
        }
    )


def outer(first: bool):
    return ml_collections.ConfigDict(
        {"first": first, "num_outer_channel": NUM["opm_outer"], "dropout_rate": 0.0}
    )


def block_config(multimer: bool, *, triangle_attention=TRIANGLE_ATTENTION, factor=NUM["transition_factor"]):
    return ml_collections.ConfigDict(
        {
            "msa_row_attention_with_pair_bias": ATTENTION,
            "msa_column_attention": ATTENTION,
            "msa_transition": TRANSITION,
            "outer_product_mean": outer(multimer),
            "triangle_multiplication_outgoing": multiplication(multimer),
            "triangle_multiplication_incoming": multiplication(multimer),
            "triangle_attention_starting_node": triangle_attention,
            "triangle_attention_ending_node": triangle_attention,
            "pair_transition": {"num_intermediate_factor": factor, "dropout_rate": 0.0},
        }
    )


def triangle_multiplication(outgoing: bool, fused: bool):
    def run(ctx, pair, mask):
        buffer = workspace(pair, NUM["tri_intermediate"], ctx)
        return (
            TriangleMultiplication(multiplication(fused), ctx, outgoing=outgoing)(pair, mask, buffer)[0]
            - pair
        )

    return run


def triangle_attention(starting: bool):
    return lambda ctx, pair, mask: (
        TriangleAttention(TRIANGLE_ATTENTION, ctx, starting=starting)(pair, mask) - pair
    )


def block(multimer: bool, is_extra_msa: bool):
    def run(ctx, msa, pair, msa_mask, pair_mask):
        class Block(hk.Module):
            def __call__(self, x):
                return evoformer_block(
                    x, msa_mask, pair_mask, block_config(multimer), ctx, is_extra_msa=is_extra_msa
                )

        out = Block(name="block")(Activations(msa, pair, workspace(pair, NUM["tri_intermediate"], ctx)))
        return {"msa": out.msa, "pair": out.pair}

    return run


def template_pair_stack(ctx, pair, mask):
    width = {"key_dim": 12, "value_dim": 12}
    config = block_config(
        False, triangle_attention=ml_collections.ConfigDict({**TRIANGLE_ATTENTION, **width}), factor=2
    )

    class Stack(hk.Module):
        def __call__(self, pair):
            buffer = workspace(pair, NUM["tri_intermediate"], ctx)
            return layer_stack(
                lambda x: pair_stack(x[0], mask, x[1], config, ctx, attention_first=True),
                (pair, buffer),
                num_layers=2,
                name="__layer_stack_no_state",
            )[0]

    return Stack(name="template_pair_stack")(pair)


def outer_product_mean(ctx, msa, mask):
    residues = msa.shape[1]
    pair = jnp.zeros((residues, residues, CASE["dims"]["Z"]))
    return OuterProductMean(outer(False), ctx)(msa, mask, pair)


def attention_ungated(ctx, query, memory, mask):
    attend = Attention(2, 10, final_init=ctx.final_init, key_dim=8, value_dim=12, gating=False)
    return attend(query, memory, mask=jnp.broadcast_to(mask[:, 0, 0], memory.shape[:2]))


RUN = {
    "transition": lambda ctx, x, mask: Transition(TRANSITION, ctx, name="transition_block")(x) - x,
    "attention_gated": lambda ctx, q, m, mask, bias: Attention(
        NUM["msa_heads"], q.shape[-1], final_init=ctx.final_init
    )(q, m, mask=mask[:, 0, 0], bias=bias.swapaxes(1, 2)),
    "attention_ungated": attention_ungated,
    "global_attention": lambda ctx, x, memory, mask: GlobalAttention(
        NUM["msa_heads"], x.shape[-1], final_init=ctx.final_init
    )(x, mask[..., 0]),
    "msa_row_attention_with_pair_bias": lambda ctx, msa, mask, pair: (
        MSARowAttentionWithPairBias(ATTENTION, ctx)(msa, mask, pair) - msa
    ),
    "msa_column_attention": lambda ctx, msa, mask: MSAColumnAttention(ATTENTION, ctx)(msa, mask) - msa,
    "msa_column_global_attention": lambda ctx, msa, mask: (
        MSAColumnAttention(ATTENTION, ctx, is_global=True)(msa, mask) - msa
    ),
    "triangle_attention_starting": triangle_attention(True),
    "triangle_attention_ending": triangle_attention(False),
    "triangle_attention_starting_pad": triangle_attention(True),
    "triangle_multiplication_outgoing": triangle_multiplication(True, False),
    "triangle_multiplication_outgoing_fused": triangle_multiplication(True, True),
    "triangle_multiplication_incoming": triangle_multiplication(False, False),
    "triangle_multiplication_incoming_fused": triangle_multiplication(False, True),
    "outer_product_mean": outer_product_mean,
    "evoformer_block": block(False, False),
    "evoformer_block_multimer": block(True, False),
    "extra_msa_block": block(False, True),
    "extra_msa_block_multimer": block(True, True),
    "template_pair_stack": template_pair_stack,
}
STRUCTURE = {"ipa_monomer", "fold_iteration_monomer", "ipa_multimer", "fold_iteration_multimer"}


def test_every_case_is_compared():
    elsewhere = STRUCTURE | {"head_predicted_lddt", "head_distogram", "head_pae"}
    assert set(RUN) | elsewhere == set(CASE["cases"])


@pytest.mark.parametrize("block_size", [0, 3], ids=["whole", "blocks"])
@pytest.mark.parametrize("name", RUN)
def test_module(name, block_size):
    ctx = dataclasses.replace(Context.of(GLOBAL), block_size=block_size)
    inputs = [jnp.asarray(ARRAYS[key]) for key in ARRAYS if key.startswith(f"{name}/in")]
    params = reference.parameters(CASE["cases"][name]["param_shapes"], CASE["seed"])
    module = hk.transform(lambda *args: RUN[name](ctx, *args))
    initial = module.init(jax.random.key(0), *inputs)
    shapes = jax.tree.map(lambda x: x.shape, (dict(params), dict(initial)))
    assert shapes[0] == shapes[1]
    out = jax.jit(module.apply)(params, jax.random.key(0), *inputs)
    out = reference.flatten(out if isinstance(out, dict) else {"out": out})
    wanted = {k.split("/out/")[1]: v for k, v in ARRAYS.items() if k.startswith(f"{name}/out/")}
    assert set(out) == set(wanted)
    for key, want in wanted.items():
        assert reference.relative_error(out[key], want) <= TOLERANCE, key
