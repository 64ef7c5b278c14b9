"""What the README shows is of this version: pictures are made anew and compared with docs/, `doctor` is run.

Those of Label Studio take two minutes, so they are compared with THOROUGH=1 only. `make pictures` writes all: look at
them before you commit them.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent

import pytest
from playwright.sync_api import Page, expect

from backend.demo.labelstudio import LabelStudio
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import DEMO, ROOT, Project, connected, opened, serving
from tests.e2e.pictures import DOCS, HEAVIEST, NAMES, WIDEST, last_frame, moving, reduced, unlike
from tests.e2e.test_boxes import draw_and_track, percent
from tests.e2e.test_prompting import click, enter, go, prompting_page
from tests.e2e.test_prompts import middle
from tests.e2e.test_status import busy_board, picture
from tests.e2e.test_status import opened as opened_status
from tests.e2e.test_tracks_page import Street, address, choose, press
from tests.e2e.test_tracks_page import opened as opened_tracks
from tests.needs import THOROUGH

MOST_UNLIKE = 8.0
"""Made anew on one machine, a picture differs by 2.0 to 3.3 from its copy in few colours, and in a serif font by 3.8. A
line of text that is missing gives 11, four pixels of place 32, another page 80; a button alone, 5.7, goes unseen."""
SCENE_HEIGHT = 700
MOVING = (1, *range(5, 96, 5), 60)
"""The frames that the moving picture of the README shows after the answer."""
PATIENCE = "50"
"""Seconds that an answer may take here, so that one is enough: below those that a page waits for one."""


WRITES = os.environ.get("PICTURES") == "write"
in_label_studio = pytest.mark.skipif(
    not (THOROUGH or WRITES), reason="Label Studio's pictures are compared with THOROUGH=1 only"
)


@pytest.fixture(scope="module")
def patient_project(studio: LabelStudio, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The demo's project, whose answers are whole at once."""
    folder = tmp_path_factory.mktemp("backend")
    with serving(studio, folder, **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT=PATIENCE) as url:
        yield connected(studio, video, url, data_dir=folder)


def hold(name: str, screenshot: bytes) -> None:
    """Compare it with the picture in docs/, or write that."""
    kept = DOCS / f"{name}.png"
    if WRITES:
        kept.write_bytes(reduced(screenshot))
    apart = unlike(screenshot, kept.read_bytes())
    assert apart < MOST_UNLIKE, f"docs/{name}.png is not what this version shows ({apart:.1f}): make pictures"


def cut(page: LabelingPage, top: str, bottom: str) -> bytes:
    """The column with the labels, the video and the pictures, from one thing on the page to another."""
    page.page.mouse.move(0, 0)  # what lies below the mouse is drawn otherwise
    page.page.evaluate("document.querySelector('.lsf-main-content').parentElement.scrollTo(0, 0)")
    page.page.wait_for_timeout(500)
    column, first, last = (
        page.page.locator(thing).first.bounding_box() for thing in (".lsf-main-content", top, bottom)
    )
    assert column
    assert first
    assert last
    y0, y1 = first["y"] - 10, min(last["y"] + last["height"], 1445)
    return page.page.screenshot(clip={"x": column["x"], "y": y0, "width": column["width"], "height": y1 - y0})


def scene(page: LabelingPage) -> bytes:
    """The labels, the line for words, the video and the timeline, in one size whatever they hold."""
    column = page.page.locator(".lsf-main-content").first.bounding_box()
    first = page.page.locator(LABELS).first.bounding_box()
    assert column
    assert first
    return page.page.screenshot(
        clip={"x": column["x"], "y": first["y"] - 10, "width": column["width"], "height": SCENE_HEIGHT}
    )


LABELS, VIDEO, TIMELINE, CLICKS = ".lsf-labels", ".konvajs-content", ".lsf-video-segmentation__timeline", ".clicks"


@pytest.mark.slow
@in_label_studio
def test_a_box(patient_project: Project) -> None:
    with opened(patient_project) as page:
        draw_and_track(page, "Circle", key="1")
        page.go(60)
        hold("box", cut(page, LABELS, TIMELINE))


@pytest.mark.slow
@in_label_studio
def test_clicks(patient_project: Project) -> None:
    with opened(patient_project) as page:
        page.prepare_clicks()
        page.click_picture(*middle("Circle", 1))
        page.click_picture(*middle("Star", 1), key="Shift+2")
        x, y, width, height = percent("Star", 1)
        page.click_picture(x - width / 3, y + height, key="Shift+2", negative=True)
        page.press("Escape")
        hold("clicks", cut(page, VIDEO, CLICKS))


