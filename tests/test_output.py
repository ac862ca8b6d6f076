"""Files of a prediction: formats, ranking, warnings of random parameters, plots."""

import dataclasses
import io
import json
import pickle
from pathlib import Path

import gemmi
import matplotlib.image
import numpy as np
import pytest

from parafold import confidence, output, plots
from parafold.errors import InputError, OutputError
from parafold.features import Features, build
from parafold.prediction import Prediction
from parafold.protein.residue import ATOM37_MASK, RESTYPE_ORDER
from parafold.protein.sequence import Chain, FoldInput

SEQUENCES = ("MKTAYIAKQR", "GSHMWW")


def prediction(
    *, chains: int = 1, seed: int = 0, has_pae: bool = True, is_random: bool = False
) -> Prediction:
    """A prediction of one or two short chains with positions and logits drawn from a seed."""
    rng = np.random.default_rng(seed)
    sequences = SEQUENCES[:chains]
    lengths = [len(sequence) for sequence in sequences]
    length = sum(lengths)
    chain_index = np.repeat(np.arange(chains), lengths).astype(np.int32)
    aatype = np.array([RESTYPE_ORDER[letter] for letter in "".join(sequences)], np.int32)
    logits = {
        "predicted_lddt/logits": rng.normal(scale=3, size=(length, 50)).astype(np.float32),
        "distogram/logits": rng.normal(size=(length, length, 64)).astype(np.float32),
    }
    if has_pae:
        logits["predicted_aligned_error/logits"] = rng.normal(size=(length, length, 64)).astype(np.float32)
        logits["predicted_aligned_error/breaks"] = np.linspace(0, 31, 63, dtype=np.float32)
    found = confidence.metrics(
        logits["predicted_lddt/logits"],
        logits.get("predicted_aligned_error/logits"),
        logits.get("predicted_aligned_error/breaks"),
        chain_index,
        multimer=chains > 1,
    )
    return Prediction(
        name="T1",
        model="model_1_multimer_v3" if chains > 1 else "model_1_ptm",
        seed=seed,
        aatype=aatype,
        residue_index=np.concatenate([np.arange(1, n + 1) for n in lengths]).astype(np.int32),
        chain_index=chain_index,
        chain_ids=("A", "B")[:chains],
        atom_positions=rng.normal(scale=20, size=(length, 37, 3)).astype(np.float32),
        atom_mask=ATOM37_MASK[aatype].astype(np.float32),
        plddt=found["plddt"],
        pae=found.get("predicted_aligned_error"),
        max_pae=found.get("max_predicted_aligned_error"),
        ptm=found.get("ptm"),
        iptm=found.get("iptm"),
        ranking_confidence=found["ranking_confidence"],
        num_recycles=3,
        weights="random parameters (seed 0)" if is_random else "params_model_1_ptm.npz (sha256 0123)",
        is_random=is_random,
        seconds={"features": 0.1, "compile": 2.0, "predict": 3.0},
        outputs=logits,
    )


def features(chains: int = 1) -> Features:
    names = "AB"[:chains]
    return build(FoldInput("T1", tuple(map(Chain, names, SEQUENCES))), {})


def names(paths: list[Path]) -> set[str]:
    return {path.name for path in paths}


@pytest.mark.parametrize("chains", [1, 2])
def test_a_result_comes_back_as_it_was(tmp_path: Path, chains: int):
    written = prediction(chains=chains)
    output.write_prediction(tmp_path, written)
    read = output.read_result(tmp_path / f"result_{written.label}.safetensors")
    for field in dataclasses.fields(Prediction):
        before, after = getattr(written, field.name), getattr(read, field.name)
        if field.name == "outputs":
            assert before.keys() == after.keys()
            for name in before:
                np.testing.assert_array_equal(before[name], after[name])
        elif isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after, field.name


def test_a_result_without_pae_comes_back_and_writes_no_pae(tmp_path: Path):
    paths = output.write_prediction(tmp_path, prediction(has_pae=False))
    assert names(paths) == {
        "result_model_1_ptm_pred_0.safetensors",
        "unrelaxed_model_1_ptm_pred_0.pdb",
        "unrelaxed_model_1_ptm_pred_0.cif",
        "confidence_model_1_ptm_pred_0.json",
    }
    assert output.read_result(tmp_path / "result_model_1_ptm_pred_0.safetensors").pae is None
    ranked = output.write_ranking(tmp_path, [prediction(has_pae=False)], features())
    assert "pae.png" not in names(ranked)


@pytest.mark.parametrize("keep", [0, 7, 200, 3000, -1])
def test_a_damaged_result_is_named(tmp_path: Path, keep: int):
    output.write_prediction(tmp_path, prediction())
    path = tmp_path / "result_model_1_ptm_pred_0.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="result_model_1_ptm_pred_0"):
        output.read_result(path)


def test_confidence_has_the_published_format_and_bands():
    found = dataclasses.replace(
        prediction(), plddt=np.array([90, 89.994, 70, 69.99, 50, 49.99, 0, 100, 5, 95.0])
    )
    content = json.loads(output.confidence_json(found))
    assert list(content) == ["residueNumber", "confidenceScore", "confidenceCategory"]
    assert content["residueNumber"] == list(range(1, 11))
    assert content["confidenceScore"][1] == 89.99
    assert "".join(content["confidenceCategory"]) == "HMMLLDDHDH"


def test_pae_has_the_published_format():
    found = prediction()
    assert found.pae is not None
    (content,) = json.loads(output.pae_json(found))
    assert set(content) == {"predicted_aligned_error", "max_predicted_aligned_error"}
    np.testing.assert_allclose(content["predicted_aligned_error"], found.pae, atol=0.0501)
    assert content["max_predicted_aligned_error"] == 31.75


