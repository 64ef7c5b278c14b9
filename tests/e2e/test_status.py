"""The status page as somebody sees it who works beside it, over jobs that the tests write."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import pytest
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

from backend import shapes
from backend.video.encode import encode_jpeg
from tests.e2e.browser import chromium
from tests.e2e.conftest import SHOTS
from tests.http.test_jobs_page import FakeBoard, job, make_app, worker

pytestmark = pytest.mark.slow

GIB = 2**30
NASTY = "<img src=x onerror=\"document.title='broken'\">"


def picture() -> bytes:
    """A frame as a board draws it."""
    frame = shapes.Clip(seed=shapes.HELD_OUT, recipe=shapes.CROWDED)[40]
    canvas = cv2.resize(frame.picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for x0, y0, x1, y1 in frame.boxes[~(frame.boxes != frame.boxes).any(axis=1)] * 2:
        cv2.rectangle(canvas, (round(x0), round(y0)), (round(x1), round(y1)), (86, 180, 233), 3)
    return encode_jpeg(canvas)


@pytest.fixture(scope="module")
def image() -> bytes:
    return picture()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an app."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def opened(board: FakeBoard, width: int = 1400, height: int = 900, **context: Any) -> Any:
    """The status page in a fresh browser."""
    return visited(make_app(board), "", width, height, **context)


@contextmanager
def visited(app: Any, path: str, width: int = 1400, height: int = 900, **context: Any) -> Iterator[Page]:
    """A page of an app in a fresh browser; nothing may go elsewhere, and nothing may be wrong with the page."""
    errors: list[str] = []
    with served(app) as url, chromium() as browser:
        page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/{path}")
        page.locator("main").wait_for()
        yield page
    assert asked
    assert [other for other in asked if not other.startswith(f"{url}/")] == []
    # What a test itself made the server refuse is no fault of the page.
    assert [error for error in errors if not error.startswith("Failed to load resource: ")] == []


def running(number: int, **changes: Any) -> dict[str, Any]:
    known = {"state": "running", "phase": "tracking", "done": 120, "tracks": 2, "fps": 12.5, "left_s": 110}
    return job(number, **{**known, "picture": 120, **changes})


def busy_board(image: bytes) -> FakeBoard:
    """As on an ordinary morning."""
    now = int(time.time())
    full = "the queue is full: ask again when one of the tracks before it has ended"
    lost = "the video could not be fetched: Label Studio answers 404, so look whether the file is still there"
    ends = [
        {"state": "done", "what": "Car", "kind": "box", "done": 300, "tracks": 1, "picture": 299},
        {"state": "cancelled", "what": "person, bicycle", "done": 87, "tracks": 5, "picture": 86},
        {"state": "failed", "what": "Truck", "kind": "clicks", "error": lost, "total": 0},
        {"state": "done", "what": "red car, person", "done": 1250, "total": 1250, "tracks": 9, "picture": 1249},
        {"state": "done", "what": "circle, star, square, triangle", "kind": "labels", "batch": True, "done": 300},
        {"state": "failed", "what": "Bus", "kind": "box", "error": full},
        {"state": "done", "what": "Car", "kind": "box", "done": 300, "tracks": 1, "picture": 299},
    ]
    jobs = [job(40 - age, **end, ended=now - 200 * age, asked=now - 200 * age - 60) for age, end in enumerate(ends)]
    waits: list[dict[str, Any]] = [
        {"what": "Star", "kind": "box", "task": "14"},
        {"what": "a yellow hard hat", "task": "15"},
    ]
    waits.append({"what": "circle, star, square", "kind": "labels", "task": "16", "batch": True})
    jobs += [job(42 + place, **wait, asked=now - 30 + place) for place, wait in enumerate(waits)]
    board = FakeBoard(*jobs, running(41, asked=now - 25), image=image)
    use = {"frames": 300, "hits": 1199, "misses": 301}
    memory = {"used": 6.2 * GIB, "total": 24 * GIB}
    board.engine["workers"] = [worker("cuda:0", memory=memory, cache=use, jobs=[41])]
    return board


def row(page: Page, section: str, what: str) -> Any:
    return page.locator(f"#{section} .job", has_text=what)


def test_a_job_runs_is_cancelled_and_goes_on(image: bytes) -> None:
    board = FakeBoard(running(17), image=image)
    with opened(board) as page:
        card = row(page, "running", "circle, star")
        for text in ("tracking", "120 of 300 frames", "13 frames/s", "about 2 min left", "2 tracks", "task 12"):
            expect(card).to_contain_text(text)
        expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
        expect(page.locator(".worker .cache")).to_be_hidden()
        expect(card.get_by_role("link", name="task 12")).to_have_attribute("href", "http://studio.example/tasks/12")
        expect(card.get_by_role("link", name="2 tracks")).to_have_attribute("href", "tasks/12?project=1")
        expect(card.locator("img")).to_have_attribute("src", "jobs/17/picture.jpg?frame=120")
        expect(page).to_have_title("40 % circle, star · SAM3 backend")

        board.jobs[17] |= {"done": 240, "picture": 240, "left_s": 7}
        expect(card).to_contain_text("about 10 s left")
        expect(card.locator("img")).to_have_attribute("src", "jobs/17/picture.jpg?frame=240")
        assert card.locator("img").evaluate("image => image.naturalWidth") > 100

        page.get_by_role("button", name="Cancel: circle, star").click()
        ended = row(page, "ended", "circle, star")
        expect(ended).to_contain_text("cancelled")
        expect(page.locator("#idle")).to_contain_text("Draw a box in Label Studio and press t.")
        resume = page.get_by_role("button", name="Go on: circle, star")
        expect(resume).to_be_focused()
        expect(page.locator("#news")).to_have_text("circle, star: cancelled")
        resume.press("Enter")
        expect(row(page, "waiting", "circle, star")).to_contain_text("240 of 300 frames")
        assert board.asked == [("cancel", 17), ("resume", 17)]

        board.jobs[17] |= {"state": "running"}
        expect(card).to_be_visible()
        board.jobs[17] |= {"state": "done", "done": 300, "picture": 299}
        expect(ended).to_contain_text("done")
        expect(ended.get_by_role("button", name="Go on")).to_be_hidden()


def test_an_ended_job_shows_its_picture_when_it_is_opened(image: bytes) -> None:
    board = FakeBoard(running(17, state="done"), running(18, state="failed", what="Car", picture=None), image=image)
    with opened(board) as page:
        expect(page.locator("img")).to_have_count(0)
        details = page.get_by_role("button", name="Details: circle, star")
        details.click()
        expect(details).to_have_attribute("aria-expanded", "true")
        expect(row(page, "ended", "circle, star").locator("img")).to_be_visible()
        details.press("Enter")
        expect(page.locator("img")).to_be_hidden()


def test_what_people_typed_is_shown_as_text() -> None:
    typed = {"what": NASTY, "error": NASTY, "task": NASTY, "task_url": "javascript:document.title='broken'"}
    states = [{"state": "running", "phase": NASTY}, {"state": "queued"}, {"state": "failed"}]
    board = FakeBoard(*(job(number, **typed, **state) for number, state in enumerate(states)))
    board.engine["status"] = f"failed: {NASTY}"
    with opened(board) as page:
        for section in ("running", "waiting", "ended"):
            shown = page.locator(f"#{section} .job")
            expect(shown.locator(".what")).to_have_text(NASTY)
            expect(shown.locator(".error")).to_have_text(NASTY)
            expect(shown.locator(".task")).to_have_text(f"task {NASTY}")
            assert shown.locator(".task").get_attribute("href") is None
            assert shown.locator(".tracks").get_attribute("href") is None
        expect(page.locator("#failed")).to_have_text(f"The model could not be loaded: {NASTY}")
        assert page.locator("img").count() == 0
        assert "broken'" in page.title()  # as text, that is


def test_the_page_says_that_nobody_answers_and_recovers() -> None:
    board = FakeBoard(running(17, picture=None))
    with opened(board) as page:
        page.route("**/jobs", lambda route: route.abort())
        lost = page.locator("#lost")
        expect(lost).to_have_text("The backend does not answer. Trying again every few seconds.")
        expect(row(page, "running", "circle, star")).to_be_visible()
        page.unroute("**/jobs")
        board.jobs[17] |= {"done": 150}
        expect(row(page, "running", "150 of 300 frames")).to_be_visible(timeout=15_000)
        expect(lost).to_be_hidden()


def test_a_change_that_is_refused_says_why() -> None:
    board = FakeBoard(running(17, state="cancelled", picture=None))
    with opened(board) as page:
        full = {"error": "the queue is full: ask again later"}
        page.route("**/resume", lambda route: route.fulfill(status=503, json=full))
        resume = page.get_by_role("button", name="Go on: circle, star")
        resume.click()
        expect(page.get_by_role("alert").filter(has_text="the queue is full: ask again later")).to_be_visible()
        expect(resume).to_have_text("Go on")


def test_a_tab_that_nobody_sees_asks_nothing() -> None:
    with opened(FakeBoard(running(17, picture=None))) as page:
        seen: list[str] = []
        turn = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        turn += " document.dispatchEvent(new Event('visibilitychange')) }"
        page.evaluate(turn, True)
        page.wait_for_timeout(500)  # what was asked before may still come
        page.on("request", lambda request: seen.append(request.url))
        page.wait_for_timeout(2500)
        assert seen == []
        with page.expect_request("**/jobs"):
            page.evaluate(turn, False)


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("wide", 1400, 900, "light"), ("dark", 1400, 900, "dark"), ("phone", 390, 844, "light")],
)
def test_the_page_fits(image: bytes, name: str, width: int, height: int, scheme: Any) -> None:
    with opened(busy_board(image), width, height, color_scheme=scheme) as page:
        expect(page.locator("#running img")).to_be_visible()
        assert fits(page)
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"status-{name}.png", full_page=True)


def fits(page: Page) -> bool:
    """Whether nobody has to scroll sideways."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"))


