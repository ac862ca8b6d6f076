"""`parafold fold`."""

import ast
import datetime
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parafold.cli.common import FAILED, one_line_errors
from parafold.cli.databases import Databases, DataDir, found_databases
from parafold.display import Display, complain, warn
from parafold.errors import InputError, ParafoldError

if TYPE_CHECKING:
    from parafold.features import Features
    from parafold.homologs import TemplateSearch
    from parafold.predict import Predictor
    from parafold.protein.sequence import FoldInput


class Precision(StrEnum):
    float32 = "float32"
    mixed = "mixed"
    bfloat16 = "bfloat16"


class Dialect(StrEnum):
    auto = "auto"
    alphafold = "alphafold"
    colabfold = "colabfold"
    alphafold3 = "alphafold3"


@one_line_errors
def fold(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="FASTA (each record a target, ':' between the chains of a complex), AlphaFold 3 JSON,"
            " or a features file.",
            show_default=False,
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Each target gets a folder of its name in it.")
    ] = Path("out"),
    weights: Annotated[
        Path | None,
        typer.Option(
            help="params_*.npz or a folder of them. Without it: a small model with random parameters."
        ),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Published names, parted by commas: model_1_ptm,model_2_ptm.")
    ] = None,
    num_recycles: Annotated[
        int | None, typer.Option(min=0, help="Passes before the last one. Default: the model's own, 3 or 20.")
    ] = None,
    num_ensemble: Annotated[
        int | None, typer.Option(min=1, help="MSA samples averaged in each pass.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Numbers, parted by commas; each gives one prediction a model.")
    ] = "0",
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="mixed computes in bfloat16 and adds up in float32. Default: the model's own, float32 for"
            " monomers, bfloat16 for multimers.",
            show_default=False,
        ),
    ] = None,
    databases: Databases = None,
    data_dir: DataDir = None,
    msa: Annotated[
        list[Path] | None,
        typer.Option(
            help="Own alignment (a3m) for the chain that is its first sequence; replaces the search."
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.cif:CHAIN[=TARGET]",
            help="Own template structure (mmCIF or PDB), for every chain with a similar sequence;"
            " with =TARGET for the chain TARGET, similar or not.",
        ),
    ] = None,
    mmcif_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of mmCIF files: search templates among them, with --pdb-seqres or --pdb70.",
            show_default=False,
        ),
    ] = None,
    pdb_seqres: Annotated[
        Path | None,
        typer.Option(help="Sequences of the PDB, searched for templates in process.", show_default=False),
    ] = None,
    pdb70: Annotated[
        Path | None,
        typer.Option(
            help="Prefix of the pdb70 profiles, searched for templates by hhsearch.", show_default=False
        ),
    ] = None,
    max_template_date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Templates released later are not used.", show_default=False),
    ] = None,
    msa_cache: Annotated[
        Path | None,
        typer.Option(help="Folder of alignments found before. Default: the user's.", show_default=False),
    ] = None,
    no_msa_cache: Annotated[bool, typer.Option("--no-msa-cache", help="Neither use nor keep any.")] = False,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Longer targets fail.", show_default=False)
    ] = None,
    dialect: Annotated[
        Dialect,
        typer.Option(
            help="alphafold: a FASTA file is one target, its records are the chains. auto: as INPUT says."
        ),
    ] = Dialect.auto,
    pickle: Annotated[
        bool, typer.Option("--pickle", help="Also AlphaFold's features.pkl and result_*.pkl.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo what an earlier run finished.")
    ] = False,
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Set a published configuration name: model.resample_msa_in_recycling=false.",
        ),
    ] = None,
) -> None:
    """Fold every target of the inputs; a run that was broken off continues where it stopped."""
    overrides = dict(_override(text) for text in config or ())
    seed_numbers = _seeds(seeds)
    targets, refused = _targets(inputs, dialect)
    failures = refused
    if targets:
        # JAX loads with these, so only now that there is something to do.
        from parafold import fold as folding
        from parafold.msa.search import DEFAULT_CACHE
        from parafold.predict import Predictor

        settings = folding.Settings(
            output_dir=output_dir,
            databases=found_databases(databases, data_dir),
            msa_cache=None if no_msa_cache else msa_cache or DEFAULT_CACHE,
            msas=tuple(msa or ()),
            templates=tuple(template or ()),
            template_search=_template_search(data_dir, mmcif_dir, pdb_seqres, pdb70, max_template_date),
            seeds=seed_numbers,
            max_length=max_length,
            pickle=pickle,
            overwrite=overwrite,
        )
        predictor = Predictor(
            [name.strip() for name in models.split(",")] if models else None,
            weights=weights,
            overrides=overrides,
            num_recycles=num_recycles,
            num_ensemble=num_ensemble,
            precision=precision.value if precision else None,
        )
        failures = _fold_all(targets, refused, predictor, settings)
    if failures:
        raise typer.Exit(FAILED)


