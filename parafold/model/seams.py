"""The seams: the few places of the model where a sharded axis turns.

The model is written for one device. Along the Evoformer an activation may be sharded along one of its two
leading axes; a strategy subclasses `Seams` and is passed to the model. Here every seam is the identity, and
this is the model that a reader reads.

Which axis is sharded where (0 = rows, 1 = columns):

| place                                              | MSA representation | pair representation |
|----------------------------------------------------|--------------------|---------------------|
| row attention with pair bias                       | 0                  | 0, bias gathered    |
| column attention, MSA transition                   | 1                  | 0                   |
| outer product mean                                 | 1, right gathered  | 0                   |
| triangle multiplication (outgoing)                 | -                  | 0, right gathered   |
| triangle multiplication (incoming)                 | -                  | 1, right gathered   |
| triangle attention (starting node)                 | -                  | 0, bias gathered    |
| triangle attention (ending node), pair transition  | -                  | 1, bias gathered    |
| between blocks                                     | 0 (1 if the outer product mean comes first) | 0 |

Masks, the single representation and the structure module are whole on every device.
"""

from __future__ import annotations

from jaxtyping import Array, Shaped


class Seams:
    """Identity seams: one device holds everything."""

    def turn(self, x: Shaped[Array, "..."], *, source: int, target: int) -> Shaped[Array, "..."]:
        """Go from `x` sharded along axis `source` to `x` sharded along axis `target`."""
        return x

    def gather(self, x: Shaped[Array, "..."], *, axis: int) -> Shaped[Array, "..."]:
        """Make `x`, sharded along `axis`, whole on every device."""
        return x

    def shard(self, x: Shaped[Array, "..."], *, axis: int) -> Shaped[Array, "..."]:
        """Keep this device's part of `x`, whole so far, along `axis`."""
        return x
