"""The setting `compile`: whole graphs, made when the model is loaded and never again, and the same boxes."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from backend.engines.sam import device
from backend.engines.sam.engine import SamEngine
from backend.engines.sam2.engine import Sam2Engine
from backend.engines.sam3.engine import Sam3Engine
from backend.errors import SettingsError
from backend.settings import Settings
from backend.tracks.prompts import Phrase, Point, Prompt
from tests.engines.sam import scenes
from tests.engines.sam2 import tiny as tiny_sam2
from tests.engines.sam3 import tiny as tiny_sam3

pytestmark = pytest.mark.slow

FRAMES = 2
FILM = scenes.film(scenes.FIVE, FRAMES)


@pytest.fixture
def graphs(monkeypatch) -> Iterator[list[int]]:
    """The numbers of operations of the graphs that were made, by a compiler that leaves them as they are."""
    made: list[int] = []

    def compiler(graph, inputs):
        made.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(device, "COMPILER", compiler)
    torch._dynamo.reset()
    counters.clear()
    yield made
    torch._dynamo.reset()


def boxes(engine: SamEngine, objects: int, words: bool = False) -> np.ndarray:
    engine.model.image_encoder.clear()
    clicks = [Prompt(str(n), 0, points=(Point(10 + 18.5 * (n % 8), 10 + 18.5 * (n // 8)),)) for n in range(objects)]
    with engine.open(FILM) as session:
        session.prompt([*clicks, *([Phrase("a b")] if words else [])])
        results = list(session.propagate(range(FRAMES)))
    absent = [np.nan] * 4
    return np.array([[result.tracks[click.track].box or absent for click in clicks] for result in results])


# A graph each for the image's parts, two for the decoder, three for the memory encoder: one for each kind of count.
@pytest.mark.parametrize(("name", "counts", "parts"), [("sam3", (1, 4, 16, 64), 8), ("sam2", (4,), 6)])
def test_whole_graphs_are_made_once_for_any_number_of_objects(name, counts, parts, graphs, tmp_path):
    torch.set_num_threads(1)
    tiny, load = (tiny_sam3, Sam3Engine) if name == "sam3" else (tiny_sam2, Sam2Engine)
    path = str(tiny.save(tmp_path / "tiny"))
    plain = load(Settings(engine=name, model_path=path, device="cpu"))
    assert plain.model  # before the next is loaded
    compiled = load(Settings(engine=name, model_path=path, device="cpu", compile=True))
    assert compiled.model
    assert len(graphs) == parts
    for objects in counts:
        found = boxes(compiled, objects, words=name == "sam3" and objects == 4)
        if objects == 4:
            assert np.allclose(found, boxes(plain, objects), atol=0.01, equal_nan=True)
    assert len(graphs) == parts
    assert not counters["graph_break"]


def test_a_compiler_that_fails_is_named_with_what_helps(monkeypatch, tmp_path):
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(device, "COMPILER", broken)
    torch._dynamo.reset()
    engine = Sam3Engine(Settings(model_path=str(tiny_sam3.save(tmp_path / "tiny")), device="cpu", compile=True))
    with pytest.raises(SettingsError, match="or set compile: false"):
        _ = engine.model
