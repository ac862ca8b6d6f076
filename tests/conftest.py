"""Settings for the whole suite. They must stand before the first import of JAX and of parafold."""

import os

# Compiling dominates these small models: no LLVM optimization cuts it to a third and moves results by 1e-6.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# The compiler for GPUs that are not there (tests/bench) must not look for their libraries.
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")

import signal

import jaxtyping
import pytest

# Tests interrupt programs; one that is started from a script's background ignores that, and so would they.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every call in this process checks its arguments and its result against the annotated shapes and types.
jaxtyping.install_import_hook("parafold", "checking.checked")


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory):
    """One folder of compiled programs for the whole suite and what it starts, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def unchecked(monkeypatch):
    """For tests of what parafold itself says to arguments that contradict its annotations."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