def test_each_worker_is_shown(image: bytes) -> None:
    board = busy_board(image)
    use = {"frames": 300, "hits": 1199, "misses": 301}
    memory = {"used": 21.3 * GIB, "total": 80 * GIB}
    board.engine["workers"] = [
        worker("cuda:0", memory=memory, cache=use, jobs=[41, 46]),
        worker("cuda:1", memory=memory, cache=use, jobs=[45]),
        worker("cuda:2", memory=memory, cache=use | {"frames": 1}),
        worker("cuda:3", status="failed: device: cuda:3 is not available"),
    ]
    board.jobs[45] = running(45, what="Star", picture=None, worker="cuda:1")
    board.jobs[46] = running(46, what="Car", picture=None, worker="cuda:0")
    for size in ((1400, 900), (390, 844)):
        with opened(board, *size) as page:
            texts = ["cuda:0 ready 2 jobs", "cuda:1 ready 1 job", "cuda:2 ready idle", "cuda:3 failed"]
            for row, text in zip(page.locator(".worker").all(), texts, strict=True):
                assert " ".join(row.locator(".line-up").inner_text().split()) == text
            expect(page.locator(".worker .memory .amount").first).to_have_text("21.3 of 80.0 GiB")
            expect(page.locator(".worker").nth(3)).to_contain_text("device: cuda:3 is not available")
            expect(page.locator("#running .worker-name", has_text="on cuda:1")).to_have_count(1)
            assert fits(page)
            SHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SHOTS / f"status-workers-{size[0]}.png", full_page=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.jobs.clear(),
        lambda board: board.engine.update(status="failed: there is no folder sam3: set model_path"),
        lambda board: board.jobs[41].update(what="a " + "very" * 60 + " long phrase", phase="loading", total=0),
    ],
    ids=["empty", "failed", "long"],
)
def test_rare_sights_fit_a_phone(image: bytes, change: Callable[[FakeBoard], Any], request: Any) -> None:
    board = busy_board(image)
    change(board)
    with opened(board, 390, 844) as page:
        assert fits(page)
        page.screenshot(path=SHOTS / f"status-{request.node.callspec.id}.png", full_page=True)


