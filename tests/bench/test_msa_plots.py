import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from parafold.bench.msa_plots import _COLORS, plot_depth, plot_timelines
from parafold.errors import InputError
from parafold.msa import demo_databases, search

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


@pytest.fixture(scope="module")
def found():
    return search({"ubiquitin": UBIQUITIN}, demo_databases(), shards=4, executor="serial", cache=None)


def pixels(png, color):
    """How many have a colour."""
    return int(np.all(np.abs(imread(io.BytesIO(png))[..., :3] - to_rgb(color)) < 0.01, axis=-1).sum())


def test_a_timeline_shows_each_database_for_as_long_as_it_took(found):
    png = plot_timelines({"one": found.tasks})
    shown = [pixels(png, color) for color in _COLORS[:4]]
    took = {name: 0.0 for name in dict.fromkeys(task.database for task in found.tasks)}
    for task in found.tasks:
        took[task.database] += task.wall_seconds
    assert shown[3] == 0
    # But for the legend and the bars' edges.
    np.testing.assert_allclose(
        np.array(shown[:3]) / sum(shown), np.array(list(took.values())) / sum(took.values()), atol=0.1
    )


def test_workers_that_did_nothing_have_a_row(found):
    heights = [
        imread(io.BytesIO(plot_timelines(searches, workers=workers))).shape[0]
        for searches, workers in (
            ({"a": found.tasks}, 1),
            ({"a": found.tasks}, 3),
            ({"a": found.tasks, "b": found.tasks}, 3),
        )
    ]
    assert heights == sorted(set(heights))


def test_a_search_without_tasks_says_why(found):
    with pytest.raises(InputError, match="again: the search did no task; was all in the cache"):
        plot_timelines({"first": found.tasks, "again": []})


def test_depth_is_a_picture(found):
    assert imread(io.BytesIO(plot_depth(found["ubiquitin"], title="ubiquitin"))).shape[1] > 1000
