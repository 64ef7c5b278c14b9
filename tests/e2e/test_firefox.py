"""The whole journey in Debian's Firefox: a box, a click, words, submit and reload."""

import pytest

from tests.e2e.conftest import Project, opened
from tests.e2e.firefox import firefox
from tests.e2e.test_boxes import SAMPLED, box_of, draw_and_track, finished, humans, keyframe, overlap
from tests.e2e.test_prompts import asked, labels, middle
from tests.needs import THOROUGH

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not THOROUGH, reason="Firefox is tested with THOROUGH=1 only")]


def test_a_box_a_click_words_submit_and_reload(project: Project) -> None:
    with opened(project, start=firefox) as page:
        circle = draw_and_track(page, "Circle")
        for frame in SAMPLED:
            assert overlap(page.shown(circle["id"], frame), "Circle", frame) >= 0.8, frame
        page.prepare_clicks()
        page.page.keyboard.press("Escape")
        page.click_picture(*middle("Star", 1))
        (star,) = [one for one in page.regions() if one["id"] != circle["id"]]
        assert humans(finished(page, star["id"])) == set()
        page.shot("firefox-1-box-and-click")
        (square,) = asked(page, "square")
        assert labels(page.regions()) == ["Circle", "Square", "Star"]
        page.shot("firefox-2-words")
        page.move(circle["id"], 60, 2, 2)  # 1.21.0 does not store a resized box
        edited = page.region(circle["id"])
        page.submit()
        page.reload()
        page.select(circle["id"], 60)
        page.track()
        region = finished(page, circle["id"])
        assert humans(region) == {1, 60}
        assert box_of(keyframe(region, 60)) == box_of(keyframe(edited, 60))
        assert len(page.regions()) == 3
        assert page.region(square["id"])["value"]["labels"] == ["Square"]
        page.shot("firefox-3-after-reload")
