"""From targets to finished folders: search, features, predictions, ranking; resumable at every stage.

A target that fails is reported and the others finish. What a folder holds already is taken over where its
manifest says that it was made from the same things and the files are intact.
"""

import dataclasses
import hashlib
import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from parafold import __version__, files, output
from parafold.errors import InputError, OutputError, ParafoldError
from parafold.features import Features, build, read_features, write_features, write_features_pickle
from parafold.features.build import Kind
from parafold.homologs import (
    OwnMsa,
    Say,
    Searches,
    TemplateSearch,
    belongs,
    own_msas,
    own_templates,
    read_a3m,
)
from parafold.manifest import Manifest, digest
from parafold.msa import Database
from parafold.msa.search import DEFAULT_CACHE
from parafold.predict import Predictor, timed
from parafold.prediction import RANDOM_NOTE, Prediction, label
from parafold.protein.alignment import Msa, fasta_records, parse_a3m, to_a3m
from parafold.protein.sequence import FoldInput
from parafold.protein.sequence import chain_id as default_chain_id
from parafold.templates import OwnTemplate

_ERROR_LOG = "error.log"


@dataclass(frozen=True)
class Settings:
    """What a run does, beside the targets and the models.

    Attributes:
        output_dir: each target gets a folder of its name in it.
        databases: searched for every chain without an own alignment.
        msa_cache: folder of alignments found before; None for none. The user's cache folder by default.
        msas: own alignments (a3m); each belongs to the chain that is its first sequence.
        templates: own template structures: "FILE.cif:CHAIN" for each chain similar to it,
            "FILE.cif:CHAIN=TARGET" for the chain TARGET, similar or not.
        template_search: where templates are found for chains without own ones; None for no search.
        max_length: longer targets fail.
        pickle: also AlphaFold's features.pkl and result_*.pkl.
        overwrite: take nothing over from an earlier run.
    """

    output_dir: Path
    databases: Sequence[Database] = ()
    msa_cache: Path | None = DEFAULT_CACHE
    msas: Sequence[Path] = ()
    templates: Sequence[str] = ()
    template_search: TemplateSearch | None = None
    seeds: Sequence[int] = (0,)
    max_length: int | None = None
    pickle: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a target ended; `reason` is the one-line error of a failed one."""

    name: str
    status: Literal["folded", "unchanged", "failed"]
    folder: Path
    reason: str = ""
    best: Prediction | None = None
    num_predictions: int = 0


def fold(
    targets: Sequence[FoldInput | Features],
    predictor: Predictor,
    settings: Settings,
    progress: Say = lambda message: None,
) -> Iterator[Outcome]:
    """Fold every target; yields each outcome as soon as it is known.

    Raises:
        InputError: an own alignment or template belongs to no target, or cannot be read.
        OutputError: the output folder cannot be written.
    """
    files.make_folder(settings.output_dir)
    msas = own_msas(settings.msas, targets)
    templates = own_templates(settings.templates, targets)
    # A database that serves to pair chains is searched only where there are chains to pair.
    for_all = [database for database in settings.databases if database.kind != "uniprot"]
    searches = {
        paired: Searches(databases, settings.msa_cache, progress)
        for paired, databases in ((False, for_all), (True, settings.databases))
    }
    work = [
        _Target(target, predictor, settings, msas, templates, searches[_is_paired(target)], progress)
        for target in targets
    ]
    for target in work:
        target.searches.expect(target.unsearched())
    for target in work:
        yield _outcome(target)


def _outcome(work: "_Target") -> Outcome:
    name, folder = work.name, work.folder
    try:
        return work.run()
    except ParafoldError as error:
        reason = str(error).removeprefix(f"{name}: ")
    except Exception as error:
        # A bug must not take the other targets along; its traceback is kept for the report.
        reason = f"internal error, {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        try:
            files.atomic_write(folder / _ERROR_LOG, traceback.format_exc())
            reason += f"; see {folder / _ERROR_LOG}"
        except OutputError:
            pass
    return Outcome(name, "failed", folder, reason)


@dataclass
class _Target:
    """The work on one target."""

    target: FoldInput | Features
    predictor: Predictor
    settings: Settings
    own_msas: Mapping[str, OwnMsa]
    own_templates: Sequence[OwnTemplate]
    searches: Searches
    progress: Say
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.target.name
        self.folder = self.settings.output_dir / self.name
        if isinstance(self.target, Features):
            self.sequences = self.target.sequences
            self.kind: Kind = self.target.kind
        else:
            self.sequences = tuple(chain.sequence for chain in self.target.chains)
            self.kind = self.predictor.kind_for(len(self.target.chains))

    def run(self) -> Outcome:
        """Do what is missing.

        Raises any `ParafoldError`; what was finished before it stays.
        """
        if Path(self.name).name != self.name or self.name in ("", ".", ".."):
            raise InputError(f"the target's name {self.name!r} cannot name a folder; give it another name")
        length = sum(map(len, self.sequences))
        limit = self.settings.max_length
        if limit is not None and length > limit:
            raise InputError(f"{length} residues, --max-length is {limit}; raise it or cut the sequence")
        models = self.predictor.models_for(self.kind)
        for model in models:
            self.predictor.check_fits(self.name, length, model)

        files.make_folder(self.folder)
        self.manifest = Manifest(self.folder, fresh=self.settings.overwrite)
        wanted = [(model, seed) for model in models for seed in self.settings.seeds]
        features_key = self._features_key()
        keys = {
            label(model, seed): digest(
                [__version__, features_key, self.predictor.signature(model, length), seed]
            )
            for model, seed in wanted
        }
        ranking_key = digest([keys, list(keys)])
        # A run asks for every stage before it does anything: a finished folder is not touched.
        todo = {**self._msa_keys(), "features": features_key, **keys, "ranking": ranking_key}
        if self.settings.pickle:
            todo["pickles"] = ranking_key
        if self.manifest.complete and all(self.manifest.is_done(*item) for item in todo.items()):
            best = output.rank([self._read(name) for name in keys])[0]
            return Outcome(self.name, "unchanged", self.folder, best=best, num_predictions=len(keys))

        self.manifest.reopen()
        (self.folder / _ERROR_LOG).unlink(missing_ok=True)
        features = self._features(features_key)
        for model, seed in wanted:
            if not self.manifest.is_done(label(model, seed), keys[label(model, seed)]):
                self._predict(features, model, seed, keys[label(model, seed)])
        predictions = [self._read(name) for name in keys]
        if not self.manifest.is_done("ranking", ranking_key):
            self.progress(f"{self.name}: ranking and plots")
            paths = output.write_ranking(self.folder, predictions, features)
            paths.append(self._write_timings(list(keys)))
            self.manifest.record("ranking", ranking_key, paths, {})
        if self.settings.pickle and not self.manifest.is_done("pickles", ranking_key):
            self._write_pickles(features, list(keys), ranking_key)
        self.manifest.finish(self._summary(predictions))
        best = output.rank(predictions)[0]
        return Outcome(self.name, "folded", self.folder, best=best, num_predictions=len(keys))

    # Alignments and features

    def _features_key(self) -> str:
        if isinstance(self.target, Features):
            return digest(["features", _array_digests(self.target)])
        chains = [[chain.id, chain.sequence, chain.description] for chain in self.target.chains]
        templates = [
            [sequence, template.name, files.sha256_file(template.path)]
            for sequence, found in self._templates_by_sequence().items()
            for template in found
        ]
        search = self.settings.template_search
        identity = search.identity(self.kind) if search else None
        return digest([__version__, self.kind, chains, self._msa_keys(), templates, identity])

    def _msa_key(self, sequence: str) -> str:
        if sequence in self.own_msas:
            return digest(["own", self.own_msas[sequence].digest])
        return digest([sequence, self.searches.identities])

    def unsearched(self) -> list[str]:
        """The chain sequences whose alignments must still be searched for."""
        manifest = Manifest(self.folder, fresh=self.settings.overwrite)
        stages = (
            {}
            if isinstance(self.target, Features)
            else {s: f"msas/{self._first_chain(s)}" for s in self.sequences}
        )
        return [
            sequence
            for sequence, stage in stages.items()
            if sequence not in self.own_msas and not manifest.is_done(stage, self._msa_key(sequence))
        ]

    def _msa_keys(self) -> dict[str, str]:
        """Stage -> key of each chain's alignments; features that came as a file have none."""
        if isinstance(self.target, Features):
            return {}
        return {f"msas/{self._first_chain(s)}": self._msa_key(s) for s in _unique(self.sequences)}

    def _first_chain(self, sequence: str) -> str:
        assert isinstance(self.target, FoldInput)
        return next(chain.id for chain in self.target.chains if chain.sequence == sequence)

    def _features(self, key: str) -> Features:
        path = self.folder / "features.safetensors"
        done = self.manifest.is_done("features", key)
        if done and all(self.manifest.is_done(*item) for item in self._msa_keys().items()):
            return read_features(path)
        seconds: dict[str, float] = {}
        names: dict[str, list[str]] = {}
        if isinstance(self.target, Features):
            features = self.target
        else:
            msas = {sequence: self._msas(sequence, seconds) for sequence in _unique(self.sequences)}
            if done:
                return read_features(path)
            with timed(seconds, "templates"):
                templates = self._templates(msas)
            self.progress(f"{self.name}: features")
            with timed(seconds, "features"):
                features = build(self.target, msas, templates, self.kind, self.searches.for_pairing)
            names = {self._first_chain(s): _names(found) for s, found in templates.items()}
        write_features(path, features)
        self.manifest.record("features", key, [path], {"seconds": seconds, "templates": names})
        return features

    def _msas(self, sequence: str, seconds: dict[str, float]) -> dict[str, Msa]:
        """Database name -> alignment of one chain: the user's own, an earlier run's, or found now."""
        assert isinstance(self.target, FoldInput)
        chain_id = self._first_chain(sequence)
        stage, key = f"msas/{chain_id}", self._msa_key(sequence)
        folder = self._msa_folder(sequence)
        if self.manifest.is_done(stage, key):
            seconds[stage] = self.manifest.details(stage)["seconds"]
            names = self.manifest.details(stage)["databases"]
            return {name: read_a3m(folder / f"{name}.a3m") for name in names}
        with timed(seconds, stage):
            texts = self._found(sequence)
        paths = []
        for name, text in texts.items():
            paths.append(folder / f"{name}.a3m")
            files.atomic_write(paths[-1], text)
        found = {name: parse_a3m(text, name) for name, text in texts.items()}
        rows = {name: len(msa) for name, msa in found.items()}
        details = {"seconds": seconds[stage], "databases": list(found), "rows": rows}
        self.manifest.record(stage, key, paths, details)
        return found

    def _msa_folder(self, sequence: str) -> Path:
        assert isinstance(self.target, FoldInput)
        return self.folder / "msas" / (self._first_chain(sequence) if self.target.is_complex else "")

    def _found(self, sequence: str) -> dict[str, str]:
        """Database name -> alignment as a3m."""
        if sequence in self.own_msas:
            return {"own": to_a3m(self.own_msas[sequence].msa)}
        if not self.searches.databases:
            return {"query": to_a3m(Msa.query_only(sequence))}
        return {alignment.database: alignment.a3m() for alignment in self.searches.take(sequence)}

    def _templates_by_sequence(self) -> dict[str, list[OwnTemplate]]:
        """Chain sequence -> the user's templates for it, for the chains that have any."""
        assert isinstance(self.target, FoldInput)
        found: dict[str, list[OwnTemplate]] = {}
        for template in self.own_templates:
            for chain in self.target.chains:
                mine = found.setdefault(chain.sequence, [])
                if template not in mine and belongs(template, chain):
                    mine.append(template)
        return {sequence: templates for sequence, templates in found.items() if templates}

    def _templates(self, msas: Mapping[str, Mapping[str, Msa]]) -> dict[str, dict[str, np.ndarray]]:
        """Chain sequence -> features of its templates: the user's own, otherwise those that are found."""
        own = self._templates_by_sequence()
        for sequence, templates in own.items():
            for template in templates:
                self.progress(
                    f"{self.name}: {template.path.name} chain {template.name} is a template"
                    f" for chain {self._first_chain(sequence)}"
                )
        features = {
            sequence: _joined([template.features(sequence) for template in templates])
            for sequence, templates in own.items()
        }
        if self.settings.template_search:
            for sequence, found in msas.items():
                if sequence not in own:
                    features[sequence] = self._found_templates(sequence, list(found))
        return features

    def _found_templates(self, sequence: str, databases: Sequence[str]) -> dict[str, np.ndarray]:
        search = self.settings.template_search
        assert search is not None
        chain = self._first_chain(sequence)
        self.progress(f"{self.name}: searching templates for chain {chain}")
        # AlphaFold looks for templates with the alignment of uniref90, which stands first.
        path = self._msa_folder(sequence) / f"{databases[0]}.a3m"
        rows = [row for _, _, row in fasta_records(path.read_text(), str(path))]
        result = search.find(sequence, rows, self.kind)
        for message in (*result.errors, *result.warnings):
            self.progress(f"{self.name}: {message}")
        self.progress(f"{self.name}: {len(_names(result.features))} templates for chain {chain}")
        return result.features

    # Predictions

    def _predict(self, features: Features, model: str, seed: int, key: str) -> None:
        prediction = self.predictor.predict(features, model, seed)
        prediction = dataclasses.replace(prediction, chain_ids=self._chain_ids_of(features))
        paths = output.write_prediction(self.folder, prediction)
        identity = self.predictor.identity(model)
        details = {
            "model": model,
            "seed": seed,
            "parameters": identity.text,
            "random_parameters": identity.is_random,
            "num_recycles": prediction.num_recycles,
            "config": self.predictor.config(model).to_dict(),
            "ranking_confidence": prediction.ranking_confidence,
            "seconds": dict(prediction.seconds),
        }
        self.manifest.record(prediction.label, key, paths, details)

    def _chain_ids_of(self, features: Features) -> tuple[str, ...]:
        """The user's chain names in the order of the features, which groups equal chains."""
        if isinstance(self.target, Features):
            return tuple(default_chain_id(i) for i in range(len(features.sequences)))
        waiting = list(self.target.chains)
        ids = []
        for sequence in features.sequences:
            chain = next(chain for chain in waiting if chain.sequence == sequence)
            waiting.remove(chain)
            ids.append(chain.id)
        return tuple(ids)

    def _read(self, name: str) -> Prediction:
        return output.read_result(self.folder / f"result_{name}.safetensors", with_outputs=False)

    # What a finished folder holds beside them

    def _write_timings(self, names: Sequence[str]) -> Path:
        """Seconds of the steps under AlphaFold's names."""
        timings = dict(self.manifest.details("features")["seconds"])
        for name in names:
            seconds = self.manifest.details(name)["seconds"]
            timings[f"process_features_{name}"] = seconds["features"]
            timings[f"predict_and_compile_{name}"] = round(seconds["compile"] + seconds["predict"], 3)
            timings[f"compile_{name}"] = seconds["compile"]
        path = self.folder / "timings.json"
        files.atomic_write(path, json.dumps(timings, indent=4) + "\n")
        return path

    def _write_pickles(self, features: Features, names: Sequence[str], key: str) -> None:
        paths = [self.folder / "features.pkl"]
        write_features_pickle(paths[0], features)
        for name in names:
            result = output.read_result(self.folder / f"result_{name}.safetensors")
            paths.append(output.write_pickle(self.folder, result))
        self.manifest.record("pickles", key, paths, {})

    def _summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        warning = {"warning": RANDOM_NOTE} if any(p.is_random for p in predictions) else {}
        best = output.rank(predictions)[0]
        return {
            "target": self.name,
            **warning,
            "chains": [
                {"id": chain_id, "sequence": sequence}
                for chain_id, sequence in zip(best.chain_ids, best.sequences, strict=True)
            ],
            "databases": self.searches.identities,
            "order": [prediction.label for prediction in output.rank(predictions)],
            "seeds": list(self.settings.seeds),
            "parameters": {prediction.model: prediction.weights for prediction in predictions},
        }


def _names(templates: Mapping[str, np.ndarray]) -> list[str]:
    return [name.decode() for name in templates["template_domain_names"]]


def _joined(templates: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([template[name] for template in templates]) for name in templates[0]}


def _array_digests(features: Features) -> dict[str, str]:
    return {
        name: hashlib.sha256(repr(value.tolist()).encode()).hexdigest()
        if value.dtype == object
        else hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in sorted(features.arrays.items())
    }


def _is_paired(target: FoldInput | Features) -> bool:
    return isinstance(target, FoldInput) and len({chain.sequence for chain in target.chains}) > 1


def _unique(sequences: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(sequences))
