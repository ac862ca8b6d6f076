"""From features and the previous pass to the representations: embedders, templates and both stacks."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray, Shaped

from parafold.model import all_atom
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.evoformer import evoformer_stack
from parafold.model.msa_sampling import SampledMsa, sample_msa
from parafold.model.primitives import LayerNorm, Linear
from parafold.model.template import TemplateEmbedding, distance_bin, embed_bins, template_rows
from parafold.model.triangle import workspace

Batch = dict[str, Array]


def extra_msa_features(batch: Batch) -> Float[Array, "e r 25"]:
    """One-hot types (23), has_deletion and deletion_value of the extra sequences."""
    types = jax.nn.one_hot(batch["extra_msa"], 23)
    return jnp.concatenate(
        [types, batch["extra_has_deletion"][..., None], batch["extra_deletion_value"][..., None]], axis=-1
    )


class Evoformer(hk.Module):
    """Suppl. Alg. 2, lines 1 to 18: embedders, templates, extra MSA stack and Evoformer.

    One pass for one ensemble element.
    """

    def __init__(self, config: Config, ctx: Context, *, multimer: bool):
        super().__init__(name="evoformer")
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self, batch: Batch, previous: Batch, key: PRNGKeyArray | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Representations of one pass: `single`, `pair` (sharded along axis 0), `msa`, `msa_first_row`.

        Args:
          batch: processed features of one ensemble element.
          previous: `positions` [r, 37, 3] Å, `msa_first_row` [r, c_m], `pair` [r, r, c_z] (sharded along
            axis 0) of the previous pass, zeros in the first.
          key: for the multimer's MSA sampling.

        Returns:
          The representations, and the masked-MSA labels `true_msa` and `bert_mask` of this sample.
        """
        c, ctx = self.config, self.ctx
        sample = self._sample(batch, key)
        seq_mask = batch["seq_mask"]
        pair_mask = seq_mask[:, None] * seq_mask
        msa = self._embed_msa(batch, sample, previous)
        pair = self._embed_pair(batch, previous)
        num_rows = msa.shape[0]
        msa_mask = sample.msa_mask

        if c.template.enabled:
            templates = _templates(batch, multimer=self.multimer)
            chain_mask = None
            if self.multimer:
                rows = ctx.seams.shard(batch["asym_id"], axis=0)
                chain_mask = (rows[:, None] == batch["asym_id"]).astype(jnp.float32)
            embedding = TemplateEmbedding(c.template, ctx, multimer=self.multimer)
            pair = embedding(pair, templates, pair_mask, chain_mask)

        extra = Linear(c.extra_msa_channel, name="extra_msa_activations")(
            sample.extra_msa_feat.astype(ctx.compute_dtype)
        ).astype(ctx.residual_dtype)
        channels = c.evoformer.triangle_multiplication_outgoing.num_intermediate_channel
        buffer = workspace(pair, channels, ctx)
        _, pair, buffer = evoformer_stack(
            extra,
            pair,
            buffer,
            sample.extra_msa_mask,
            pair_mask,
            c.evoformer,
            ctx,
            num_block=c.extra_msa_stack_num_block,
            is_extra_msa=True,
        )
        if c.template.enabled and c.template.embed_torsion_angles:
            rows, rows_mask = template_rows(templates, c.msa_channel, ctx, multimer=self.multimer)
            msa = jnp.concatenate([msa, rows])
            msa_mask = jnp.concatenate([msa_mask, rows_mask])
        msa, pair, _ = evoformer_stack(
            msa, pair, buffer, msa_mask, pair_mask, c.evoformer, ctx, num_block=c.evoformer_num_block
        )
        first_row = msa[0]
        single = Linear(c.seq_channel, name="single_activations")(first_row.astype(ctx.compute_dtype))
        # The masked-MSA head must not see the template rows.
        representations = {"single": single, "pair": pair, "msa": msa[:num_rows], "msa_first_row": first_row}
        return representations, {"true_msa": sample.true_msa, "bert_mask": sample.bert_mask}

    @hk.transparent
    def _sample(self, batch: Batch, key: PRNGKeyArray | None) -> SampledMsa:
        """The MSA features of this pass: sampled here (multimer) or by the data pipeline (monomer)."""
        if self.multimer:
            assert key is not None, "a multimer's MSA is sampled in the model"
            return sample_msa(key, batch, self.config)
        return SampledMsa(
            msa_feat=batch["msa_feat"],
            msa_mask=batch["msa_mask"],
            true_msa=batch["true_msa"],
            bert_mask=batch["bert_mask"],
            extra_msa_feat=extra_msa_features(batch),
            extra_msa_mask=batch["extra_msa_mask"],
        )

    @hk.transparent
    def _target_features(self, batch: Batch) -> Float[Array, "r f"]:
        features = jax.nn.one_hot(batch["aatype"], 21) if self.multimer else batch["target_feat"]
        return features.astype(self.ctx.compute_dtype)

    @hk.transparent
    def _embed_msa(self, batch: Batch, sample: SampledMsa, previous: Batch) -> Float[Array, "s r c_m"]:
        """Suppl. Alg. 3, lines 1 to 5, and the first row of the previous pass (Alg. 32)."""
        channels, ctx = self.config.msa_channel, self.ctx
        target = Linear(channels, name="preprocess_1d")(self._target_features(batch))
        msa = Linear(channels, name="preprocess_msa")(sample.msa_feat.astype(ctx.compute_dtype))
        msa = (msa + target).astype(ctx.residual_dtype)
        if self.config.recycle_features:
            first_row = LayerNorm(name="prev_msa_first_row_norm")(previous["msa_first_row"])
            msa = msa.at[0].add(first_row.astype(msa.dtype))
        return msa

    @hk.transparent
    def _embed_pair(self, batch: Batch, previous: Batch) -> Float[Array, "i r c_z"]:
        """Suppl. Alg. 3 line 2, Alg. 4 (relative positions) and Alg. 32 (recycling), by rows."""
        c, ctx = self.config, self.ctx
        shard, dtype = ctx.seams.shard, ctx.residual_dtype
        target = self._target_features(batch)
        left = Linear(c.pair_channel, name="left_single")(target).astype(dtype)
        right = Linear(c.pair_channel, name="right_single")(target).astype(dtype)
        pair = shard(left, axis=0)[:, None] + right
        if c.recycle_pos:
            beta = all_atom.pseudo_beta(batch["aatype"], previous["positions"])
            weights, bias = Linear(c.pair_channel, name="prev_pos_linear").parameters((c.prev_pos.num_bins,))
            bins = distance_bin(beta, shard(beta, axis=0), **c.prev_pos)
            pair += (embed_bins(bins, weights) + bias).astype(dtype)
        if c.recycle_features:
            pair += LayerNorm(name="prev_pair_norm")(previous["pair"], dtype)
        return pair + self._relative_positions(batch).astype(dtype)

    @hk.transparent
    def _relative_positions(self, batch: Batch) -> Float[Array, "i r c_z"]:
        """Suppl. Alg. 4 and 5: clipped sequence distance."""
        if self.multimer:
            return self._relative_encoding(batch)
        reach = self.config.max_relative_feature
        weights, bias = Linear(self.config.pair_channel, name="pair_activiations").parameters(
            (2 * reach + 1,)
        )
        i, j = self._rows_and_columns(batch["residue_index"])
        return weights[_clipped(i - j, reach)] + bias

    def _relative_encoding(self, batch: Batch) -> Float[Array, "i r c_z"]:
        """The multimer's: also whether chains, and their sequences, are the same.

        The checkpoints hold the name of this method.
        """
        c, reach = self.config, self.config.max_relative_idx
        num_offset, num_chain = 2 * reach + 1, 0
        if c.use_chain_relative:
            num_offset, num_chain = num_offset + 1, 1 + 2 * c.max_relative_chain + 2
        layer = Linear(c.pair_channel, name="position_activations")
        weights, bias = layer.parameters((num_offset + num_chain,))
        i, j = self._rows_and_columns(batch["residue_index"])
        offset = _clipped(i - j, reach)
        if not c.use_chain_relative:
            return weights[offset] + bias
        offset_w, entity_w, chain_w = jnp.split(weights, [num_offset, num_offset + 1])
        asym_i, asym_j = self._rows_and_columns(batch["asym_id"])
        entity_i, entity_j = self._rows_and_columns(batch["entity_id"])
        sym_i, sym_j = self._rows_and_columns(batch["sym_id"])
        offset = jnp.where(asym_i == asym_j, offset, num_offset - 1)
        same_entity = entity_i == entity_j
        chain = jnp.where(
            same_entity, _clipped(sym_i - sym_j, c.max_relative_chain), 2 * c.max_relative_chain + 1
        )
        return offset_w[offset] + same_entity[..., None] * entity_w + chain_w[chain] + bias

    @hk.transparent
    def _rows_and_columns(self, x: Shaped[Array, " r"]) -> tuple[Shaped[Array, "i 1"], Shaped[Array, " r"]]:
        """This device's rows and all columns, ready to be compared pairwise."""
        return self.ctx.seams.shard(x, axis=0)[:, None], x


def _clipped(difference: Num[Array, "i r"], reach: int) -> Int[Array, "i r"]:
    """Index of a difference clipped to [-reach, reach]."""
    return jnp.clip(difference + reach, 0, 2 * reach).astype(jnp.int32)


def _templates(batch: Batch, *, multimer: bool) -> Batch:
    """Template arrays under the names that `TemplateEmbedding` reads."""
    templates = {
        "aatype": batch["template_aatype"],
        "positions": batch["template_all_atom_positions"],
        "mask": batch["template_all_atom_mask" if multimer else "template_all_atom_masks"],
    }
    if multimer:
        return templates | {"template_mask": jnp.ones(templates["aatype"].shape[0])}
    names = ("template_mask", "template_pseudo_beta", "template_pseudo_beta_mask")
    return templates | {name.replace("template_pseudo", "pseudo"): batch[name] for name in names}
