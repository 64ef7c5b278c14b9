"""Tracks drawn into pictures: boxes in the colours of their numbers, and captions that are read and stay inside."""

import numpy as np
import pytest

from backend.tracks.fonts import choose_font
from backend.tracks.overlay import CaptionedTrack, draw_frame
from backend.tracks.track import Track

PLAIN = np.full((200, 300, 3), 128, np.uint8)


def drawn(box: tuple[float, ...], caption: str = "3 Car", number: int = 3, score: float = 0.91) -> np.ndarray:
    track = Track(7, np.array([box]), np.array([score]))
    return draw_frame(PLAIN, 7, [CaptionedTrack(number, caption, track)])


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != PLAIN).any(axis=2)


def test_a_box_has_the_colour_of_its_number_and_a_caption_above_it() -> None:
    picture = drawn((100, 80, 180, 150))
    assert (picture[120, 100] == (0, 158, 115)).all()  # the third of Okabe and Ito's colours
    assert (drawn((100, 80, 180, 150), number=10)[120, 100] == (0, 158, 115)).all()
    assert changed(picture)[60:79, 100:130].mean() > 0.5
    assert not changed(picture)[82:148, 102:178].any()
    assert (PLAIN == 128).all(), "the picture itself stays"


@pytest.mark.parametrize("box", [(0, 0, 50, 40), (280, 5, 299, 60), (290, 190, 299, 199), (-30, -20, 310, 220)])
def test_a_caption_stays_inside_the_picture(box: tuple[float, ...]) -> None:
    """As much of it is drawn as in the middle."""
    middle, edge = drawn((100, 80, 180, 150), "12 Lorry", 2), drawn(box, "12 Lorry", 2)
    assert (edge.max(axis=2) < 100).sum() == (middle.max(axis=2) < 100).sum() > 20


def test_a_caption_tells_the_score() -> None:
    box = (100, 80, 101, 81)
    assert (drawn(box, score=0.11) == drawn(box, caption="3 Car 0.11", score=0.0)).mean() < 1
    assert (drawn(box, score=0.11) != drawn(box, score=0.88)).any()


def test_nothing_is_drawn_where_a_track_is_not_seen() -> None:
    unseen = Track(7, np.full((1, 4), np.nan), np.array([np.nan]))
    assert (draw_frame(PLAIN, 7, [CaptionedTrack(1, "1", unseen)]) == PLAIN).all()


@pytest.mark.parametrize("text", ["3 Car", "2 Fußgänger", "1 Пешеход", "12 行人"])
def test_text_of_any_script_is_drawn_without_empty_boxes(text: str) -> None:
    font, shown = choose_font(text, 20)
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(one)) != missing for one in shown)
    assert len(shown) == len(text)


def test_accents_that_no_font_has_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.tracks.fonts._SYSTEM_FONTS", ())
    assert choose_font("1 Éléphant 行", 20)[1] == "1 Elephant ?"
