"""`sam3-backend project prepare` against a small Label Studio and real clips."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.cli import main
from backend.commands.prepare import run
from backend.errors import BadRequest, SettingsError, StudioError
from backend.http.app import create_app
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.frame_strip import SignedVideo, Signer
from backend.service import Service
from backend.settings import Limits, Settings
from tests.clips import read_code, write_clip
from tests.fakes import StubEngine, thread_worker
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

SHIPPED = (Path(__file__).parents[2] / "label_config.xml").read_text(encoding="utf-8")
CONFIG = re.sub(" *<HyperText .*\n", "", SHIPPED)
BARE = '<View><Video name="v" value="$video" {}/><VideoRectangle name="b" toName="v"/></View>'
PUBLIC = "https://backend.example/sam3"


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        yield studio


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames, 25 a second, each with its number in it."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=12, size=(96, 64)).path


class Preparing:
    """The command on one Label Studio; `told` is what it said."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder, self.told = studio, folder, list[str]()

    def __call__(self, *videos: str | Path, **settings: Any) -> int:
        """How many tasks could not be prepared."""
        known: dict[str, Any] = {
            "label_studio_url": self.studio.url,
            "label_studio_api_key": TOKEN,
            "data_dir": self.folder,
        }
        self.told.clear()
        self.studio.seen.clear()
        failed = run(Settings(**known | settings), PROJECT, [str(video) for video in videos], self.told.append)
        self.summary = self.told.pop()
        return failed


@pytest.fixture
def prepare(studio: Studio, tmp_path: Path) -> Preparing:
    return Preparing(studio, tmp_path / "data")