def test_it_says_who_runs_together_and_how_often_no_vision_model_ran(image: bytes) -> None:
    others = [running(number, what="Car", picture=None) for number in range(42, 45)]
    board = busy_board(image)
    board.jobs |= {one["id"]: one for one in (*others, running(45, what="Star", picture=None))}
    together = {41, 42, 43, 44, 45}
    for number in together:
        board.jobs[number]["together"] = sorted(together - {number})
    with opened(board) as page:
        card = page.locator("#running .job").filter(has=page.locator(".what", has_text="circle, star"))
        expect(card.locator(".together")).to_have_text("together with 3 x Car, Star")
        expect(page.locator(".worker .cache")).to_have_text("300 frames cached, 79 % hits")
        left = [page.locator(part).evaluate("e => e.getBoundingClientRect().x") for part in (".filter", ".now")]
        assert left[0] == left[1], "what runs is in the first column"
        assert fits(page)
        page.screenshot(path=SHOTS / "status-together.png")
        board.jobs[41]["together"] = []
        expect(card.locator(".together")).to_have_text("")


def test_jobs_are_searched_and_filtered_and_show_their_log(image: bytes) -> None:
    with opened(busy_board(image)) as page:
        page.get_by_role("searchbox").fill("bicycle ann@")
        expect(page.locator(".job:visible")).to_have_count(1)
        expect(page.locator("#matches")).to_have_text("1 of 11 jobs")
        page.get_by_role("searchbox").fill("")
        page.locator("#state").select_option("failed")
        expect(page.locator(".job:visible")).to_have_count(2)
        page.locator(".job .open").first.click()
        expect(page.locator(".log li").first).to_contain_text("info: job 38 of task 12")
        expect(page.locator(".clip").first).to_have_text("shapes.mp4")
        page.screenshot(path=SHOTS / "status-filtered.png")