def test_structures_hold_the_confidence_as_b_factors(tmp_path: Path):
    found = prediction(chains=2)
    output.write_prediction(tmp_path, found)
    for ending in ("pdb", "cif"):
        structure = gemmi.read_structure(str(tmp_path / f"unrelaxed_{found.label}.{ending}"))
        chains = list(structure[0])
        assert [chain.name for chain in chains] == ["A", "B"]
        b_factors = [residue[0].b_iso for chain in chains for residue in chain]
        np.testing.assert_allclose(b_factors, found.plddt, atol=0.00501)
        assert sum(len(residue) for chain in chains for residue in chain) == found.atom_mask.sum()


def test_random_parameters_are_said_in_every_text_file(tmp_path: Path):
    paths = output.write_prediction(tmp_path, prediction(is_random=True))
    paths += output.write_ranking(tmp_path, [prediction(is_random=True)], features())
    for path in paths:
        if path.suffix in (".pdb", ".cif", ".json"):
            assert "RANDOM PARAMETERS" in path.read_text(), path.name
    assert output.read_result(tmp_path / "result_model_1_ptm_pred_0.safetensors").is_random


def test_real_parameters_carry_no_warning(tmp_path: Path):
    paths = output.write_prediction(tmp_path, prediction())
    paths += output.write_ranking(tmp_path, [prediction()], features())
    for path in paths:
        if path.suffix in (".pdb", ".cif", ".json"):
            assert "random" not in path.read_text().lower(), path.name


@pytest.mark.parametrize(("chains", "score"), [(1, "plddts"), (2, "iptm+ptm")])
def test_ranking_is_by_confidence_best_first(tmp_path: Path, chains: int, score: str):
    predictions = [prediction(chains=chains, seed=seed) for seed in range(4)]
    paths = output.write_ranking(tmp_path, predictions, features(chains))
    ranking = json.loads((tmp_path / "ranking_debug.json").read_text())
    assert set(ranking) == {score, "order"}
    scores = [ranking[score][label] for label in ranking["order"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
    best = next(p for p in predictions if p.label == ranking["order"][0])
    assert (tmp_path / "ranked_0.pdb").read_text() == output.pdb_text(best)
    expected = {f"ranked_{i}.{ending}" for i in range(4) for ending in ("pdb", "cif")}
    assert names(paths) == expected | {"ranking_debug.json", "msa_coverage.png", "plddt.png", "pae.png"}


def test_the_pickle_is_the_dictionary_that_alphafold_writes(tmp_path: Path):
    path = output.write_pickle(tmp_path, prediction(chains=2))
    result = pickle.loads(path.read_bytes())
    assert path.name == "result_model_1_multimer_v3_pred_0.pkl"
    assert set(result) == {
        "structure_module",
        "predicted_lddt",
        "distogram",
        "plddt",
        "predicted_aligned_error",
        "aligned_confidence_probs",
        "max_predicted_aligned_error",
        "ptm",
        "iptm",
        "ranking_confidence",
        "num_recycles",
    }
    assert result["predicted_aligned_error"].shape == (16, 16)
    np.testing.assert_allclose(result["aligned_confidence_probs"].sum(-1), 1, atol=1e-5)


def test_what_is_not_a_number_is_not_written(tmp_path: Path):
    broken = dataclasses.replace(prediction(), atom_positions=np.full((10, 37, 3), np.nan, np.float32))
    with pytest.raises(OutputError, match="finite"):
        output.write_prediction(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def test_plots_are_reproducible():
    found = prediction()
    assert plots.plddt({"a": found.plddt}) == plots.plddt({"a": found.plddt})


def test_plddt_plot_shows_all_four_bands():
    image = pixels(plots.plddt({"a": np.full(30, 80.0)}))
    colors = {tuple(color) for color in np.round(image.reshape(-1, 3) * 255).astype(int)}
    for _, band, _ in plots.BANDS:
        rgb = np.array([int(band[i : i + 2], 16) for i in (1, 3, 5)])
        blended = 0.28 * rgb + 0.72 * 255
        assert any(np.abs(blended - color).max() <= 1.5 for color in colors), band


def test_pae_plot_tells_low_from_high_and_marks_chains():
    pae = np.where(np.arange(20)[:, None] < 10, 0.0, 31.75) + np.zeros((20, 20))
    image = pixels(plots.pae(pae, 31.75))
    height = image.shape[0]
    upper, lower = image[height // 4, 300], image[3 * height // 4, 300]
    assert upper.mean() < 0.35 < lower.mean()
    marked = pixels(plots.pae(pae, 31.75, chain_starts=[5]))
    assert np.abs(marked - image).max() > 0.5


def test_msa_plot_leaves_gaps_and_padding_white():
    msa = np.zeros((40, 30), int)
    msa[1:, 15:] = 21
    mask = np.ones((40, 30), bool)
    mask[20:] = False
    image = pixels(plots.msa_coverage(msa, mask))
    whiteness = (image.min(axis=-1) > 0.99).mean()
    assert whiteness > (pixels(plots.msa_coverage(np.zeros((40, 30), int))).min(axis=-1) > 0.99).mean() + 0.2


def test_one_residue_and_one_sequence_can_be_drawn():
    assert pixels(plots.msa_coverage(np.zeros((1, 1), int))).size
    assert pixels(plots.plddt({"a": np.array([50.0])})).size
    assert pixels(plots.pae(np.zeros((1, 1)), 31.75)).size