def task_of(studio: Studio, clip: Path, data: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A task of an uploaded clip, which shows what becomes of it."""
    video = studio.keep("clip.mp4", clip.read_bytes())
    return studio.tasks[studio.add_task({"video": video, **(data or {})}, **more)]


def codes(pictures: list[bytes]) -> list[int]:
    """The numbers in JPEGs."""
    return [read_code(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)) for picture in pictures]


@pytest.mark.parametrize("data", [{}, {"fps": None}, {"fps": ""}])
def test_the_frame_rate_is_written_where_it_is_missing(studio, prepare, clip: Path, data: dict[str, Any]) -> None:
    task = task_of(studio, clip, data)
    assert prepare() == 0
    assert task["data"]["fps"] == 25
    assert prepare.told == ["task 1: fps set to 25, 12 frames to click on"]


def test_the_rate_of_broadcasts_is_written_exactly_enough(studio: Studio, prepare, tmp_path: Path) -> None:
    task = task_of(studio, write_clip(tmp_path / "a.mp4", frames=9, rate=Fraction(30000, 1001)).path)
    assert prepare() == 0
    assert task["data"]["fps"] == pytest.approx(30000 / 1001, abs=1e-6)
    assert len(task["data"]["frame_numbers"]) == 9


@pytest.mark.parametrize("fps", [24, "30", 0, "fast"])
def test_a_wrong_frame_rate_is_mended_where_nobody_works_by_it(studio: Studio, prepare, clip: Path, fps: Any) -> None:
    task = task_of(studio, clip, {"fps": fps})
    assert prepare() == 0
    assert task["data"]["fps"] == 25
    assert "fps corrected from" in prepare.told[0]
    assert "to 25," in prepare.told[0]


@pytest.mark.parametrize("fps", [25, 25.0, "25", 25.0001])
def test_a_frame_rate_that_is_right_stays_as_it_is_written(studio: Studio, prepare, clip: Path, fps: Any) -> None:
    task = task_of(studio, clip, {"fps": fps})
    assert prepare() == 0
    assert (type(task["data"]["fps"]), task["data"]["fps"]) == (type(fps), fps)
    assert prepare.told == ["task 1: 12 frames to click on"]


@pytest.mark.parametrize(
    "work",
    [{"total_annotations": 1}, {"cancelled_annotations": 1}, {"total_predictions": 2}, {"draft_exists": True}],
    ids=str,
)
def test_a_wrong_frame_rate_that_somebody_worked_by_is_left_and_told(studio, prepare, clip: Path, work: Any) -> None:
    task = task_of(studio, clip, {"fps": 50}, **work)
    assert prepare() == 0
    assert task["data"]["fps"] == 50
    assert prepare.told == [
        "task 1: fps is 50, but the video has 25: unchanged, because existing work depends on it, 24 frames to click on"
    ]
    assert task["data"]["frame_numbers"] == list(range(1, 25))
    # two frames of the page's show one picture of the file
    assert codes([studio.read(address) for address in task["data"]["frames"]]) == [number // 2 for number in range(24)]


def test_a_missing_frame_rate_counts_as_24_and_is_left_where_somebody_worked_by_that(
    studio: Studio, prepare, clip: Path, tmp_path: Path
) -> None:
    other = task_of(studio, clip, total_annotations=1)
    same = task_of(studio, write_clip(tmp_path / "a.mp4", frames=5, rate=24).path, total_annotations=1)
    assert prepare() == 0
    assert "fps" not in other["data"]
    assert prepare.told[0].startswith(
        "task 1: fps is missing, so Label Studio assumes 24, but the video has 25: unchanged, because "
    )
    assert same["data"]["fps"] == 24
    assert prepare.told[1] == "task 2: fps set to 24, 5 frames to click on"


@pytest.mark.parametrize(
    ("most", "numbers"), [(200, list(range(1, 13))), (12, list(range(1, 13))), (4, [1, 5, 9, 12]), (2, [1, 12])]
)
def test_the_strip_holds_frames_of_the_video_and_their_numbers(
    studio: Studio, prepare, clip: Path, most: int, numbers: list[int]
) -> None:
    task = task_of(studio, clip, {"fps": 25, "note": "mine"})
    assert prepare(frames_per_strip=most) == 0
    assert task["data"]["frame_numbers"] == numbers
    assert codes([studio.read(address) for address in task["data"]["frames"]]) == [number - 1 for number in numbers]
    assert task["data"]["note"] == "mine"
    assert set(task["data"]) == {"video", "fps", "note", "frames", "frame_numbers"}


def test_a_strip_of_other_frames_is_made_anew(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip)
    assert prepare(frames_per_strip=4) == 0
    assert prepare(frames_per_strip=2) == 0
    assert task["data"]["frame_numbers"] == [1, 12]
    assert len(task["data"]["frames"]) == 2


@pytest.mark.parametrize("lost", [{"frames": None}, {"frames": []}, {"frames": ["/1.jpg"]}, {"frame_numbers": [1]}])
def test_a_strip_that_lost_something_is_made_anew(studio: Studio, prepare, clip: Path, lost: dict[str, Any]) -> None:
    task = task_of(studio, clip)
    assert prepare(frames_per_strip=3) == 0
    task["data"] |= lost
    assert prepare(frames_per_strip=3) == 0
    assert task["data"]["frame_numbers"] == [1, 7, 12]
    assert codes([studio.read(address) for address in task["data"]["frames"]]) == [0, 6, 11]


@pytest.mark.parametrize("work", [{"total_annotations": 1}, {"draft_exists": True}], ids=str)
def test_a_strip_that_points_may_be_on_is_left_and_told(studio: Studio, prepare, clip: Path, work: Any) -> None:
    task = task_of(studio, clip)
    assert prepare(frames_per_strip=4) == 0
    task |= work
    before = repr(task["data"])
    assert prepare(frames_per_strip=2) == 0
    assert repr(task["data"]) == before
    assert "unchanged, because points refer to their order" in prepare.told[-1]


def test_pictures_of_a_persons_own_are_left_and_told(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip, {"frames": ["/mine.jpg"]})
    assert prepare() == 0
    assert task["data"]["frames"] == ["/mine.jpg"]
    assert "your own pictures: unchanged" in prepare.told[-1]


def test_without_the_public_address_label_studio_keeps_them_again(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip)
    assert prepare(public_url=PUBLIC, frames_per_strip=4) == 0
    assert prepare(frames_per_strip=4) == 0
    assert all(address.startswith("/data/upload/") for address in task["data"]["frames"])


def test_the_second_time_nothing_is_changed(studio: Studio, prepare, clip: Path) -> None:
    task_of(studio, clip)
    task_of(studio, clip, {"fps": 50}, total_annotations=1)
    assert prepare(clip) == 0
    assert studio.changes
    before = repr((studio.tasks, studio.files))
    assert prepare(clip) == 0
    assert studio.changes == []
    assert repr((studio.tasks, studio.files)) == before
    assert prepare.told[1] == "task 1: nothing to do"


def test_annotations_stay_as_they_are(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip, annotations=[{"id": 3, "result": []}], total_annotations=1)
    before = {name: value for name, value in task.items() if name != "data"}
    assert prepare() == 0
    assert {name: value for name, value in task.items() if name != "data"} == before


def test_a_video_that_cannot_be_had_or_read_is_told_and_the_others_are_prepared(
    studio: Studio, prepare, clip: Path
) -> None:
    first = task_of(studio, clip)
    text = studio.add_task({"video": studio.keep("text.mp4", b"this is no video")})
    studio.add_task({"video": "/data/upload/7/gone.mp4"})
    studio.add_task({"image": "/data/a.jpg"})
    studio.add_task({"video": "s3://bucket/a.mp4"})
    last = task_of(studio, clip)
    assert prepare() == 4
    assert [line.partition(": ")[0] for line in prepare.told if "not prepared" in line] == [
        "task 2",
        "task 3",
        "task 4",
        "task 5",
    ]
    assert 'its data needs the field "video"' in prepare.told[3]
    assert first["data"]["frame_numbers"] == last["data"]["frame_numbers"] == list(range(1, 13))
    assert list(studio.tasks[text]["data"]) == ["video"]
    assert not any(studio.url in line or TOKEN in line or str(prepare.folder) in line for line in prepare.told)


def test_a_video_that_was_mended_at_its_address_is_prepared_next_time(studio: Studio, prepare, clip: Path) -> None:
    studio.places["/clip.mp4"] = 200, b"this is no video"
    number = studio.add_task({"video": f"{studio.url}/clip.mp4"})
    assert prepare() == 1
    studio.places["/clip.mp4"] = 200, clip.read_bytes()
    assert prepare() == 0
    assert studio.tasks[number]["data"]["fps"] == 25


def test_a_video_beyond_the_limits_is_told(studio: Studio, prepare, clip: Path) -> None:
    task_of(studio, clip)
    assert prepare(limits=Limits(frames=5)) == 1
    assert "it has more than 5 frames" in prepare.told[0]


@pytest.mark.parametrize("broken", ["/api/tasks/1", f"/api/projects/{PROJECT}/import", f"/api/projects/{PROJECT}"])
def test_a_label_studio_that_refuses_ends_it(studio: Studio, prepare, clip: Path, broken: str) -> None:
    task_of(studio, clip)
    studio.places[broken] = 500, b""
    with pytest.raises(StudioError, match="answers 500"):
        prepare()


def test_with_a_public_address_frames_are_served_and_nothing_is_uploaded(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip)
    assert prepare(public_url=f"{PUBLIC}/", frames_per_strip=4) == 0
    key = Signer(prepare.folder / "secret").key(SignedVideo(task["data"]["video"], 25.0))
    assert task["data"]["frames"] == [f"{PUBLIC}/frames/{key}/{number}.jpg" for number in (1, 5, 9, 12)]
    assert task["data"]["frame_numbers"] == [1, 5, 9, 12]
    assert len(studio.files) == 1
    assert prepare(public_url=PUBLIC, frames_per_strip=4) == 0
    assert studio.changes == []


def test_what_is_served_at_these_addresses_are_the_frames(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip, {"fps": 50}, total_annotations=1)
    known = {"label_studio_url": studio.url, "label_studio_api_key": TOKEN, "data_dir": prepare.folder}
    assert prepare(public_url=PUBLIC, frames_per_strip=4) == 0
    service = Service(Settings(**known), WorkerPool([thread_worker(StubEngine())]))
    try:
        client = create_app(service).test_client()
        served = [client.get(address.removeprefix(PUBLIC)) for address in task["data"]["frames"]]
    finally:
        service.close()
    assert [answer.status_code for answer in served] == [200] * 4
    assert codes([answer.data for answer in served]) == [(number - 1) // 2 for number in task["data"]["frame_numbers"]]


def test_served_addresses_are_written_anew_where_the_old_ones_end(studio: Studio, prepare, clip: Path) -> None:
    task = task_of(studio, clip)
    strips = []
    assert prepare(frames_per_strip=2) == 0
    for public in (PUBLIC, "http://other.example", "http://other.example"):
        strips.append(task["data"]["frames"])
        assert prepare(public_url=public, frames_per_strip=2) == 0
        (prepare.folder / "secret").unlink()
    strips.append(task["data"]["frames"])
    assert len({tuple(strip) for strip in strips}) == 4
    assert all(address.startswith("http://other.example/frames/") for address in strips[-1])


def test_the_live_panel_is_written_for_browsers_that_reach_us(studio: Studio, prepare, clip: Path) -> None:
    studio.label_config = SHIPPED
    task = task_of(studio, clip)
    for settings, url in (({}, "http://127.0.0.1:9090"), ({"public_url": f"{PUBLIC}/"}, PUBLIC)):
        assert prepare(**settings) == 0
        found = re.search(r'action="(.*?)".*?src="(.*?)"', task["data"]["panel"])
        assert found
        assert found[1] == f"{url}/tasks/{task['id']}"
        assert found[2].startswith(f"{url}/panel/")
        assert re.search(f'action="{url}/export" .*?name="project" value="{PROJECT}"', task["data"]["panel"])
        prompting = re.search(rf'action="{url}/prompt/(.*?)/"', task["data"]["panel"])
        assert prompting
        assert Signer(prepare.folder / "secret").page(prompting[1]) == (str(PROJECT), str(task["id"]))
        named = Signer(prepare.folder / "secret").task(found[2].rpartition("/")[2])
        assert named == (str(PROJECT), str(task["id"]))
        assert "live panel" in prepare.told[-1]
        assert f'<img src="{found[2]}/frame" loading="lazy"' in task["data"]["panel"]
    for value, html in (("open", "<details open>"), ("off", "</form>")):
        assert prepare(panel_frame=value) == 0
        assert html in task["data"]["panel"]
    assert "<details" not in task["data"]["panel"]
    assert prepare(host="0.0.0.0") == 0
    assert task["data"]["panel"] == ""
    assert "no live panel: set public_url" in prepare.told[-1]


NAMES = ["clip.mp4", "my clip (1).mp4", "größe, b.mp4", "a" * 120 + ".mp4", "Ärger #7 & Co.mp4", "x-y_z.1.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_uploaded_once(studio: Studio, prepare, clip: Path, tmp_path: Path, name: str) -> None:
    video = tmp_path / name
    video.write_bytes(clip.read_bytes())
    assert prepare(video) == 0
    assert prepare.told == [f"{name}: task 1", "task 1: fps set to 25, 12 frames to click on"]
    assert studio.read(studio.tasks[1]["data"]["video"]) == clip.read_bytes()
    assert prepare(video, video) == 0
    assert prepare.told == [f"{name}: already in the project"] * 2 + ["task 1: nothing to do"]
    assert (len(studio.tasks), len(studio.files)) == (1, 13)


def test_a_file_of_another_name_or_other_contents_is_another_video(studio, prepare, clip: Path, tmp_path: Path) -> None:
    longer = write_clip(tmp_path / "clip.mp4", frames=13, size=(96, 64)).path
    videos = [
        tmp_path / name for name in ("a-clip.mp4", "clip-2.mp4", "other.mp4", "a" * 120 + ".mp4", "b" * 120 + ".mp4")
    ]
    for video in videos:
        video.write_bytes(clip.read_bytes())
    assert prepare(*videos, clip, longer) == 0
    assert len(studio.tasks) == 7


def test_an_upload_that_no_task_shows_is_made_again(studio: Studio, prepare, clip: Path) -> None:
    studio.keep("clip.mp4", clip.read_bytes())
    assert prepare(clip) == 0
    assert prepare.told[0] == "clip.mp4: task 1"


def test_of_an_address_one_task_is_made(studio: Studio, prepare, clip: Path) -> None:
    studio.places["/films/clip.mp4"] = 200, clip.read_bytes()
    address = f"{studio.url}/films/clip.mp4"
    assert prepare(address, address) == 0
    assert prepare(address) == 0
    assert prepare.told == ["clip.mp4: already in the project", "task 1: nothing to do"]
    assert studio.tasks[1]["data"]["video"] == address
    assert studio.tasks[1]["data"]["fps"] == 25
    assert len(studio.tasks) == 1


@pytest.mark.slow
def test_more_tasks_than_one_page_holds_are_all_prepared(studio: Studio, prepare, clip: Path) -> None:
    video = studio.keep("clip.mp4", clip.read_bytes())
    for _ in range(101):
        studio.add_task({"video": video})
    assert prepare(public_url=PUBLIC) == 0
    assert all(task["data"]["fps"] == 25 for task in studio.tasks.values())


def test_the_fields_are_those_that_the_config_names(studio: Studio, prepare, clip: Path) -> None:
    for name, other in (("$video", "$film"), ("$fps", "$rate"), ("$frames", "$stills")):
        studio.label_config = studio.label_config.replace(f'"{name}"', f'"{other}"')
    assert prepare(clip, frames_per_strip=2) == 0
    data = studio.tasks[1]["data"]
    assert set(data) == {"film", "rate", "stills", "frame_numbers"}
    assert (data["rate"], data["frame_numbers"], len(data["stills"])) == (25, [1, 12], 2)


def test_without_a_strip_in_the_config_only_the_frame_rate_is_written(studio: Studio, prepare, clip: Path) -> None:
    studio.label_config = BARE.format('framerate="$fps"')
    task = task_of(studio, clip)
    assert prepare() == 0
    assert set(task["data"]) == {"video", "fps"}
    assert prepare.told == ["task 1: fps set to 25"]


@pytest.mark.parametrize(
    ("framerate", "told"),
    [
        ('framerate="25"', "nothing to do"),
        (
            'framerate="30"',
            'the video has 25 frames/s, but the label config says 30: set framerate="$fps" in the label config',
        ),
        ("", 'the video has 25 frames/s, but Label Studio assumes 24: set framerate="$fps" in the label config'),
    ],
)
def test_a_rate_in_the_config_is_looked_at_and_no_task_is_changed(
    studio: Studio, prepare, clip: Path, framerate: str, told: str
) -> None:
    studio.label_config = BARE.format(framerate)
    task_of(studio, clip)
    assert prepare() == 0
    assert prepare.told[-1] == f"task 1: {told}"
    assert studio.changes == []


def test_what_the_config_cannot_do_is_told_first(studio: Studio, prepare, clip: Path) -> None:
    studio.label_config = CONFIG.replace('smart="true"', 'smart="false"')
    task_of(studio, clip)
    assert prepare() == 0
    assert prepare.told[0] == 'clicks of "points" send no requests: remove its smart="false"'


def test_a_config_without_boxes_ends_it_before_anything_is_made(studio: Studio, prepare, clip: Path) -> None:
    studio.label_config = '<View><Video name="v" value="$video"/></View>'
    with pytest.raises(BadRequest, match="cannot draw boxes"):
        prepare(clip)
    assert studio.changes == []


def test_a_file_that_is_not_there_is_named_and_its_folder_is_not(prepare, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^there is no file gone\.mp4: give the path of a video") as error:
        prepare(tmp_path / "gone.mp4")
    assert str(tmp_path) not in str(error.value)


def test_without_a_label_studio_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        run(Settings(data_dir=tmp_path), PROJECT, [])


def test_a_project_that_is_not_there_is_named(studio: Studio, tmp_path: Path) -> None:
    settings = Settings(label_studio_url=studio.url, label_studio_api_key=TOKEN, data_dir=tmp_path)
    with pytest.raises(StudioError, match="has no projects/8: check the number"):
        run(settings, 8, [])


def test_from_the_command_line_it_tells_what_it_did_and_how_it_went(
    studio: Studio, clip: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    words = ["project", "prepare", "--project", str(PROJECT), "--data-dir", str(tmp_path)]
    assert main([*words, str(clip)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "sam3-backend: clip.mp4: task 1",
        "sam3-backend: task 1: fps set to 25, 12 frames to click on",
        "sam3-backend: prepared: 1 task",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"media"}
    studio.add_task({"video": "/data/gone.mp4"})
    assert main(words) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "sam3-backend: prepared: 1 task; not prepared: 1 task",
        "sam3-backend: 1 task not prepared: see above",
    ]
    assert main([*words, str(tmp_path / "gone.mp4")]) == 2
    assert TOKEN not in capsys.readouterr().err
