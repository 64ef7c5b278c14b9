"""Options of datasets as flags of the command."""

import argparse

from hypothesis import assume, given
from hypothesis import strategies as st

from backend.commands.dataset_options import add_dataset_options, read_dataset_options
from backend.datasets.options import LAYOUTS, DatasetOptions
from backend.errors import SettingsError

SHARES = st.floats(0, 100)
OPTIONS = {
    "task": st.sampled_from(["detect", "segment", "obb"]),
    "pictures": st.sampled_from(["annotated", "all", "none"]),
    "png": st.booleans(),
    "quality": st.integers(1, 100),
    "every": st.integers(1, 100),
    "rate": st.none() | st.floats(0.001, 100),
    "max_pictures": st.none() | st.integers(1, 100),
    "distinct": st.booleans(),
    "background": st.floats(1e-9, 90) | st.just(0.0),
    "checked": st.none() | st.integers(0, 100),
    "labels": st.lists(st.sampled_from(["Car", "a person", "été's"])).map(tuple),
    "min_score": st.floats(1e-9, 1) | st.just(0.0),
    "min_size": st.floats(1e-9, 1000),
    "split": st.tuples(st.floats(1, 100), SHARES, SHARES),
    "seed": st.integers(0, 2**31),
    "split_field": st.sampled_from(["", "set", "the set"]),
    "track_ids": st.booleans(),
    "layout": st.sampled_from(LAYOUTS),
}


@given(st.fixed_dictionaries({}, optional=OPTIONS), st.sampled_from(["yolo", "coco"]))
def test_the_flags_of_options_are_read_as_these_options(values: dict, form: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--format")
    add_dataset_options(parser)
    try:
        options = DatasetOptions(**values)
        found = read_dataset_options(parser.parse_args(["--format", form, *options.to_flags()]))
    except SettingsError:
        assume(False)
    assert found == options
