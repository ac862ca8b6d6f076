"""Predictor: features in, structures with confidences out, one compiled program for all targets of a size."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parafold import confidence, files, weights
from parafold.errors import FeaturesError, InputError, OutOfMemoryError, WeightsError
from parafold.features import Features, bucket, model_inputs
from parafold.features.build import Kind
from parafold.manifest import digest
from parafold.model.alphafold import AlphaFold
from parafold.model.config import PRESETS
from parafold.model.params import load_npz, random_params
from parafold.prediction import Prediction
from parafold.protein.residue import RESTYPE_ORDER, RESTYPES
from parafold.protein.sequence import chain_id

PRECISIONS = ("float32", "mixed", "bfloat16")
DEMO = {"monomer": "demo", "multimer": "demo_multimer"}
# Which family of a folder's parameters is used, best first.
PRESETS_OF = {
    "monomer": ("monomer_ptm", "monomer"),
    "multimer": ("multimer", "multimer_v2", "multimer_v1"),
}
_PARAMETER_SEED = 0
_HEADS = ("distogram", "experimentally_resolved", "masked_msa", "predicted_lddt", "predicted_aligned_error")
_GIB = 2**30
_MIN_MSA_ROWS = 512


@dataclass(frozen=True)
class Identity:
    """Which parameters a model uses: `text` for people, `digest` for the manifest."""

    text: str
    digest: str
    is_random: bool


@dataclass
class Predictor:
    """AlphaFold 2 inference for many targets.

    A target is padded to the next multiple of `bucket_multiple` residues. A program is compiled for each
    (model configuration, bucket) and kept; parameters are its arguments, so models with equal configurations
    share it. Programs also stay in JAX's persistent cache in the user's cache folder.

    Args:
        model: a published model name, several, or None: the small `demo` model where there are no weights,
            all models found where `weights` is a folder, the file's model where it is a file.
        weights: `params_NAME.npz`, a folder of such files, or None for seeded random parameters.
        overrides: published dotted configuration names and their values.
        num_recycles, num_ensemble, precision: shorthands for the overrides of that meaning.
        compilation_cache: folder of JAX's persistent cache; None is the user's cache folder, False is none.
        progress: called with one line at each step.

    Raises:
        InputError: an unknown model, an override that does not fit.
        WeightsError: weights are missing or do not fit.
    """

    model: str | Sequence[str] | None = None
    weights: str | os.PathLike | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    num_recycles: int | None = None
    num_ensemble: int | None = None
    precision: str | None = None
    bucket_multiple: int = 64
    compilation_cache: str | os.PathLike | bool | None = None
    progress: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        named = (self.model,) if isinstance(self.model, str) else self.model
        self.models = None if named is None else tuple(named)
        self._files = None if self.weights is None else weights.find(os.fspath(self.weights))
        self._networks: dict[str, AlphaFold] = {}
        self._identities: dict[str, Identity] = {}
        self._parameters: dict[str, Any] = {}
        self._programs: dict[str, Any] = {}
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}' is unknown; use {', '.join(PRECISIONS)}")
        if self.num_recycles is not None and self.num_recycles < 0:
            raise InputError(f"number of recycles {self.num_recycles} is negative; use 0 or more")
        if self.bucket_multiple < 1:
            raise InputError(f"bucket multiple {self.bucket_multiple} is not positive; use 64")
        for model in self.models or ():
            self.network(model)
        if self.compilation_cache is not False:
            chosen = self.compilation_cache
            use_compilation_cache(default_compilation_cache() if chosen in (None, True) else Path(chosen))

    def models_for(self, kind: Kind) -> tuple[str, ...]:
        """The models that a target of this kind ("monomer" or "multimer") is given to.

        Raises `InputError` or `WeightsError` where there is none.
        """
        if self.models is not None:
            fitting = tuple(model for model in self.models if _kind(model) == kind)
            if not fitting:
                advice = PRESETS[PRESETS_OF[kind][0]][0]
                raise InputError(f"{', '.join(self.models)} cannot fold a {kind}; add {advice} to the models")
            return fitting
        if self._files is None:
            return (DEMO[kind],)
        for preset in PRESETS_OF[kind]:
            found = tuple(model for model in PRESETS[preset] if model in self._files)
            if found:
                return found
        raise WeightsError(
            f"{self.weights}: no parameters for a {kind}; fetch them with 'parafold weights fetch',"
            " or say with --models what these are"
        )

    def kind_for(self, num_chains: int) -> Kind:
        """Which features a target of so many chains needs: a multimer model takes single chains too."""
        only_multimers = self.models is not None and all(_kind(model) == "multimer" for model in self.models)
        return "multimer" if num_chains > 1 or only_multimers else "monomer"

    def network(self, model: str) -> AlphaFold:
        """The model with this predictor's overrides."""
        if model not in self._networks:
            overrides = dict(self.overrides)
            if _kind(model) == "monomer":
                # A monomer's features are sampled for each pass, so these stand in two places and must agree.
                for name in ("num_recycle", "resample_msa_in_recycling"):
                    for here, there in (("model", "data.common"), ("data.common", "model")):
                        if f"{here}.{name}" in self.overrides:
                            overrides.setdefault(f"{there}.{name}", self.overrides[f"{here}.{name}"])
            self._networks[model] = AlphaFold(model, {**self._shorthands(model), **overrides})
        return self._networks[model]

    def config(self, model: str) -> Any:
        """The model's configuration (`ConfigDict`) with this predictor's overrides."""
        return self.network(model).config

    def _shorthands(self, model: str) -> dict[str, Any]:
        monomer = _kind(model) == "monomer"
        wanted = {
            "model.num_recycle": self.num_recycles,
            "data.common.num_recycle": self.num_recycles if monomer else None,
            "data.eval.num_ensemble" if monomer else "model.num_ensemble_eval": self.num_ensemble,
            "model.global_config.precision": self.precision,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def identity(self, model: str) -> Identity:
        """Which parameters the model uses, without loading them.

        Raises `WeightsError` where the file is missing.
        """
        if model not in self._identities:
            path = self._weights_file(model)
            if path is None:
                text = f"random parameters (seed {_PARAMETER_SEED})"
                identity = Identity(text, digest({"random": _PARAMETER_SEED}), is_random=True)
            else:
                sha256 = files.sha256_file(path)
                identity = Identity(f"{path.name} (sha256 {sha256})", sha256, is_random=False)
            self._identities[model] = identity
        return self._identities[model]

    def parameters(self, model: str) -> Any:
        """The model's parameters {module path: {name: array}} on the device, loaded once.

        Raises `WeightsError` where a file is missing or does not fit the configuration.
        """
        if model not in self._parameters:
            network = self.network(model)
            path = self._weights_file(model)
            values = random_params(network, _PARAMETER_SEED) if path is None else load_npz(path, network)
            self._parameters[model] = jax.device_put(values)
        return self._parameters[model]

    def signature(self, model: str, length: int) -> dict[str, Any]:
        """What decides a prediction besides features and seed; JSON-serializable."""
        return {
            "model": model,
            "config": self.config(model).to_dict(),
            "parameters": self.identity(model).digest,
            "padded_length": bucket(length, self.bucket_multiple),
        }

    def predict(self, features: Features, model: str | None = None, seed: int = 0) -> Prediction:
        """Fold one target with one model.

        Args:
            features: raw features of the target.
            model: which of the predictor's models; None is the first that fits the target.
            seed: of MSA sampling and masking.

        Raises:
            FeaturesError: the features do not fit the model.
            OutOfMemoryError: the target does not fit into the device's memory.
        """
        model = self.models_for(features.kind)[0] if model is None else model
        if _kind(model) != features.kind:
            raise FeaturesError(
                f"{features.name}: features of a {features.kind} do not fit {model};"
                f" use {PRESETS[PRESETS_OF[features.kind][0]][0]}"
            )
        length = sum(map(len, features.sequences))
        self.check_fits(features.name, length, model)
        seconds: dict[str, float] = {}
        config = self.config(model)
        parameters = self.parameters(model)

        with timed(seconds, "features"):
            batch = self._padded_inputs(features, config, seed, length)
        try:
            with timed(seconds, "compile"):
                program = self._program(model, parameters, batch)
                _check_program(program)
            self._say(f"{features.name}: folding with {model}, seed {seed}")
            with timed(seconds, "predict"):
                outputs = jax.device_get(program(parameters, jax.random.PRNGKey(seed), batch))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise _out_of_memory(features.name, length, model) from error
        return self._prediction(features, model, seed, outputs, seconds)

    def predict_all(self, features: Features, seeds: Sequence[int] = (0,)) -> Iterator[Prediction]:
        """Fold one target with every fitting model and every seed."""
        for model in self.models_for(features.kind):
            for seed in seeds:
                yield self.predict(features, model, seed)

    def check_fits(self, name: str, length: int, model: str) -> None:
        """Refuse early what cannot fit: three pair tensors are less than any block of the model needs.

        Raises `OutOfMemoryError`.
        """
        config = self.config(model)
        channels = config.model.embeddings_and_evoformer.pair_channel
        width = 2 if config.model.global_config.precision == "bfloat16" else 4
        needed = 3 * channels * width * bucket(length, self.bucket_multiple) ** 2
        if needed > device_memory():
            raise _out_of_memory(name, length, model, needed)

    def _say(self, message: str) -> None:
        if self.progress is not None:
            self.progress(message)

    def _weights_file(self, model: str) -> Path | None:
        """The model's parameter file; None stands for random parameters."""
        if self._files is None:
            return None
        if model in self._files:
            return self._files[model]
        if len(self._files) == 1 and Path(os.fspath(self.weights or "")).is_file():
            return next(iter(self._files.values()))
        raise WeightsError(
            f"{self.weights}: no params_{model}.npz in it, only {', '.join(self._files)};"
            " choose among these with --models, or fetch it with 'parafold weights fetch'"
        )

    def _padded_inputs(
        self, features: Features, config: Any, seed: int, length: int
    ) -> dict[str, np.ndarray]:
        num_msa = None
        if features.kind == "multimer":
            # A multimer's alignment enters whole; its depth is rounded up so that targets share programs.
            num_msa = 1 << (max(_MIN_MSA_ROWS, len(features.arrays["msa"])) - 1).bit_length()
        return model_inputs(
            features, config, seed, length=bucket(length, self.bucket_multiple), num_msa=num_msa
        )

    def _program(self, model: str, parameters: Any, batch: Mapping[str, np.ndarray]) -> Any:
        """The compiled program for this configuration and these shapes."""
        config = self.config(model)
        shapes = {name: (value.shape, str(value.dtype)) for name, value in batch.items()}
        key = digest([config.model.to_dict(), shapes])
        if key not in self._programs:
            self._say(f"compiling {model} for {batch['aatype'].shape[-1]} residues")
            network = self.network(model)

            def fold(params, rng, inputs):
                return _kept(network.apply(params, inputs, rng=rng))

            rng = jax.random.PRNGKey(0)
            self._programs[key] = jax.jit(fold).lower(parameters, rng, batch).compile()
        return self._programs[key]

    def _prediction(
        self,
        features: Features,
        model: str,
        seed: int,
        outputs: dict[str, np.ndarray],
        seconds: dict[str, float],
    ) -> Prediction:
        multimer = features.kind == "multimer"
        lengths = [len(sequence) for sequence in features.sequences]
        length = sum(lengths)
        outputs = {key: _cropped(key, np.asarray(value), length) for key, value in outputs.items()}
        chain_index = np.repeat(np.arange(len(lengths)), lengths)
        found = confidence.metrics(
            outputs["predicted_lddt/logits"],
            outputs.get("predicted_aligned_error/logits"),
            outputs.get("predicted_aligned_error/breaks"),
            chain_index,
            multimer=multimer,
        )
        residue_index = np.concatenate([np.arange(1, n + 1) for n in lengths])
        return Prediction(
            name=features.name,
            model=model,
            seed=seed,
            aatype=_aatype(features.sequences),
            residue_index=residue_index.astype(np.int32),
            chain_index=chain_index.astype(np.int32),
            chain_ids=tuple(chain_id(i) for i in range(len(lengths))),
            atom_positions=outputs.pop("structure_module/final_atom_positions"),
            atom_mask=outputs.pop("structure_module/final_atom_mask"),
            plddt=found["plddt"],
            pae=found.get("predicted_aligned_error"),
            max_pae=found.get("max_predicted_aligned_error"),
            ptm=found.get("ptm"),
            iptm=found.get("iptm"),
            ranking_confidence=found["ranking_confidence"],
            num_recycles=int(outputs.pop("num_recycles", self.config(model).model.num_recycle)),
            weights=self.identity(model).text,
            is_random=self.identity(model).is_random,
            seconds=seconds,
            outputs=outputs,
        )


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note the wall time of a block under `step`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = round(time.perf_counter() - start, 3)


def default_compilation_cache() -> Path:
    """The folder of compiled programs: `parafold/jax` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "parafold" / "jax"


def use_compilation_cache(folder: Path) -> bool:
    """Let JAX keep compiled programs in `folder`, unless the user has already told JAX where.

    Returns:
        Whether a cache is in use. One that cannot be written is no error: compiling again costs time only.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    if not os.access(folder, os.W_OK):
        return False
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return True


def device_memory() -> int:
    """Bytes that the first device can hold: the accelerator's limit, or the machine's memory on a CPU."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _kind(model: str) -> Kind:
    return "multimer" if "multimer" in model else "monomer"


def _aatype(sequences: Sequence[str]) -> np.ndarray:
    unknown = len(RESTYPES)
    return np.array([RESTYPE_ORDER.get(letter, unknown) for letter in "".join(sequences)], np.int32)


def _kept(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The flat part of the output tree that leaves the device; XLA drops what only the rest needs."""
    kept = {f"{head}/{key}": value for head in _HEADS for key, value in outputs.get(head, {}).items()}
    kept.pop("predicted_aligned_error/asym_id", None)
    for key in ("final_atom_positions", "final_atom_mask"):
        kept[f"structure_module/{key}"] = outputs["structure_module"][key]
    if "num_recycles" in outputs:
        kept["num_recycles"] = outputs["num_recycles"]
    return kept


def _cropped(key: str, value: np.ndarray, length: int) -> np.ndarray:
    """Without the residues that only fill the bucket, in float32."""
    residue_axes = {
        "distogram/logits": (0, 1),
        "predicted_aligned_error/logits": (0, 1),
        "masked_msa/logits": (1,),
    }
    if value.ndim == 0 or key.endswith(("breaks", "bin_edges")):
        return value
    for axis in residue_axes.get(key, (0,)):
        value = np.take(value, np.arange(length), axis=axis)
    return value.astype(np.float32)


def _check_program(program: Any) -> None:
    """Raise `MemoryError` where the compiled program needs more than the device has."""
    analysis = program.memory_analysis()
    if analysis is None:
        return
    needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    if needed > device_memory():
        raise MemoryError(needed)


def _out_of_memory(name: str, length: int, model: str, needed: int | None = None) -> OutOfMemoryError:
    size = f"more than {needed / _GIB:.0f} GiB" if needed else "more memory"
    return OutOfMemoryError(
        f"{name}: {length} residues need {size} with {model}, the device has"
        f" {device_memory() / _GIB:.0f} GiB; fold its domains"
        " one by one, try --precision bfloat16, or use a larger device"
    )
