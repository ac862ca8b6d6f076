"""Linear layers, layer norm, dropout and the layer stack: what every block of the model is made of.

Parameter names are those of the published checkpoints (`weights`, `bias`, `scale`, `offset`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Carry = TypeVar("Carry")

# Standard deviation of a unit normal truncated to [-2, 2]; dividing by it restores the wanted variance.
_TRUNCATED_NORMAL_STDDEV = 0.87962566103423978


def initializer(name: str, input_shape: Sequence[int]) -> hk.initializers.Initializer:
    """LeCun ("linear"), He ("relu") or zero ("zeros") initialization over the contracted dimensions."""
    if name == "zeros":
        return hk.initializers.Constant(0.0)
    scale = {"linear": 1.0, "relu": 2.0}[name] / max(1, math.prod(input_shape))
    return hk.initializers.TruncatedNormal(math.sqrt(scale) / _TRUNCATED_NORMAL_STDDEV)


def final_init(zero_init: bool) -> str:
    """Initializer of a block's last layer: zero makes every residual update start as the identity."""
    return "zeros" if zero_init else "linear"


class Linear(hk.Module):
    """Linear map of the last `num_input_dims` dimensions to `num_output`, computed in the input's dtype."""

    def __init__(
        self,
        num_output: int | Sequence[int],
        *,
        init: str = "linear",
        use_bias: bool = True,
        bias_init: float = 0.0,
        num_input_dims: int = 1,
        name: str,
    ):
        super().__init__(name=name)
        self.output_shape = (num_output,) if isinstance(num_output, int) else tuple(num_output)
        self.init = init
        self.use_bias = use_bias
        self.bias_init = bias_init
        self.num_input_dims = num_input_dims

    def parameters(self, input_shape: Sequence[int]) -> tuple[Array, Array | None]:
        """Weights and bias (None: the layer has none) for inputs of this shape."""
        weights = hk.get_parameter(
            "weights", (*input_shape, *self.output_shape), jnp.float32, initializer(self.init, input_shape)
        )
        if not self.use_bias:
            return weights, None
        constant = hk.initializers.Constant(self.bias_init)
        return weights, hk.get_parameter("bias", self.output_shape, jnp.float32, constant)

    def __call__(self, x: Float[Array, "..."], axis: int | None = None) -> Float[Array, "..."]:
        """Contract the last dimensions, or the one dimension `axis`; the outputs are the last either way."""
        first = x.ndim - self.num_input_dims
        contracted = tuple(range(first, x.ndim)) if axis is None else (axis,)
        weights, bias = self.parameters([x.shape[a] for a in contracted])
        dimensions = ((contracted, tuple(range(len(contracted)))), ((), ()))
        out = jax.lax.dot_general(x, weights.astype(x.dtype), dimensions)
        return out if bias is None else out + bias.astype(x.dtype)


class LayerNorm(hk.Module):
    """Layer norm over one dimension: statistics in float32, the result in `dtype` (default: as `x`)."""

    def __init__(self, *, axis: int = -1, fast_variance: bool = False, name: str):
        super().__init__(name=name)
        self.axis = axis
        self.fast_variance = fast_variance

    def __call__(self, x: Float[Array, "*n"], dtype: DTypeLike | None = None) -> Float[Array, "*n"]:
        axis = self.axis % x.ndim
        channels = x.shape[axis]
        trailing = (1,) * (x.ndim - axis - 1)
        scale = hk.get_parameter("scale", (channels,), jnp.float32, hk.initializers.Constant(1.0))
        offset = hk.get_parameter("offset", (channels,), jnp.float32, hk.initializers.Constant(0.0))
        y = x.astype(jnp.float32)
        mean = jnp.mean(y, axis=axis, keepdims=True)
        if self.fast_variance:
            variance = jnp.mean(jnp.square(y), axis=axis, keepdims=True) - jnp.square(mean)
        else:
            variance = jnp.mean(jnp.square(y - mean), axis=axis, keepdims=True)
        scale, offset = scale.reshape(channels, *trailing), offset.reshape(channels, *trailing)
        out = (y - mean) * (jax.lax.rsqrt(variance + 1e-5) * scale) + offset
        return out.astype(dtype or x.dtype)


def dropout(x: Float[Array, "..."], rate: float, *, shared_axis: int | None = None) -> Float[Array, "..."]:
    """Dropout with the next Haiku key; with `shared_axis` one mask serves all positions of that axis."""
    if rate == 0.0:
        return x
    shape = [1 if axis == shared_axis else size for axis, size in enumerate(x.shape)]
    keep = jax.random.bernoulli(hk.next_rng_key(), 1.0 - rate, tuple(shape))
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def masked_mean(
    mask: Float[Array, "..."], value: Float[Array, "..."], axis=None, eps: float = 1e-10
) -> Float[Array, "..."]:
    """Mean of `value` where `mask` is set; a dimension of size 1 in `mask` counts in full."""
    axes = range(value.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = tuple(a % value.ndim for a in axes)
    repeats = math.prod(value.shape[a] for a in axes if mask.shape[a] == 1)
    return jnp.sum(mask * value, axis=axes) / (jnp.sum(mask, axis=axes) * repeats + eps)


def layer_stack(
    block: Callable[[Carry], Carry], carry: Carry, *, num_layers: int, name: str, remat: bool = False
) -> Carry:
    """Apply `block` `num_layers` times in one `lax.scan`, each time with its own parameters.

    The block's parameters live under `name`, stacked along a new first axis as in the published
    checkpoints. `remat` recomputes each layer in the backward pass.
    """
    layer = hk.transform(block)

    def init(rng, carry):
        return jax.vmap(lambda key: layer.init(key, carry))(jax.random.split(rng, num_layers))

    rng = hk.maybe_next_rng_key()
    params = hk.lift(init, name=name)(rng, carry)
    if hk.running_init():
        first = jax.tree.map(lambda p: p[0], params)
        return layer.apply(first, rng, carry)
    keys = None if rng is None else jax.random.split(rng, num_layers)

    def step(carry, xs):
        layer_params, key = xs
        return layer.apply(layer_params, key, carry), None

    return jax.lax.scan(jax.checkpoint(step) if remat else step, carry, (params, keys))[0]
