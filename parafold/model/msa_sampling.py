"""The multimer's MSA sampling, which happens inside the model so that every recycle sees a new sample."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from parafold.model.config import Config
from parafold.model.primitives import masked_mean

NUM_TYPES = 22  # 20 amino acids, unknown, gap
MASK_TOKEN = 22
_EPSILON = 1e-6


class SampledMsa(NamedTuple):
    """Clusters and extra sequences of one sample.

    Attributes:
      msa_feat: features of the cluster centres (suppl. table 1), 49 channels.
      msa_mask: their mask.
      true_msa: residue types of the cluster centres before masking.
      bert_mask: 1 where a residue was masked and is to be predicted.
      extra_msa_feat: features of the extra sequences, 25 channels.
      extra_msa_mask: their mask.
    """

    msa_feat: Float[Array, "s r 49"]
    msa_mask: Float[Array, "s r"]
    true_msa: Int[Array, "s r"]
    bert_mask: Float[Array, "s r"]
    extra_msa_feat: Float[Array, "e r 25"]
    extra_msa_mask: Float[Array, "e r"]


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Uniform numbers that depend on their index only, not on how far the array is padded."""
    if not shape:
        return jax.random.uniform(key, ())
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(shape[0]))
    return jax.vmap(functools.partial(_uniform, shape=shape[1:]))(keys)


def _gumbel(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    return -jnp.log(-jnp.log(_uniform(key, shape) + _EPSILON) + _EPSILON)


def _mask_residues(
    key: PRNGKeyArray,
    msa: Int[Array, "s r"],
    mask: Float[Array, "s r"],
    profile: Float[Array, "r 22"],
    config: Config,
) -> tuple[Int[Array, "s r"], Float[Array, "s r"]]:
    """BERT-style corruption: the MSA with some residues replaced, and where."""
    _, position_key, replacement_key = jax.random.split(key, 3)
    uniform_type = jnp.asarray([0.05] * 20 + [0.0, 0.0], jnp.float32)
    probabilities = (
        config.uniform_prob * uniform_type
        + config.profile_prob * profile
        + config.same_prob * jax.nn.one_hot(msa, NUM_TYPES)
    )
    to_mask_token = 1.0 - config.profile_prob - config.same_prob - config.uniform_prob
    probabilities = jnp.pad(probabilities, ((0, 0), (0, 0), (0, 1)), constant_values=to_mask_token)
    chosen = (_uniform(position_key, msa.shape) < config.replace_fraction) * mask
    logits = jnp.log(probabilities + _EPSILON)
    replacement = jnp.argmax(logits + _gumbel(replacement_key, logits.shape), axis=-1)
    corrupted = jnp.where(chosen > 0, replacement, msa) * mask.astype(msa.dtype)
    return corrupted, chosen.astype(jnp.float32)


def _cluster(
    msa: Int[Array, "s r"],
    mask: Float[Array, "s r"],
    deletions: Float[Array, "s r"],
    extra: Int[Array, "e r"],
    extra_mask: Float[Array, "e r"],
    extra_deletions: Float[Array, "e r"],
) -> tuple[Float[Array, "s r 23"], Float[Array, "s r"]]:
    """Profile and mean deletions of each cluster; every extra sequence joins its most similar centre.

    As published, the soft assignment is weighted by the number of residues that the two sequences share.
    """
    agreeing = jnp.asarray([1.0] * 21 + [0.0, 0.0], jnp.float32)  # gaps and mask tokens never agree
    center = jax.nn.one_hot(msa, 23) * mask[:, :, None]
    member = jax.nn.one_hot(extra, 23) * extra_mask[:, :, None]
    agreement = jnp.einsum("erc,src->se", member, center * agreeing)
    assignment = jax.nn.softmax(1e3 * agreement, axis=0) * jnp.einsum("sr,er->se", mask, extra_mask)
    count = jnp.sum(assignment, axis=-1) + 1.0
    profile = (jnp.einsum("se,erc->src", assignment, member) + center) / count[:, None, None]
    total = jnp.einsum("se,er->sr", assignment, extra_mask * extra_deletions) + deletions
    return profile, total / count[:, None]


def _deletion_value(deletions: Float[Array, "*n"]) -> Float[Array, "*n 1"]:
    return (jnp.arctan(deletions / 3.0) * (2.0 / jnp.pi))[..., None]


def _sequence_features(msa: Int[Array, "s r"], deletions: Float[Array, "s r"]) -> list[Array]:
    has_deletion = jnp.clip(deletions, 0.0, 1.0)[..., None]
    return [jax.nn.one_hot(msa, 23), has_deletion, _deletion_value(deletions)]


def sample_msa(key: PRNGKeyArray, batch: dict[str, Array], config: Config) -> SampledMsa:
    """Choose cluster centres, mask them and summarize the rest (suppl. sections 1.2.6 and 1.2.7).

    Args:
      key: legacy uint32 key of one ensemble element; the published key schedule follows from it.
      batch: `msa`, `msa_mask`, `deletion_matrix`, `cluster_bias_mask` (1 keeps a row among the centres).
      config: `num_msa`, `num_extra_msa` and `masked_msa`.
    """
    _, sample_key, mask_key = jax.random.split(key, 3)
    msa, mask, deletions = batch["msa"], batch["msa_mask"], batch["deletion_matrix"]
    profile = masked_mean(mask[:, :, None], jax.nn.one_hot(msa, NUM_TYPES), axis=0)

    # Gumbel top-k: rows without any residue last, rows of the bias mask first, the others at random.
    score = (jnp.clip(jnp.sum(mask, axis=-1), 0.0, 1.0) - 1.0) * 1e6 + batch["cluster_bias_mask"] * 1e6
    score = score + _gumbel(sample_key, score.shape)
    _, order = jax.lax.sort_key_val(score, jnp.arange(score.shape[0]), is_stable=False)
    order = order[::-1]
    chosen, rest = order[: config.num_msa], order[config.num_msa :]

    true_msa, msa_mask, msa_deletions = msa[chosen], mask[chosen], deletions[chosen]
    extra, extra_mask, extra_deletions = msa[rest], mask[rest], deletions[rest]
    corrupted, replaced = _mask_residues(mask_key, true_msa, msa_mask, profile, config.masked_msa)
    # All left-over rows take part in the clusters, only then is the extra MSA cropped.
    cluster_profile, cluster_deletions = _cluster(
        corrupted, msa_mask, msa_deletions, extra, extra_mask, extra_deletions
    )
    features = [*_sequence_features(corrupted, msa_deletions), cluster_profile]
    features.append(_deletion_value(cluster_deletions))
    kept = slice(config.num_extra_msa)
    return SampledMsa(
        msa_feat=jnp.concatenate(features, axis=-1),
        msa_mask=msa_mask,
        true_msa=true_msa,
        bert_mask=replaced * batch["bert_mask"][chosen] if "bert_mask" in batch else replaced,
        extra_msa_feat=jnp.concatenate(_sequence_features(extra[kept], extra_deletions[kept]), axis=-1),
        extra_msa_mask=extra_mask[kept],
    )
