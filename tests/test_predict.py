"""Predictor, run for real on the smallest model and an example protein."""

import numpy as np
import pytest
import small

from parafold import predict
from parafold.errors import FeaturesError, InputError, OutOfMemoryError, WeightsError
from parafold.features import Features, build
from parafold.msa import demo_databases, search
from parafold.predict import Predictor
from parafold.protein.sequence import Chain, FoldInput, read_inputs


def predictor(model=None, **options) -> Predictor:
    overrides = options.pop("overrides", small.MONOMER)
    return Predictor(model, **{"num_recycles": 0, "overrides": overrides, **options})


def features_of(example: str) -> Features:
    target = read_inputs(small.EXAMPLES / f"{example}.fasta")[0]
    found = search({sequence: sequence for sequence in target.unique_sequences}, demo_databases(), cache=None)
    return build(target, {sequence: found.by_database(sequence) for sequence in found})


@pytest.fixture(scope="module")
def trp_cage() -> Features:
    return features_of("trp_cage")


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """What the shared predictor said."""
    return []


@pytest.fixture(scope="module")
def shared(steps: list[str]) -> Predictor:
    return predictor(progress=steps.append)


def test_a_prediction_has_the_true_length_and_says_that_it_is_random(shared: Predictor, trp_cage: Features):
    found = shared.predict(trp_cage)
    length = len(trp_cage)
    assert found.atom_positions.shape == (length, 37, 3)
    assert found.pae is not None and found.pae.shape == (length, length)
    assert found.outputs["distogram/logits"].shape == (length, length, 64)
    assert found.outputs["masked_msa/logits"].shape[1] == length
    assert np.all((found.plddt > 0) & (found.plddt < 100))
    assert found.ranking_confidence == pytest.approx(found.mean_plddt)
    assert found.sequences == trp_cage.sequences
    assert np.isfinite(found.atom_positions).all() and found.atom_mask.sum() > 4 * length
    assert found.is_random and "random" in found.weights
    assert found.num_recycles == 0
    assert set(found.seconds) == {"features", "compile", "predict"}


