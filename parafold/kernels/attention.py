"""Attention, one signature for every backend. Here: plain JAX, runs everywhere."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def attention(
    query: Float[Array, "b q h c"],
    key: Float[Array, "b k h c"],
    value: Float[Array, "b k h d"],
    *,
    mask: Float[Array, "b k"] | None = None,
    bias: Float[Array, "h k q"] | None = None,
) -> Float[Array, "b q h d"]:
    """Scaled dot product attention with a softmax in float32; note that `bias` has its keys first.

    Keys with mask 0 get the logit -1e9, so a query that sees no key averages over all of them, as in the
    published model.
    """
    # The scale goes on the queries: they are smaller than the logits.
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    # Keys before queries: reductions over keys run along whole vectors of queries, and both products come out
    # in the order in which the next step reads them. Measured on CPUs: half the time of the usual order.
    logits = jnp.einsum("bkhc,bqhc->bhkq", key, query, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(mask[:, None, :, None] > 0, logits, -1e9)
    weights = jnp.exp(logits - jnp.max(logits, axis=-2, keepdims=True))
    total = jnp.sum(weights, axis=-2)
    # The division comes after the sum over keys: there are fewer values than weights.
    heads = jnp.einsum(
        "bkhd,bhkq->bhdq", value, weights.astype(value.dtype), preferred_element_type=jnp.float32
    )
    heads = heads / total[:, :, None, :]
    return jnp.einsum("bhdq->bqhd", heads).astype(value.dtype)
