"""Template embedding: pair features and torsion angle rows of the structures of similar proteins."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parafold.model import all_atom, blocks
from parafold.model.attention import Attention
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.evoformer import pair_stack
from parafold.model.primitives import LayerNorm, Linear, layer_stack
from parafold.model.triangle import workspace

Batch = dict[str, Array]


def distance_bin(
    positions: Float[Array, "r 3"],
    rows: Float[Array, "i 3"],
    *,
    num_bins: int,
    min_bin: float,
    max_bin: float,
) -> Int[Array, "i r"]:
    """Distance bin of each pair counted from 1; 0 below `min_bin`; the last bin has no upper end. Å."""
    lower = jnp.square(jnp.linspace(min_bin, max_bin, num_bins))
    squared = all_atom.squared_distances(rows, positions)
    return jnp.sum(squared[..., None] > lower, axis=-1)


def embed_bins(bins: Int[Array, "i j"], weights: Float[Array, "bins c"]) -> Float[Array, "i j c"]:
    """One-hot encoding times `weights` as a look-up; bin 0 counts as no bin at all."""
    return jnp.concatenate([jnp.zeros_like(weights[:1]), weights])[bins]


class SingleTemplateEmbedding(hk.Module):
    """Suppl. Alg. 2, lines 9 to 11, for one template: pair features, pair stack, layer norm."""

    def __init__(self, config: Config, ctx: Context, *, multimer: bool):
        super().__init__(name="single_template_embedding")
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self,
        query: Float[Array, "i r c_z"],
        template: Batch,
        pair_mask: Float[Array, "r r"],
        chain_mask: Float[Array, "i r"] | None,
    ) -> Float[Array, "i r c_t"]:
        """Embedding of the template, sharded along axis 0 as `query` and `chain_mask` are.

        `template` has `aatype` [r], `positions` [r, 37, 3] in Å and `mask` [r, 37].
        """
        config, ctx = self.config, self.ctx
        if self.multimer:
            assert chain_mask is not None, "templates of a multimer stay within its chains"
            act = self._multimer_input(query, template, chain_mask)
        else:
            act = self._input(template)
        stack = config.template_pair_stack
        buffer = workspace(act, stack.triangle_multiplication_outgoing.num_intermediate_channel, ctx)

        def block(carry):
            pair, buffer = carry
            return pair_stack(pair, pair_mask, buffer, stack, ctx, attention_first=not self.multimer)

        act, _ = _run_stack(block, (act, buffer), stack.num_block, multimer=self.multimer, remat=ctx.remat)
        return LayerNorm(name="output_layer_norm")(act)

    @hk.transparent
    def _input(self, template: Batch) -> Float[Array, "i r c_t"]:
        """The monomer's 88 pair features through one linear layer."""
        shard, dtype = self.ctx.seams.shard, self.ctx.residual_dtype
        channels = self.config.template_pair_stack.triangle_attention_ending_node.value_dim
        bins = self.config.dgram_features
        layer = Linear(channels, init="relu", name="embedding2d")
        weights, bias = layer.parameters((bins.num_bins + 1 + 22 + 22 + 3 + 1,))
        # Rows: distance bins, pseudo-beta mask, type of j, type of i, (unit vector: always 0), backbone mask.
        dgram_w, beta_w, column_w, row_w, _, backbone_w = jnp.split(
            weights,
            [bins.num_bins, bins.num_bins + 1, bins.num_bins + 23, bins.num_bins + 45, bins.num_bins + 48],
        )
        _, backbone_mask = all_atom.backbone_rigids(template["positions"], template["mask"])
        beta, beta_mask = template["pseudo_beta"], template["pseudo_beta_mask"]
        rows, aatype = shard(beta, axis=0), template["aatype"]
        backbone = (shard(backbone_mask, axis=0)[:, None] * backbone_mask)[..., None]
        act = embed_bins(distance_bin(beta, rows, **bins), dgram_w)
        act += (shard(beta_mask, axis=0)[:, None] * beta_mask)[..., None] * beta_w
        act += column_w[aatype][None, :] + row_w[shard(aatype, axis=0)][:, None]
        act += backbone * backbone_w
        return (act * backbone + bias).astype(dtype)

    @hk.transparent
    def _multimer_input(
        self, query: Float[Array, "i r c_z"], template: Batch, chain_mask: Float[Array, "i r"]
    ) -> Float[Array, "i r c_t"]:
        """The multimer's nine features, each through a linear layer of its own, summed."""
        shard, channels = self.ctx.seams.shard, self.config.num_channels
        dtype = self.ctx.compute_dtype

        def layer(index, num_input_dims=1):
            name = f"template_pair_embedding_{index}"
            return Linear(channels, init="relu", num_input_dims=num_input_dims, name=name)

        def scalar(index, x):
            return layer(index, num_input_dims=0)(x.astype(dtype))

        def table(index, size):
            weights, bias = layer(index).parameters((size,))
            return weights.astype(dtype), bias.astype(dtype)

        aatype = template["aatype"]
        beta = all_atom.pseudo_beta(aatype, template["positions"])
        beta_mask = all_atom.pseudo_beta_mask(aatype, template["mask"])
        beta_mask = shard(beta_mask, axis=0)[:, None] * beta_mask * chain_mask
        bins = self.config.dgram_features
        dgram = jnp.where(beta_mask > 0, distance_bin(beta, shard(beta, axis=0), **bins), 0)
        dgram_w, dgram_b = table(0, bins.num_bins)
        column_w, column_b = table(2, 22)
        row_w, row_b = table(3, 22)

        rigid, backbone_mask = all_atom.backbone_rigids(template["positions"], template["mask"])
        backbone_mask = shard(backbone_mask, axis=0)[:, None] * backbone_mask * chain_mask
        rows = rigid.map(lambda x: shard(x, axis=0)[:, None])
        vector = rows.apply_inverse(rigid.translation)
        norm = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(vector), axis=-1, keepdims=True), 1e-12))
        unit_vector = vector / norm * backbone_mask[..., None]

        act = embed_bins(dgram, dgram_w) + dgram_b
        act += scalar(1, beta_mask)
        act += (column_w[aatype] + column_b)[None, :] + (row_w[shard(aatype, axis=0)] + row_b)[:, None]
        for axis in range(3):
            act += scalar(4 + axis, unit_vector[..., axis])
        act += scalar(7, backbone_mask)
        act += layer(8)(LayerNorm(name="query_embedding_norm")(query, dtype))
        return act.astype(self.ctx.residual_dtype)


