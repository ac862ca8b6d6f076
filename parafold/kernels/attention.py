"""Attention, one signature for every backend. Here: plain JAX, runs everywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attention(
    query: Float[Array, "b q h c"],
    key: Float[Array, "b k h c"],
    value: Float[Array, "b k h d"],
    *,
    mask: Float[Array, "b k"] | None = None,
    bias: Float[Array, "h q k"] | None = None,
) -> Float[Array, "b q h d"]:
    """Scaled dot product attention with a softmax in float32.

    Keys with mask 0 get the logit -1e9, so a query that sees no key averages over all of them, as in the
    published model.
    """
    # The scale goes on the queries: they are smaller than the logits.
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhc,bkhc->bhqk", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :] > 0, logits, -1e9)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
