"""Detections equal the library's, phrase by phrase; phrases are read once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Sam3VideoModel
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

from backend.engines.sam.postprocess import mask_iou
from backend.engines.sam3 import detector as module
from backend.engines.sam3.detector import Sam3Detector
from backend.engines.sam3.geometry import encode_geometry
from backend.errors import BadRequest
from tests.engines.sam3.tiny import IMAGE, VOCABULARY, build, config

PHRASES = ["a red car", "person", "traffic light on the left", "dog", "person with a hat"]


class Letters:
    """A tokenizer that gives every letter a token, and counts what it has read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.read += phrases
        ids = torch.full((len(phrases), 32), VOCABULARY - 1)
        attention = torch.zeros(len(phrases), 32, dtype=torch.int64)
        for row, phrase in enumerate(phrases):
            if not phrase:
                raise BadRequest("a phrase is empty")
            ids[row, 0] = VOCABULARY - 2
            ids[row, 1 : len(phrase) + 1] = torch.tensor([ord(letter) for letter in phrase])
            attention[row, : len(phrase) + 2] = 1
        return ids, attention


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Sam3VideoModel:
    return build(score_threshold_detection=0.0, det_nms_thresh=0.0)


@pytest.fixture(scope="module")
def vision(model: Sam3VideoModel) -> Any:
    with torch.no_grad():
        picture = torch.rand(1, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return model.detector_model.get_vision_features(pixel_values=picture)


@pytest.fixture
def thresholds(model: Sam3VideoModel, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the model's thresholds for one test, the library's copies of them too."""

    def put(score: float, overlap: float = 0.0) -> None:
        for owner in (model, model.config):
            monkeypatch.setattr(owner, "score_threshold_detection", score)
            monkeypatch.setattr(owner, "det_nms_thresh", overlap)

    return put


def middle(model: Sam3VideoModel, vision: Any) -> float:
    """A score that half of all detections reach, and none just so."""
    detector = Sam3Detector(model, Letters())
    scores = detector.detect(vision, detector.encode_phrases(PHRASES)).scores.sort().values
    return float(scores[len(scores) // 2 - 1 :][:2].mean())


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_finds_what_the_library_finds(batch: int, model: Sam3VideoModel, vision: Any, thresholds: Any) -> None:
    thresholds(middle(model, vision))
    session = Sam3VideoInferenceSession(dtype=torch.float32)
    for phrase in PHRASES:
        number = session.add_prompt(phrase)
        session.prompt_input_ids[number], session.prompt_attention_masks[number] = Letters().encode([phrase])
    with torch.no_grad():
        expected = model.run_detection(inference_session=session, vision_embeds=vision)
    detector = Sam3Detector(model, Letters())
    detector.batches.size = batch
    found = detector.detect(vision, detector.encode_phrases(PHRASES))
    assert len(found) == 5 * len(PHRASES)
    assert found.phrases.tolist() == [number for number, one in expected.items() for _ in one["scores"]]
    assert torch.allclose(found.scores, torch.cat([one["scores"] for one in expected.values()]), atol=1e-5)
    assert torch.allclose(found.logits, torch.cat([one["mask"] for one in expected.values()]), atol=1e-3)


def test_a_phrase_alone_is_found_as_the_library_has_it_without_padding(model: Sam3VideoModel, vision: Any) -> None:
    """The library pads and masks; the sums are the same in another order."""
    session = Sam3VideoInferenceSession(dtype=torch.float32)
    session.prompts[0] = PHRASES[0]
    session.prompt_input_ids[0], session.prompt_attention_masks[0] = Letters().encode(PHRASES[:1])
    with torch.no_grad():
        expected = model.run_detection(inference_session=session, vision_embeds=vision)[0]
    detector = Sam3Detector(model, Letters())
    found = detector.detect(vision, detector.encode_phrases(PHRASES[:1]))
    assert torch.allclose(found.scores, expected["scores"], rtol=1e-6, atol=0)
    assert torch.allclose(found.logits, expected["mask"], atol=1e-5)


@pytest.mark.parametrize(("vocabulary", "said", "reads"), [(49408, None, True), (512, None, False), (512, True, True)])
def test_the_published_weights_read_the_token_of_the_geometry_encoder(
    vocabulary: int, said: bool | None, reads: bool
) -> None:
    made = config(**({} if said is None else {"geometry_token": said}))
    made.detector_config.text_config.vocab_size = vocabulary
    with torch.device("meta"):
        assert Sam3Detector(Sam3VideoModel(made), Letters()).geometry_token is reads


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_token_of_the_geometry_encoder_stands_behind_each_phrase(
    batch: int, model: Sam3VideoModel, vision: Any
) -> None:
    detector, short = Sam3Detector(model, Letters()), PHRASES[:3]
    detector.batches.size = batch
    words = detector.encode_phrases(short)
    without = detector.detect(vision, words)
    with torch.no_grad():
        token = encode_geometry(model.detector_model.geometry_encoder, vision)
    assert token.shape == (1, 1, words.features.shape[2])
    detector.geometry_token = True
    found = detector.detect(vision, words)
    assert len(found) == len(without)
    assert not torch.allclose(found.scores, without.scores, atol=1e-4)
    for number in range(len(short)):
        alone = model.detector_model(
            vision_embeds=vision,
            text_embeds=SimpleNamespace(pooler_output=torch.cat([words.features[number : number + 1], token], 1)),
            attention_mask=torch.cat(
                [words.attention_mask[number : number + 1], torch.ones(1, 1, dtype=torch.int64)], 1
            ),
        )
        rows = found.phrases == number
        assert torch.allclose(found.logits[rows], alone.pred_masks[0], atol=1e-3)
    assert detector.encode_phrases(short).features.shape == words.features.shape, (
        "what is kept of a phrase is of no frame"
    )


def test_of_overlapping_objects_of_a_phrase_the_best_is_kept(
    model: Sam3VideoModel, vision: Any, thresholds: Any
) -> None:
    detector = Sam3Detector(model, Letters())
    words = detector.encode_phrases(PHRASES)
    every = detector.detect(vision, words)
    overlap = float(mask_iou(every.logits > 0, every.logits > 0).median())
    thresholds(0.0, overlap)
    found = detector.detect(vision, words)
    kept: list[int] = []
    rivals = mask_iou(every.logits > 0, every.logits > 0) > overlap
    for row in every.scores.argsort(descending=True).tolist():
        if not any(rivals[row, other] and every.phrases[row] == every.phrases[other] for other in kept):
            kept.append(row)
    assert len(PHRASES) < len(kept) < len(every)
    assert torch.equal(found.scores, every.scores[sorted(kept)])
    assert torch.equal(found.phrases, every.phrases[sorted(kept)])
    assert torch.equal(found.logits, every.logits[sorted(kept)])


def test_nothing_found_is_an_empty_answer(model: Sam3VideoModel, vision: Any, thresholds: Any) -> None:
    thresholds(1.0, 0.1)
    detector = Sam3Detector(model, Letters())
    found = detector.detect(vision, detector.encode_phrases(PHRASES))
    assert len(found) == 0
    assert found.logits.shape[1:] == (32, 32)
    assert found.phrases.dtype == torch.int64


def test_out_of_memory_it_goes_on_with_fewer_phrases_at_a_time(
    model: Sam3VideoModel, vision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Sam3Detector(model, Letters())
    words = detector.encode_phrases(PHRASES)
    expected = detector.detect(vision, words)
    forward, asked = model.detector_model.forward, []

    def narrow(*, text_embeds: Any, **others: Any) -> Any:
        asked.append(len(text_embeds.pooler_output))
        if asked[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(text_embeds=text_embeds, **others)

    monkeypatch.setattr(model.detector_model, "forward", narrow)
    found = detector.detect(vision, words)
    assert asked == [5, 3, 2, 2, 1]
    assert torch.equal(found.phrases, expected.phrases)
    assert torch.allclose(found.logits, expected.logits, atol=1e-3)


def test_a_phrase_is_read_once(model: Sam3VideoModel) -> None:
    letters = Letters()
    detector = Sam3Detector(model, letters)
    first = detector.encode_phrases(["dog", "person", "dog"])
    again = detector.encode_phrases(["person", "cat"])
    assert letters.read == ["dog", "person", "cat"]
    assert torch.equal(first.features[0], first.features[2])
    assert torch.equal(first.features[1], again.features[0])
    assert torch.equal(first.attention_mask.sum(1), torch.tensor([5, 8, 5]))


def test_the_phrases_read_last_are_kept(model: Sam3VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_PHRASES", 2)
    letters = Letters()
    detector = Sam3Detector(model, letters)
    for phrase in ("dog", "person", "dog", "cat", "dog", "person"):
        detector.encode_phrases([phrase])
    assert letters.read == ["dog", "person", "cat", "person"]


def test_more_phrases_than_are_kept_are_read_all_the_same(
    model: Sam3VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHED_PHRASES", 1)
    assert len(Sam3Detector(model, Letters()).encode_phrases(PHRASES)) == len(PHRASES)


@pytest.mark.parametrize("phrases", [[], ["dog", ""]])
def test_bad_phrases_are_refused(phrases: list[str], model: Sam3VideoModel) -> None:
    with pytest.raises(BadRequest):
        Sam3Detector(model, Letters()).encode_phrases(phrases)


def test_a_part_of_the_words_finds_the_same(model: Sam3VideoModel, vision: Any) -> None:
    detector = Sam3Detector(model, Letters())
    words = detector.encode_phrases(PHRASES)
    every = detector.detect(vision, words)
    last = detector.detect(vision, replace(words, features=words.features[4:], attention_mask=words.attention_mask[4:]))
    assert torch.allclose(last.scores, every.scores[every.phrases == 4], atol=1e-5)
