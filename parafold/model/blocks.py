"""In-place updates by blocks: how the pair stack lives in little more than two pair tensors.

Every update of the Evoformer is local to a row (or a column) of its activation, once a few small or whole
operands are at hand. So it runs as a loop over blocks of rows that reads a block, computes its update and
writes it back where it was. Small inputs run in one piece, and so does training, where reverse mode would
keep a copy of the activation for every block.
"""

from __future__ import annotations

from collections.abc import Callable

import haiku as hk
import jax
from jaxtyping import Array, Float

from parafold.model.context import Context

# Temporaries that one step of a loop may take. On a CPU they should stay in its cache, which makes blocks
# several times faster than one large piece; on an accelerator steps must be large enough to fill it.
_CACHE_BYTES = 16 * 2**20
_ACCELERATOR_BYTES = 256 * 2**20
# An accelerator's steps may grow with the activation that they update, to this share of it.
_SHARE = 1 / 8


def block_rows(x: Array, axis: int, row_bytes: int, ctx: Context) -> int:
    """Rows of `x` along `axis` to update at once, if each needs `row_bytes` of temporaries."""
    length = x.shape[axis]
    if hk.running_init() or ctx.is_training or ctx.dropout:
        return length
    if ctx.block_size:
        return min(ctx.block_size, length)
    budget = _CACHE_BYTES
    if ctx.platform != "cpu":
        budget = max(_ACCELERATOR_BYTES, _SHARE * x.size * x.dtype.itemsize)
    rows = max(1, int(budget // row_bytes))
    if rows >= length:
        return length
    # Equal blocks without a remainder where one of nearly that size exists; buckets divide by 2 to 64.
    return next((r for r in range(rows, rows // 2, -1) if length % r == 0), rows)


def _each_block(carry, length: int, rows: int, step: Callable):
    """Fold `step(carry, start, rows)` over blocks of `rows`, and over a shorter last one."""
    full = length // rows
    if full > 0:
        carry = jax.lax.fori_loop(0, full, lambda i, c: step(c, i * rows, rows), carry)
    if length % rows:
        carry = step(carry, full * rows, length % rows)
    return carry


def _slices(arrays, start, rows: int, axis: int):
    """Blocks of arrays along `axis`, or along their own where an operand is an (array, axis) pair."""
    pairs = [a if isinstance(a, tuple) else (a, axis) for a in arrays]
    return [jax.lax.dynamic_slice_in_dim(a, start, rows, own_axis) for a, own_axis in pairs]


def _whole(arrays):
    return [a[0] if isinstance(a, tuple) else a for a in arrays]


def update(
    x: Float[Array, "..."],
    delta: Callable[..., Float[Array, "..."]],
    *operands: Float[Array, "..."] | tuple[Float[Array, "..."], int],
    axis: int,
    row_bytes: int,
    ctx: Context,
) -> Float[Array, "..."]:
    """`x + delta(x, *operands)` where `delta` is local along `axis`.

    Operands are cut along `axis` like `x`, or along their own axis if given as (array, axis).
    """
    length, rows = x.shape[axis], block_rows(x, axis, row_bytes, ctx)
    if rows >= length:
        return x + delta(x, *_whole(operands)).astype(x.dtype)

    def step(x, start, size):
        part, *parts = _slices((x, *operands), start, size, axis)
        part = part + delta(part, *parts).astype(x.dtype)
        return jax.lax.dynamic_update_slice_in_dim(x, part, start, axis)

    return _each_block(x, length, rows, step)


def fill(
    out: Float[Array, "..."] | None,
    function: Callable[..., Float[Array, "..."]],
    x: Float[Array, "..."],
    *operands: Float[Array, "..."],
    axis: int,
    out_axis: int,
    row_bytes: int,
    ctx: Context,
) -> Float[Array, "..."]:
    """`function(x, *operands)`, local along `axis` of `x`, written over `out` along `out_axis`.

    `out` is a buffer whose contents do not matter; None where the whole result may be made at once.
    """
    length, rows = x.shape[axis], block_rows(x, axis, row_bytes, ctx)
    if out is None or rows >= length:
        return function(x, *operands)

    def step(out, start, size):
        parts = _slices((x, *operands), start, size, axis)
        return jax.lax.dynamic_update_slice_in_dim(out, function(*parts).astype(out.dtype), start, out_axis)

    return _each_block(out, length, rows, step)
