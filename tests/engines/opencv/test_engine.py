import json

import cv2
import numpy as np
import pytest

from backend.engines.opencv.engine import OpenCVEngine
from backend.errors import BadRequest, Unsupported
from backend.tracks.geometry import Box, box_iou
from backend.tracks.prompts import Phrase, Point, Prompt
from tests.engines.contract import FakeVideo

pytestmark = pytest.mark.slow

WIDTH, HEIGHT, SIDE = 320, 180, 40


def texture(height, width, seed, grain, low=0, high=255):
    """Coloured blobs of about `grain` pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(height // grain, 2), max(width // grain, 2), 3), np.uint8)
    large = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (low + large.astype(float) * (high - low) / 255).astype(np.uint8)


GROUND = texture(HEIGHT, WIDTH, 1, 12, 40, 150)
PLAIN = np.full((HEIGHT, WIDTH, 3), (90, 110, 120), np.uint8)
THING = texture(SIDE, SIDE, 2, 7) // 2 + np.array([120, 60, 0], np.uint8)

OTHER = texture(SIDE, SIDE, 9, 7) // 2 + np.array([120, 60, 0], np.uint8)
POST = texture(HEIGHT, WIDTH, 5, 6, 60, 120)
CALM = THING // 3 + np.array([130, 30, 10], np.uint8)


def scene(boxes, ground=GROUND, thing=THING, post=None, noise=3):
    """A thing in each of the boxes, the part of it that is in the picture, behind a rough post from x to x."""
    pictures = []
    for number, box in enumerate(boxes):
        picture = ground.copy()
        if box is not None:
            x0, y0, x1, y1 = (round(edge) for edge in box)
            sized = cv2.resize(thing, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
            part = picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
            part[:] = sized[max(-y0, 0) :, max(-x0, 0) :][: part.shape[0], : part.shape[1]]
        if post:
            picture[:, post[0] : post[1]] = POST[:, post[0] : post[1]]
        grain = np.random.default_rng(number).integers(-noise, noise + 1, picture.shape)
        pictures.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
    return FakeVideo(pictures)


def square(x, y, side=SIDE):
    return Box(x, y, x + side, y + side)


def tracked(video, box, frame=0, span=None, reverse=False):
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", frame, box=box)])
        results = session.propagate(span or range(len(video)), reverse)
        return {result.frame: result.tracks["it"] for result in results}


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["forward", "reverse"])
def test_follows_a_thing_for_a_hundred_frames(reverse):
    boxes = [square(20 + 2 * n, 60 + 40 * np.sin(n / 15)) for n in range(100)]
    frame = 99 if reverse else 0
    seen = tracked(scene(boxes), boxes[frame], frame, reverse=reverse)
    overlaps = {n: float(box_iou(seen[n].box or [np.nan] * 4, boxes[n])) for n in range(0, 100, 10)}
    assert min(overlaps.values()) >= 0.8, overlaps
    assert all(0.55 <= observation.score <= 1 for observation in seen.values())


@pytest.mark.parametrize(("start", "stop"), [(28, 52), (52, 28)], ids=["grows", "shrinks"])
def test_follows_the_size(start, stop):
    boxes = [square(60 + n, 60, start + (stop - start) * n / 60) for n in range(61)]
    seen = tracked(scene(boxes), boxes[0])
    overlaps = {n: float(box_iou(seen[n].box or [np.nan] * 4, boxes[n])) for n in range(0, 61, 10)}
    assert min(overlaps.values()) >= 0.7, overlaps


@pytest.mark.parametrize(("ground", "step"), [(GROUND, 4), (PLAIN, -4)], ids=["textured", "plain"])
def test_a_thing_that_leaves_is_absent_and_nothing_else_is_taken_for_it(ground, step):
    boxes = [square(140 + step * n, 70) for n in range(70)]
    seen = tracked(scene(boxes, ground), boxes[0])
    gone = [n for n, box in enumerate(boxes) if box.x0 >= WIDTH or box.x1 <= 0]
    assert len(gone) > 20
    assert all(seen[n].box is None and seen[n].score < 0.7 for n in gone)
    mostly = [n for n, box in enumerate(boxes) if box.clip(WIDTH, HEIGHT).area < 0.4 * box.area]
    assert all(seen[n].box is None for n in mostly)
    inside = [n for n, box in enumerate(boxes) if box.x0 >= 0 and box.x1 <= WIDTH]
    assert all(seen[n].box for n in inside)


def test_another_thing_of_like_colours_is_not_taken_for_one_that_vanished():
    boxes = [square(40, 40)] * 8 + [None] * 20
    video = scene(boxes)
    for picture in video.pictures:
        picture[100:140, 220:260] = OTHER
    seen = tracked(video, boxes[0])
    assert all(seen[n].box is None for n in range(8, 28))


def test_a_plain_thing_that_leaves_a_plain_ground_is_absent():
    thing = np.full_like(THING, (120, 100, 90))
    boxes = [square(200 + 4 * n, 70) for n in range(70)]
    seen = tracked(scene(boxes, PLAIN, thing), boxes[0])
    assert all(seen[n].box is None for n in range(35, 70))


def test_a_thing_that_vanishes_and_comes_back_elsewhere_is_found_again():
    boxes = [square(40, 40)] * 8 + [None] * 20 + [square(220, 100)] * 8
    seen = tracked(scene(boxes), boxes[0])
    assert all(seen[n].box is None for n in range(8, 28))
    assert all(box_iou(seen[n].box, boxes[n]) > 0.7 for n in range(30, 36))


@pytest.mark.parametrize(
    ("colour", "width", "speed", "thing"),
    [
        ((200, 200, 200), 40, 1.5, texture(SIDE, SIDE, 966984, 4)),
        ((40, 60, 180), 20, 5, texture(SIDE, SIDE, 261681, 12, 60, 195)),
    ],
    ids=["slow", "fast"],
)
def test_a_roughly_drawn_box_does_not_stay_where_its_thing_was(colour, width, speed, thing):
    ground = GROUND.copy()
    ground[:, 150 : 150 + width] = texture(HEIGHT, width, 5, 6) // 4 + np.array(colour, np.uint8) // 2
    boxes = [square(20 + speed * n, 70) for n in range(int(min(280 / speed, 90)))]
    x0, y0, x1, y1 = boxes[0]
    seen = tracked(scene(boxes, ground, thing), Box(x0 - 12, y0 - 12, x1 + 12, y1 + 12))
    wrong = [n for n, one in seen.items() if one.box and box_iou(one.box, boxes[n]) < 0.2]
    assert len(wrong) <= len(boxes) // 10
    assert all(seen[n].score < 0.85 for n in wrong)
    assert seen[len(boxes) - 1].box is None or len(boxes) - 1 not in wrong


@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True], ids=["forward", "reverse"])
def test_a_thing_behind_a_post_is_absent_and_found_again(reverse):
    post = (120, 195)  # hides all of it for 15 frames or so
    boxes = [square(40 + 2.5 * n, 70) for n in range(84)]
    frame = 83 if reverse else 0
    seen = tracked(scene(boxes, post=post), boxes[frame], frame, reverse=reverse)
    hidden = [n for n, box in enumerate(boxes) if box.x0 >= post[0] and box.x1 <= post[1]]
    assert len(hidden) == 15
    assert sum(seen[n].box is not None for n in hidden) <= 3
    past = range(0, 28) if reverse else range(56, 84)
    back = [n for n in past if boxes[n].x1 <= post[0] or boxes[n].x0 >= post[1]]
    back = back[:-4] if reverse else back[4:]
    assert len(back) > 10
    assert all(seen[n].box and box_iou(seen[n].box, boxes[n]) > 0.7 for n in back)


def test_prompts_on_several_frames_start_again_there():
    boxes = [square(20 + 2 * n, 60) for n in range(30)]
    video = scene(boxes)
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", 0, box=boxes[0])])
        session.prompt([Prompt("it", 10, box=Box(200, 100, 230, 130))])
        session.prompt([Prompt("it", 20, box=boxes[20])])
        seen = [result.tracks["it"] for result in session.propagate(range(30))]
    assert seen[10] == (Box(200, 100, 230, 130), 1.0, None)
    assert seen[20] == (boxes[20], 1.0, None)
    assert box_iou(seen[9].box, boxes[9]) > 0.8
    assert box_iou(seen[15].box, boxes[15]) < 0.2
    assert box_iou(seen[29].box, boxes[29]) > 0.8


def test_a_prompt_on_the_last_frame_that_was_propagated_corrects_it():
    boxes = [square(20 + 2 * n, 60) for n in range(14)]
    with OpenCVEngine().open(scene(boxes)) as session:
        session.prompt([Prompt("it", 0, box=Box(150, 100, 190, 140))])
        list(session.propagate(range(7)))
        session.prompt([Prompt("it", 6, box=boxes[6])])
        assert all(
            box_iou(result.tracks["it"].box, boxes[result.frame]) > 0.8 for result in session.propagate(range(7, 14))
        )


def test_a_prompt_between_two_results_of_a_running_generator_is_taken():
    boxes = [square(20 + 2 * n, 60) for n in range(12)]
    with OpenCVEngine().open(scene(boxes)) as session:
        session.prompt([Prompt("it", 0, box=Box(150, 100, 190, 140))])
        results = session.propagate(range(12))
        for _ in range(4):
            next(results)
        session.prompt([Prompt("it", 3, box=boxes[3])])
        assert all(box_iou(result.tracks["it"].box, boxes[result.frame]) > 0.8 for result in results)


@pytest.mark.parametrize("boundary", [9, 16, 31])
def test_a_state_saved_while_the_thing_is_hidden_goes_on_equally(boundary):
    boxes = [square(40, 40)] * 8 + [None] * 20 + [square(220, 100)] * 8
    video = scene(boxes)
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", 0, box=boxes[0])])
        list(session.propagate(range(boundary)))
        state = session.state()
        expected = list(session.propagate(range(boundary, 36)))
    with OpenCVEngine().open(video, state) as session:
        assert list(session.propagate(range(boundary, 36))) == expected


def test_a_state_saved_after_a_late_prompt_goes_on_equally():
    boxes = [square(20 + 2 * n, 60) for n in range(16)]
    video = scene(boxes)
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", 0, box=boxes[0])])
        list(session.propagate(range(10)))
        session.prompt([Prompt("it", 4, box=boxes[4])])
        state = session.state()
        expected = list(session.propagate(range(10, 16)))
    assert expected[0].tracks["it"].box
    # Frames 1 to 9 were tracked without this prompt, so they are not to be tracked again with it.
    assert json.loads(state)["forward"]["it"]["frame"] == 9
    with OpenCVEngine().open(video, state) as session:
        assert list(session.propagate(range(10, 16))) == expected


def test_a_prompt_after_restoring_goes_on_as_without_restoring():
    boxes = [square(20 + 2 * n, 60) for n in range(16)]
    video = scene(boxes)
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", 0, box=boxes[0])])
        list(session.propagate(range(10)))
        state = session.state()
        session.prompt([Prompt("it", 4, box=boxes[4])])
        expected = list(session.propagate(range(10, 16)))
    with OpenCVEngine().open(video, state) as session:
        session.prompt([Prompt("it", 4, box=boxes[4])])
        assert list(session.propagate(range(10, 16))) == expected


def test_a_restored_session_repeats_at_most_64_frames():
    boxes = [square(20 + 2 * n, 60) for n in range(72)]
    with OpenCVEngine().open(scene(boxes)) as session:
        session.prompt([Prompt("it", 0, box=boxes[0])])
        list(session.propagate(range(70)))
        state = session.state()
        expected = list(session.propagate(range(70, 72)))
    video = scene(boxes)
    spans = []
    frames = video.frames
    video.frames = lambda span, reverse=False: spans.append(span) or frames(span, reverse)
    with OpenCVEngine().open(video, state) as session:
        assert list(session.propagate(range(70, 72))) == expected
    assert spans == [range(64, 70), range(70, 72)]


def test_a_state_is_small_and_of_one_version():
    video = scene([square(20, 60)] * 3)
    with OpenCVEngine().open(video) as session:
        session.prompt([Prompt("it", 0, box=square(20, 60))])
        list(session.propagate(range(3)))
        state = session.state()
    assert len(state) < 1000
    other = json.dumps(json.loads(state) | {"version": "csrt-0"}).encode()
    with pytest.raises(Unsupported, match="run the track again"):
        OpenCVEngine().open(video, other)


def test_large_pictures_are_scaled_and_answered_in_their_own_pixels():
    boxes = [square(20 + 2 * n, 60) for n in range(8)]
    large = [np.repeat(np.repeat(picture, 5, axis=0), 5, axis=1) for picture in scene(boxes).pictures]
    seen = tracked(FakeVideo(large), Box(*(5 * edge for edge in boxes[0])))
    assert box_iou(seen[7].box, np.multiply(boxes[7], 5)) > 0.8


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (2, 30), (0.4, 0.4), (320, 180)])
def test_boxes_of_any_size_are_tracked_or_absent(sides):
    boxes = [Box(150 + n, 80, 153 + n, 83) for n in range(6)]
    box = Box(0, 0, *sides) if sides[0] == WIDTH else Box(150, 80, 150 + sides[0], 80 + sides[1])
    seen = tracked(scene(boxes), box)
    assert seen[0].box == box
    for observation in seen.values():
        assert observation.box is None or (
            observation.box.area > 0 and observation.box == observation.box.clip(320, 180)
        )


def test_a_tiny_bright_thing_is_followed():
    boxes = [Box(100 + 2 * n, 80, 104 + 2 * n, 84) for n in range(20)]
    seen = tracked(scene(boxes, PLAIN, np.full((4, 4, 3), (250, 240, 90), np.uint8)), boxes[0])
    assert box_iou(seen[19].box, boxes[19]) > 0.3


@pytest.mark.parametrize("size", [(4, 4), (16, 9), (1, 1)])
def test_a_tiny_picture_does_not_crash(size):
    seen = tracked(FakeVideo([np.zeros((size[1], size[0], 3), np.uint8)] * 4), Box(0, 0, 1, 1))
    assert len(seen) == 4


def test_boxes_reach_nowhere_outside_the_picture():
    boxes = [square(-20 + 2 * n, 70) for n in range(20)]
    with OpenCVEngine().open(scene(boxes)) as session:
        result = session.prompt([Prompt("it", 0, box=boxes[0])])
        assert result.tracks["it"].box == Box(0, 70, 20, 110)
        assert all(result.tracks["it"].box.x0 >= 0 for result in session.propagate(range(8)))


@pytest.mark.parametrize("click", [(0.5, 0.5), (0.3, 0.65)])
@pytest.mark.parametrize("side", [24, 40, 80])
def test_a_click_makes_a_box(click, side):
    box = square(100, 50, side)
    with OpenCVEngine().open(scene([box], thing=CALM)) as session:
        point = Point(box.x0 + click[0] * side, box.y0 + click[1] * side)
        found = session.prompt([Prompt("it", 0, points=(point,))]).tracks["it"].box
        again = session.prompt([Prompt("it", 0, points=(point,))]).tracks["it"].box
    assert box_iou(found, box) >= 0.7, found
    assert found == again


def test_a_negative_click_cuts_a_neighbour_off():
    box, neighbour = square(100, 60), square(140, 60)
    video = scene([box])
    video.pictures[0][60:100, 140:180] = video.pictures[0][60:100, 100:140]
    points = (
        Point(120, 80),
        Point(160, 80, positive=False),
        Point(150, 70, positive=False),
        Point(170, 95, positive=False),
    )
    with OpenCVEngine().open(video) as session:
        both = session.prompt([Prompt("it", 0, points=points[:1])]).tracks["it"].box
        one = session.prompt([Prompt("it", 0, points=points)]).tracks["it"].box
    assert box_iou(one, box) > box_iou(both, box)
    assert box_iou(one, neighbour) < box_iou(both, neighbour)


def test_clicks_refine_a_box():
    box = square(100, 60)
    with OpenCVEngine().open(scene([box])) as session:
        prompt = Prompt("it", 0, box=Box(85, 45, 155, 115), points=(Point(120, 80),))
        found = session.prompt([prompt]).tracks["it"].box
    assert box_iou(found, box) > 0.8
    assert found.x0 >= 85
    assert found.y1 <= 115


def test_clicks_on_nothing_still_make_a_box():
    video = FakeVideo([np.full((90, 160, 3), 128, np.uint8)])
    for x, y in ((80, 45), (0, 0), (160, 90)):
        with OpenCVEngine().open(video) as session:
            found = session.prompt([Prompt("it", 0, points=(Point(x, y),))]).tracks["it"].box
        assert found.area > 0
        assert found.clip(160, 90) == found


def test_a_mask_makes_the_box_around_it():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:50, 60:100] = True
    mask[70, 20] = True
    with OpenCVEngine().open(scene([None])) as session:
        assert session.prompt([Prompt("it", 0, mask=mask)]).tracks["it"] == (Box(20, 30, 100, 71), 1.0, None)


def test_words_are_refused_with_the_mend():
    with OpenCVEngine().open(scene([None])) as session, pytest.raises(Unsupported, match="set engine: sam3"):
        session.prompt([Phrase("a dog")])


@pytest.mark.parametrize(
    ("prompts", "mend"),
    [
        ([], "at least one"),
        ([Prompt("a", 0, box=square(1, 1)), Prompt("b", 1, box=square(1, 1))], "on one frame"),
        ([Prompt("a", 2, box=square(1, 1))], "frames 0 to 1"),
        ([Prompt("a", 0, box=square(400, 1))], "draw it around the object"),
        ([Prompt("a", 0, points=(Point(321, 5),))], "click on the object"),
        ([Prompt("a", 0, box=square(1, 1), points=(Point(5, -1, False),))], "click on the object"),
        ([Prompt("a", 0, mask=np.ones((4, 4), bool))], "size of the picture"),
        ([Prompt("a", 0, points=(Point(5, 5, positive=False),))], "add a positive point or a box"),
        ([Prompt("a", 0, mask=np.zeros((HEIGHT, WIDTH), bool))], "paint the object"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_mend(prompts, mend):
    with OpenCVEngine().open(scene([None, None])) as session, pytest.raises(BadRequest, match=mend):
        session.prompt(prompts)


@pytest.mark.parametrize("span", [range(0, 3), range(-1, 1)])
def test_a_span_outside_the_video_is_refused(span):
    with OpenCVEngine().open(scene([None, None])) as session, pytest.raises(BadRequest, match="frames are 0"):
        session.propagate(span)