def test_the_seed_decides_the_numbers(shared: Predictor, trp_cage: Features):
    first, again, other = (shared.predict(trp_cage, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.atom_positions, again.atom_positions)
    np.testing.assert_array_equal(first.plddt, again.plddt)
    assert not np.array_equal(first.atom_positions, other.atom_positions)


def test_targets_of_one_bucket_share_a_program(shared: Predictor, steps: list[str], trp_cage: Features):
    shared.predict(trp_cage)
    shared.predict(features_of("villin_hp35"))
    assert sum("compiling" in step for step in steps) == 1


def test_padding_changes_nothing(shared: Predictor, trp_cage: Features):
    padded = shared.predict(trp_cage)
    exact = predictor(bucket_multiple=len(trp_cage)).predict(trp_cage)
    np.testing.assert_allclose(exact.atom_positions, padded.atom_positions, atol=1e-3)
    np.testing.assert_allclose(exact.plddt, padded.plddt, atol=1e-2)


def test_models_of_one_configuration_share_a_program_and_load_from_npz(tmp_path, trp_cage: Features):
    overrides = predictor("demo").config("demo").to_dict()["model"]["embeddings_and_evoformer"]
    narrow = small.MONOMER | {
        f"model.embeddings_and_evoformer.{name}": overrides[name]
        for name in ("msa_channel", "pair_channel", "seq_channel", "extra_msa_channel")
    }
    steps: list[str] = []
    names = ("model_4_ptm", "model_5_ptm")
    random = predictor(names[0], overrides=narrow)
    values = random.parameters(names[0])
    for scale, name in enumerate(names, start=1):
        flat = {
            f"{path}//{leaf}": scale * np.asarray(v) for path, m in values.items() for leaf, v in m.items()
        }
        np.savez(tmp_path / f"params_{name}.npz", **flat)
    loaded = predictor(weights=tmp_path, overrides=narrow, progress=steps.append)
    assert loaded.models_for("monomer") == names
    first, second = loaded.predict_all(trp_cage)
    assert sum("compiling" in step for step in steps) == 1
    assert (first.model, second.model) == names
    assert not first.is_random and "params_model_4_ptm.npz (sha256" in first.weights
    assert not np.array_equal(first.atom_positions, second.atom_positions)
    np.testing.assert_array_equal(first.atom_positions, random.predict(trp_cage).atom_positions)

    with pytest.raises(WeightsError, match=r"params_model_4_ptm\.npz.*does not fit demo"):
        predictor("demo", weights=tmp_path / "params_model_4_ptm.npz").parameters("demo")
    with pytest.raises(WeightsError, match="model_1_ptm"):
        predictor("model_1_ptm", weights=tmp_path, overrides=narrow).parameters("model_1_ptm")
    with pytest.raises(WeightsError, match="multimer"):
        loaded.models_for("multimer")


def test_a_complex_goes_to_the_multimer_model():
    insulin = features_of("insulin")
    found = predictor(overrides=small.MULTIMER).predict(insulin)
    assert found.model == "demo_multimer"
    assert found.chain_ids == ("A", "B")
    assert found.sequences == insulin.sequences
    assert found.residue_index[found.chain_index == 1][0] == 1
    assert found.iptm is not None and found.ptm is not None
    assert found.ranking_confidence == pytest.approx(0.8 * found.iptm + 0.2 * found.ptm)


def test_kinds_follow_chains_and_models():
    assert predictor().kind_for(1) == "monomer"
    assert predictor().kind_for(2) == "multimer"
    assert predictor("demo_multimer", overrides={}, num_recycles=1).kind_for(1) == "multimer"
    with pytest.raises(InputError, match="cannot fold a multimer"):
        predictor("demo").models_for("multimer")


@pytest.mark.parametrize("name", ["model.num_recycle", "data.common.num_recycle"])
def test_recycles_of_model_and_features_agree(name: str):
    config = predictor("demo", overrides={name: 2}, num_recycles=1).config("demo")
    assert (config.model.num_recycle, config.data.common.num_recycle) == (2, 2)


def test_features_of_the_other_kind_are_refused(trp_cage: Features):
    with pytest.raises(FeaturesError, match="trp_cage"):
        predictor(overrides={}).predict(trp_cage, "demo_multimer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "model_9"}, "model_9"),
        ({"precision": "float8"}, "float8"),
        ({"num_recycles": -1}, "-1"),
        ({"bucket_multiple": 0}, "0"),
        ({"model": "demo", "overrides": {"model.no_such_name": 1}}, "no_such_name"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        predictor(**options)


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        predictor(weights=tmp_path / "nowhere")


def test_a_hopeless_length_is_refused_before_any_work():
    with pytest.raises(OutOfMemoryError, match=r"T1: 2000000 residues.*domains"):
        predictor().check_fits("T1", 2_000_000, "demo")


def test_a_program_larger_than_the_device_is_refused_before_it_runs():
    # Longer than the program can take, shorter than what the first estimate refuses.
    length = int(0.9 * (predict.device_memory() / (3 * 4 * 32)) ** 0.5) // 64 * 64
    target = FoldInput("T1", (Chain("A", ("GA" * length)[:length]),)) if length <= 16_000 else None
    if target is None:
        pytest.skip("this machine has more memory than the longest target needs")
    large = predictor()
    large.check_fits("T1", length, "demo")
    with pytest.raises(OutOfMemoryError, match=f"T1: {length} residues"):
        large.predict(build(target, {}))


def test_the_compilation_cache_lies_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert predict.default_compilation_cache() == tmp_path / "parafold" / "jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert predict.default_compilation_cache() == tmp_path / ".cache" / "parafold" / "jax"
