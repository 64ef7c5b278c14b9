from pathlib import Path

import pytest

from backend.memory_limit import explain_memory_limit, memory_limit
from backend.settings import Settings


@pytest.mark.parametrize(
    ("content", "limit"),
    [("734003200\n", 734_003_200), ("max\n", None), ("9223372036854771712\n", None), (None, None)],
)
def test_the_limit_is_read(tmp_path: Path, content: str | None, limit: int | None) -> None:
    file = tmp_path / "memory.max"
    if content is not None:
        file.write_text(content)
    assert memory_limit((str(tmp_path / "none"), str(file))) == limit


def test_a_limit_that_is_too_small_is_named() -> None:
    told = explain_memory_limit(Settings(model_path="shapes"), 700 * 2**20)
    assert told
    assert "memory limit of this container is 0.7 GiB, but the model shapes needs about 0.8" in told


def test_each_worker_needs_its_own() -> None:
    settings = Settings(model_path="shapes", device="cpu:3")
    told = explain_memory_limit(settings, 2 * 2**30)
    assert told
    assert "needs about 2.4" in told


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (Settings(model_path="shapes"), 2**30),
        (Settings(model_path="shapes"), None),
        (Settings(engine="opencv"), 2**28),
        (Settings(model_path="/weights/of/ones/own"), 2**28),
    ],
)
def test_otherwise_nothing_is_said(settings: Settings, limit: int | None) -> None:
    assert explain_memory_limit(settings, limit) is None