def _run_stack(block, carry, num_block: int, *, multimer: bool, remat: bool):
    """The template's pair stack under the module path of the monomer's or the multimer's checkpoints."""
    if multimer:
        return layer_stack(
            block, carry, num_layers=num_block, name="template_embedding_iteration", remat=remat
        )

    class TemplatePairStack(hk.Module):
        def __call__(self, carry):
            return layer_stack(block, carry, num_layers=num_block, name="__layer_stack_no_state", remat=remat)

    return TemplatePairStack(name="template_pair_stack")(carry)


class TemplateEmbedding(hk.Module):
    """Suppl. Alg. 2, lines 9 to 13: what all templates say about the pair representation.

    The monomer attends over its templates at each pair, Alg. 17; the multimer averages them.
    """

    def __init__(self, config: Config, ctx: Context, *, multimer: bool):
        super().__init__(name="template_embedding")
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self,
        pair: Float[Array, "i r c_z"],
        templates: Batch,
        pair_mask: Float[Array, "r r"],
        chain_mask: Float[Array, "i r"] | None = None,
    ) -> Float[Array, "i r c_z"]:
        """The pair representation with the templates added, sharded along axis 0.

        `templates` holds arrays with a leading template axis, see `SingleTemplateEmbedding`, and
        `template_mask` [t].
        """
        template_mask = templates["template_mask"]
        per_template = {k: v for k, v in templates.items() if k != "template_mask"}
        embed_one = SingleTemplateEmbedding(self.config, self.ctx, multimer=self.multimer)

        def embed(template):
            return embed_one(pair, template, pair_mask, chain_mask)

        if self.multimer:
            return pair + self._average(embed, per_template, pair).astype(pair.dtype)
        embedded = hk.map(embed, per_template) if template_mask.shape[0] > 0 else None
        return pair if embedded is None else self._attend(pair, embedded, template_mask)

    @hk.transparent
    def _average(self, embed, templates: Batch, pair: Array) -> Float[Array, "i r c_z"]:
        zero = jnp.zeros((*pair.shape[:2], self.config.num_channels), pair.dtype)
        total, _ = hk.scan(lambda total, template: (total + embed(template), None), zero, templates)
        mean = total / templates["aatype"].shape[0]
        output = Linear(pair.shape[-1], init="relu", name="output_linear")
        return output(jax.nn.relu(mean).astype(self.ctx.compute_dtype))

    @hk.transparent
    def _attend(
        self,
        pair: Float[Array, "i r c_z"],
        embedded: Float[Array, "t i r c_t"],
        template_mask: Float[Array, " t"],
    ) -> Float[Array, "i r c_z"]:
        config, channels, dtype = self.config.attention, pair.shape[-1], self.ctx.compute_dtype
        attend = Attention(
            config.num_head,
            channels,
            final_init=self.ctx.final_init,
            key_dim=config.get("key_dim"),
            value_dim=config.get("value_dim"),
            gating=False,
        )
        has_template = (jnp.sum(template_mask) > 0).astype(dtype)

        def delta(rows, templates):
            count = rows.shape[0] * rows.shape[1]
            query = rows.reshape(count, 1, channels).astype(dtype)
            memory = jnp.moveaxis(templates, 0, 2).reshape(count, templates.shape[0], -1).astype(dtype)
            mask = jnp.broadcast_to(template_mask, (count, template_mask.shape[0]))
            return attend(query, memory, mask=mask).reshape(rows.shape) * has_template

        width = (config.get("key_dim") or channels) * (2 + 2 * embedded.shape[0])
        row_bytes = pair.shape[1] * (width + 2 * channels) * 4
        return blocks.update(pair, delta, (embedded, 1), axis=0, row_bytes=row_bytes, ctx=self.ctx)


