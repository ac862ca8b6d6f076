"""Search engines behind one small interface: from queries and a shard of a database to hits."""

from parafold.msa.engines.base import Chunk, Domain, Engine, Hit, Row
from parafold.msa.engines.registry import ENGINES, make_engine

__all__ = ["ENGINES", "Chunk", "Domain", "Engine", "Hit", "Row", "make_engine"]
