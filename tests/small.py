"""The smallest model that still has every part, for tests that run predictions for real."""

from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"

OVERRIDES = {
    "model.embeddings_and_evoformer.evoformer_num_block": 1,
    "model.embeddings_and_evoformer.extra_msa_stack_num_block": 1,
    "model.embeddings_and_evoformer.template.template_pair_stack.num_block": 1,
    "model.heads.structure_module.num_layer": 2,
}
MONOMER = OVERRIDES | {"data.eval.max_msa_clusters": 16, "data.common.max_extra_msa": 16}
MULTIMER = OVERRIDES | {
    "model.embeddings_and_evoformer.num_msa": 16,
    "model.embeddings_and_evoformer.num_extra_msa": 16,
}
# The same on the command line, for `parafold fold`.
OPTIONS = ["--num-recycles", "0", *(f"--config={name}={value}" for name, value in MONOMER.items())]
