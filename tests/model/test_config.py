import pytest

from parafold import ParafoldError
from parafold.model.alphafold import AlphaFold
from parafold.model.config import MODEL_NAMES, model_config


def test_models_differ_in_fields_of_one_tree():
    def names(section, prefix=""):
        for key, value in section.items():
            yield from names(value, f"{prefix}{key}.") if hasattr(value, "items") else [f"{prefix}{key}"]

    monomers = [set(names(model_config(name))) for name in MODEL_NAMES if "multimer" not in name]
    multimers = [set(names(model_config(name))) for name in MODEL_NAMES if "multimer" in name]
    assert all(found == monomers[0] for found in monomers)
    assert all(found == multimers[0] for found in multimers)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [  # suppl. table 5, and the released multimer configurations
        ("model_1", "data.common.max_extra_msa", 5120),
        ("model_2", "data.common.max_extra_msa", 1024),
        ("model_2_ptm", "model.embeddings_and_evoformer.template.enabled", True),
        ("model_3", "model.embeddings_and_evoformer.template.enabled", False),
        ("model_5", "model.heads.predicted_aligned_error.weight", 0.0),
        ("model_5_ptm", "model.heads.predicted_aligned_error.weight", 0.1),
        ("model_1_multimer_v3", "model.embeddings_and_evoformer.num_extra_msa", 2048),
        ("model_4_multimer_v3", "model.embeddings_and_evoformer.num_extra_msa", 1152),
        ("model_1_multimer_v2", "model.embeddings_and_evoformer.num_msa", 252),
        ("model_1_multimer_v3", "model.num_recycle", 20),
        ("model_1_multimer_v3", "model.global_config.precision", "bfloat16"),
    ],
)
def test_published_values(name, path, value):
    section = model_config(name)
    for part in path.split("."):
        section = section[part]
    assert section == value


def test_overrides():
    published = {
        "model.num_recycle": 1,
        "model.global_config.bfloat16": True,
        "model.embeddings_and_evoformer.evoformer.outer_product_mean.chunk_size": 64,
        "model.embeddings_and_evoformer.evoformer.outer_product_mean.shared_dropout": True,
    }
    config = model_config("model_1", published)
    assert config.model.num_recycle == 1
    assert config.model.global_config.precision == "bfloat16"
    assert model_config("model_1").model.num_recycle == 3, "the preset itself must not change"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model.num_recycles": 1}, ["model.num_recycles", "no such"]),
        ({"model.num_recycle": "three"}, ["model.num_recycle", "three"]),
        ({"model.heads.distogram.weight.x": 1}, ["no such"]),
        (
            {"model.embeddings_and_evoformer.evoformer.msa_column_attention.gating": False},
            ["gating", "fixed to True"],
        ),
        ({"model.global_config.precision": "float16"}, ["float16", "bfloat16"]),
    ],
)
def test_bad_overrides(overrides, words):
    with pytest.raises(ParafoldError) as error:
        model = AlphaFold("model_1", overrides)
        model.init(0, {})
    for word in words:
        assert word in str(error.value)


def test_unknown_model():
    with pytest.raises(ParafoldError, match="'model_6' is not a model; use one of demo"):
        model_config("model_6")