def template_rows(
    templates: Batch, num_output: int, ctx: Context, *, multimer: bool
) -> tuple[Float[Array, "t r c_m"], Float[Array, "t r"]]:
    """Suppl. Alg. 2, lines 7 and 8: torsion angles of the templates as further MSA rows, and their mask.

    The monomer uses all seven angles with their alternatives, the multimer chi angles only.
    """
    aatype = jnp.minimum(templates["aatype"], 20)
    torsions = all_atom.torsion_angles(aatype, templates["positions"], templates["mask"])
    types = jax.nn.one_hot(templates["aatype"], 22)
    lead = aatype.shape
    if multimer:
        chi_mask = torsions.mask[..., 3:]
        sin_cos = torsions.sin_cos[..., 3:, :] * chi_mask[..., None]
        features = [types, sin_cos[..., 0], sin_cos[..., 1], chi_mask]
        mask = chi_mask[..., 0]
    else:
        angles = [torsions.sin_cos.reshape(*lead, 14), torsions.alternative_sin_cos.reshape(*lead, 14)]
        features = [types, *angles, torsions.mask]
        mask = torsions.mask[..., 2]
    x = jnp.concatenate(features, axis=-1).astype(ctx.compute_dtype)
    x = jax.nn.relu(Linear(num_output, init="relu", name="template_single_embedding")(x))
    x = Linear(num_output, init="relu", name="template_projection")(x)
    return x.astype(ctx.residual_dtype), mask
