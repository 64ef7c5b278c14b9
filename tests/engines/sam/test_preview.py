"""Previews of the SAM family: what they cost, and what a session that runs meanwhile cannot take from them."""

import torch

from backend.engines.base import PREVIEW_FRAMES
from backend.engines.sam.preview import Previewer
from backend.tracks.geometry import Box
from backend.tracks.prompts import Point, Prompt
from tests.engines.contract import video
from tests.engines.sam.sessions import VIDEO, A, B, click, run


def test_every_click_on_an_encoded_frame_costs_no_pass_of_the_vision_model(sam3, opened):
    previewer, encoder = Previewer(sam3), sam3.image_encoder
    encoder.clear()
    previewer.encode(VIDEO, 3)
    runs = encoder.runs
    run(opened(B), 4, 9)
    encoder.clear()  # as if those that the session needs had taken all the room
    spent = encoder.runs
    for x in (30, 60, 90):
        previewer.preview(VIDEO, click("object", 3, x, 40))
    assert encoder.runs == spent > runs


def test_what_is_kept_is_bounded(sam3):
    source, previewer = video(), Previewer(sam3)
    for frame in range(PREVIEW_FRAMES + 3):
        previewer.encode(source, frame)
    assert [key[1] for key in previewer._features] == list(range(3, PREVIEW_FRAMES + 3))


def test_the_candidates_of_a_single_click_are_ordered_and_the_first_is_what_a_session_keeps(sam3, opened):
    candidates = Previewer(sam3).preview(VIDEO, A)
    assert len(candidates) == 3
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    session = opened(masks=True)
    answer = session.prompt([A]).tracks["a"]
    assert candidates[0].box == answer.box
    assert candidates[0].mask == answer.mask


def test_several_clicks_or_a_box_mean_one_mask(sam3):
    for prompt in (click("a", 0, 30, 40, Point(50, 60)), Prompt("a", 0, box=Box(10, 10, 60, 60))):
        assert len(Previewer(sam3).preview(VIDEO, prompt)) <= 1


def test_an_object_that_is_not_there_has_no_candidates(sam3, monkeypatch):
    decoder = sam3.tracker._run_decoder

    def absent(*arguments):
        logits, scores, tokens, _ = decoder(*arguments)
        return logits, scores, tokens, torch.tensor([-1.0])

    monkeypatch.setattr(sam3.tracker, "_run_decoder", absent)
    assert Previewer(sam3).preview(VIDEO, A) == []
