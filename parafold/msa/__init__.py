"""From a sequence to its multiple sequence alignments."""

from parafold.msa.database import Database, databases_in, demo_databases
from parafold.msa.searcher import Searcher, search

__all__ = ["Database", "Searcher", "databases_in", "demo_databases", "search"]
