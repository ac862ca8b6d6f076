"""Known structures as templates: what searches found, and what the user brings. numpy and gemmi only.

The searches themselves are in `parafold.templates.search`, which imports HMMER.
"""

from parafold.templates.features import TemplateFeatures, empty_templates
from parafold.templates.featurize import TemplateResult, featurize_hits
from parafold.templates.hits import TemplateHit, parse_hhr, parse_hmmsearch_a3m
from parafold.templates.library import read_obsolete
from parafold.templates.own import OwnTemplate, own_template, read_own_template

__all__ = [
    "OwnTemplate",
    "TemplateFeatures",
    "TemplateHit",
    "TemplateResult",
    "empty_templates",
    "featurize_hits",
    "own_template",
    "parse_hhr",
    "parse_hmmsearch_a3m",
    "read_obsolete",
    "read_own_template",
]
