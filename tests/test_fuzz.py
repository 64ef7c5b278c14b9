"""Parsers take whatever is sent: they read it, or say what is wrong with it."""

from contextlib import suppress

import pytest

from backend.errors import BackendError
from tests.fuzz import CORPUS, TARGETS, run_target


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    assert CORPUS[name]
    for text in CORPUS[name]:
        with suppress(BackendError):
            TARGETS[name](text)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_read_or_refused(name: str) -> None:
    assert run_target(name, 1500, seed=1) == 0
