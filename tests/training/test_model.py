"""The small model: it fits its checkpoint's limits, and comes back from disk through the engine's own way."""

import pytest
import torch

from backend.engines.sam3 import weights
from backend.shapes import COLOURS, SHAPES, ShapePhrase
from training.model import WORDS, load, save, start, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = start(0)
    folder = tmp_path_factory.mktemp("model") / "shapes"
    save(model, folder)
    return model, folder


def test_it_is_small(saved):
    _, folder = saved
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20e6


def test_it_comes_back_rounded_to_half_precision(saved):
    model, folder = saved
    loaded, _ = weights.load_model(str(folder))
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor.half().float(), msg=name)


def test_it_can_be_trained_on_and_saved_as_it_was(saved, tmp_path):
    _, folder = saved
    again = load(folder)
    assert {tensor.dtype for tensor in again.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    save(again, tmp_path)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_seed_is_one_start(saved):
    model, _ = saved
    same, other = start(0).state_dict(), start(1).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in model.state_dict().items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())


def test_every_known_word_is_one_token_and_others_are_spelt(saved):
    _, folder = saved
    _, tokens = weights.load_model(str(folder))
    phrases = [
        ShapePhrase(colour, shape).text(plural)
        for colour in (None, *COLOURS)
        for shape in (None, *SHAPES)
        for plural in (0, 1)
    ]
    for text in (*WORDS, *phrases):
        _, attention = tokens.encode([text])
        assert attention.sum() == 2 + len(text.split()), text
    _, attention = tokens.encode(["zebra"])
    assert attention.sum() == 2 + len("zebra")


@pytest.mark.parametrize("text", ["red circle", "Yellow  SHAPES", "a purple dog", "zebra crossing", "ein Hünd"])
def test_the_engine_reads_phrases_as_the_trained_tokenizer_does(saved, text):
    _, folder = saved
    _, tokens = weights.load_model(str(folder))
    ids, _ = tokens.encode([text])
    read = tokenizer()([text], padding="max_length", max_length=ids.shape[1], return_tensors="pt")
    assert torch.equal(ids, read["input_ids"])