@pytest.mark.slow
@in_label_studio
def test_words(patient_project: Project) -> None:
    with opened(patient_project) as page:
        page.press("Escape")  # or what is found gets the class that is active
        scenes, line = [scene(page)], "circle, star, square"
        page.words_field.fill(line)
        scenes.append(scene(page))
        page.words(line)
        if "ask again" in page.told:
            pytest.skip(f"this machine is too busy: {PATIENCE} s were not enough for 100 frames")
        for frame in MOVING:
            page.go(frame)
            scenes.append(scene(page))
        page.go(30)
        hold("words", cut(page, LABELS, TIMELINE))
        kept = DOCS / "words.webp"
        if WRITES:
            kept.write_bytes(moving(scenes, [1, 1.5, 1, *[0.25] * (len(MOVING) - 2), 1.5]))
        assert unlike(scenes[-1], last_frame(kept.read_bytes())) < MOST_UNLIKE, "docs/words.webp: make pictures"


@pytest.mark.slow
def test_doctor(project: Project, tmp_path: Path) -> None:
    """Numbers, as of ports and versions, may be others."""
    connect = ROOT / "docs/connect.md"
    page, task, studio = connect.read_text(encoding="utf-8"), project.new_task(), project.studio
    (command,) = re.findall(r"^ *sam3-backend (doctor --.*) --task 1$", page, re.MULTILINE)
    (backend,) = studio.call("GET", f"/api/ml?project={project.id}")
    port = backend["url"].rpartition(":")[2]
    environment = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token, "PORT": port}
    environment |= {"SAM3_BACKEND_DATA_DIR": str(tmp_path)}
    words = [Path(sys.executable).parent / "sam3-backend", *command.split(), "--task", str(task)]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    told = done.stdout.replace(port, "9090").replace(f"task: {task},", "task: 1,")
    before, start, rest = page.partition("   ```text\n   ok    settings")
    sample, end, after = (start.partition("\n")[2] + rest).partition("   ```\n")
    if WRITES:
        connect.write_text(f"{before}   ```text\n{indent(told, '   ')}{end}{after}", encoding="utf-8")
        sample = told
    assert without_numbers(told) == without_numbers(sample), told + done.stderr


def without_numbers(lines: str) -> list[str]:
    return [re.sub(r"\bshapes-\w+|[\d.]*\d", "#", line.strip()) for line in lines.splitlines()]


@pytest.mark.slow
def test_the_tracks_of_a_task() -> None:
    with opened_tracks(Street(), 1400, 800) as page:
        choose(page, 3, 7)
        page.locator("#frame").fill("616")
        page.locator("#frame").press("Enter")
        expect(page.locator("#look canvas")).to_have_attribute("data-address", address(616))
        press(page, "Merge …")
        expect(page.locator("#preview")).to_be_visible()
        hold("tracks-page", shown(page))


@pytest.mark.slow
@in_label_studio
def test_the_page_to_click_on(patient_project: Project) -> None:
    with opened(patient_project) as labeling:
        page = prompting_page(labeling)
        for key, label in (("1", "Circle"), ("3", "Star")):
            page.keyboard.press(key)
            click(page, *middle(label, 1))
            enter(page)
            page.keyboard.press("f")
        expect(page.locator("#tracks .state", has_text="done")).to_have_count(2, timeout=120_000)
        go(page, 40)
        click(page, *middle("Circle", 40), is_choice=True)
        click(page, *middle("Circle", 40))
        page.wait_for_timeout(1000)  # for the masks
        hold("prompting-page", page.screenshot(clip={"x": 0, "y": 0, "width": 1366, "height": 700}))


@pytest.mark.slow
def test_the_status_page() -> None:
    # Where it is noon: soon after midnight the page says of which day a time is.
    noon = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
    with opened_status(busy_board(picture()), 1400, 800, timezone_id=noon) as page:
        expect(page.locator("#running img")).to_be_visible()
        hold("status", shown(page))


def shown(page: Page) -> bytes:
    """The page down to the end of what is on it, when its pictures are there."""
    page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth)")
    page.wait_for_timeout(500)
    ends = "() => Math.max(...[...document.querySelectorAll('main *')].map(one => one.getBoundingClientRect().bottom))"
    height = page.evaluate(ends) + 24
    return page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1400, "height": height})


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_small(name: str) -> None:
    png = (DOCS / f"{name}.png").read_bytes()
    assert len(png) < HEAVIEST
    assert int.from_bytes(png[16:20], "big") <= WIDEST