def _fold_all(
    targets: Sequence["FoldInput | Features"], refused: int, predictor: "Predictor", settings: Any
) -> int:
    """Fold, show how it goes, and return the number of failures, the targets refused before among them."""
    from rich.console import Console

    from parafold.fold import fold as fold_targets
    from parafold.prediction import RANDOM_NOTE

    console = Console(highlight=False)
    is_random = predictor.weights is None
    if is_random:
        warn(console, RANDOM_NOTE)
    outcomes = []
    with Display(console, len(targets)) as display:
        predictor.progress = display.say
        for outcome in fold_targets(targets, predictor, settings, display.say):
            outcomes.append(outcome)
            display.finished(outcome)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    failures = failed + refused
    unchanged = sum(outcome.status == "unchanged" for outcome in outcomes)
    counts = {
        "folded": len(outcomes) - failed - unchanged,
        "complete already": unchanged,
        "failed": failures,
    }
    console.print(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    if unchanged == len(outcomes):
        console.print("Nothing to do. --overwrite folds again.")
    if is_random and failed < len(outcomes):
        console.print("These structures come from RANDOM PARAMETERS and mean nothing.", style="bold red")
    return failures


def _targets(inputs: Sequence[Path], dialect: Dialect) -> tuple[list["FoldInput | Features"], int]:
    """All targets of the inputs, and how many inputs or targets were refused (each in one line)."""
    from parafold.features import read_features, read_features_pickle
    from parafold.protein.sequence import read_inputs

    targets: dict[str, FoldInput | Features] = {}
    origin: dict[str, Path] = {}
    refused: list[str] = []

    def refuse(message: str) -> None:
        complain(message)
        refused.append(message)

    def refuse_target(name: str, error: InputError) -> None:
        refuse(f"{name}: {str(error).replace(f': {name}: ', ': ', 1)}")

    for path in inputs:
        try:
            if path.suffix == ".safetensors":
                found: Sequence[FoldInput | Features] = [read_features(path)]
            elif path.suffix in (".pkl", ".pickle"):
                found = [read_features_pickle(path)]
            else:
                found = read_inputs(path, dialect.value, refuse_target)
        except ParafoldError as error:
            refuse(str(error))
            continue
        for target in found:
            # File systems that do not tell cases apart would put both into one folder.
            key = target.name.lower()
            if key in targets:
                refuse(f"{target.name}: {path}: {origin[key]} has a target of this name too; rename one")
            else:
                targets[key], origin[key] = target, path
    return list(targets.values()), len(refused)


def _template_search(
    data_dir: Path | None,
    mmcif_dir: Path | None,
    pdb_seqres: Path | None,
    pdb70: Path | None,
    max_date: str | None,
) -> "TemplateSearch | None":
    """What the options say, completed from the folder of databases; None where there is nothing to search."""
    from parafold.homologs import TemplateSearch
    from parafold.msa.layouts import databases_in_data_dir

    obsolete = None
    if data_dir is not None:
        layout = databases_in_data_dir(data_dir)
        if pdb_seqres is None and pdb70 is None:
            # Without the program hhsearch, pdb_seqres serves for monomers too.
            pdb70 = layout.pdb70 if shutil.which("hhsearch") or not layout.pdb_seqres else None
            pdb_seqres = layout.pdb_seqres
        mmcif_dir = mmcif_dir or layout.mmcif_files
        obsolete = layout.obsolete
    if (mmcif_dir is None) != (pdb_seqres is None and pdb70 is None) and data_dir is None:
        raise InputError("a search for templates needs --mmcif-dir and one of --pdb-seqres and --pdb70")
    if mmcif_dir is None or (pdb_seqres is None and pdb70 is None):
        return None
    max_date = max_date or datetime.date.today().isoformat()
    return TemplateSearch(mmcif_dir, pdb_seqres, pdb70, max_date, obsolete)


def _override(text: str) -> tuple[str, Any]:
    """`model.num_recycle=1` as name and value; a value that is no Python literal is a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--config {text}: write KEY=VALUE, such as model.num_recycle=1")
    words = {"true": True, "false": False, "none": None, "null": None}
    value = value.strip()
    if value.lower() in words:
        return name.strip(), words[value.lower()]
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--seeds {text}: write whole numbers parted by commas, such as 0,1,2") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text}: each seed must be 0 or more and stand there once")
    return seeds
