"""A project annotated ahead: every task once, whatever breaks it off, and one bad video costs no other."""

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import request

from backend.cli import main
from backend.commands import annotate
from backend.errors import SettingsError, StudioError
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.media import MediaCache
from backend.predict.phrase_sources import LikeRegions
from backend.settings import Settings
from tests.fakes import FakeVideo, StubEngine, thread_worker
from tests.labelstudio.bodies import CONFIG, drawn, keyframe
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

FOUND = {"car": {"x": range(5, 30)}, "person": {}, "dog": {"z": range(40)}}


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        yield studio


@pytest.fixture
def annotated(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def fetched(_self: MediaCache, url: str, *_: object) -> Path:
        return tmp_path / url.rpartition("/")[2]

    monkeypatch.setattr(MediaCache, "fetch", fetched)
    monkeypatch.setattr("backend.labelstudio.videos.probe_video", lambda *_: None)
    monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: FakeVideo(40))

    def run(source: Any = "labels", engine: StubEngine | None = None, **options: Any) -> tuple[int, list[str]]:
        settings = Settings(label_studio_url=studio.url, label_studio_api_key=TOKEN, data_dir=tmp_path / "data")
        said: list[str] = []
        pool = WorkerPool([thread_worker(engine or StubEngine(answering=FOUND))])
        failed = annotate.run(settings, PROJECT, source, say=said.append, pool=pool, **options)
        return failed, said

    return run


def add(studio: Studio, count: int, **data: Any) -> list[int]:
    return [studio.add_task({"video": f"/data/{number}.mp4", "fps": 25, **data}) for number in range(count)]


def test_every_task_gets_one_prediction_and_never_another(studio: Studio, annotated) -> None:
    add(studio, 5)
    assert annotated() == (0, ["5 tasks: 0 done or skipped, 5 to do", "annotated: 5 tasks"])
    assert sorted(one["task"] for one in studio.predictions) == [1, 2, 3, 4, 5]
    assert {one["model_version"] for one in studio.predictions} == {"stub-1"}
    (region,) = studio.predictions[0]["result"]
    assert (region["value"]["labels"], region["meta"]["phrase"]) == (["Car"], "car")
    assert annotated()[1][0] == "5 tasks: 5 done or skipped, 0 to do"
    assert len(studio.predictions) == 5


def known(studio: Studio, version: str = "stub-1") -> dict[str, tuple[str, int]]:
    """Phrase and number of each region of the one prediction of a model."""
    (prediction,) = (one for one in studio.predictions if one["model_version"] == version)
    return {one["id"]: (one["meta"]["phrase"], one["meta"]["track_id"]) for one in prediction["result"]}


def test_with_another_phrase_it_runs_anew_and_what_was_there_keeps_its_identity(studio: Studio, annotated) -> None:
    add(studio, 1)
    answering = {"dog": {"z": range(40)}, "car": {"x": range(5, 30), "y": range(40)}}
    assert annotated(("car",), StubEngine(answering=answering))[1][0] == "1 tasks: 0 done or skipped, 1 to do"
    first = known(studio)
    assert sorted(first.values()) == [("car", 1), ("car", 2)]
    assert annotated(("dog", "car"), dry_run=True)[1][1:] == ["task 1: to do"]
    annotated(("dog", "car"), StubEngine(answering=answering))
    more = known(studio)
    assert first.items() <= more.items()
    assert [one for name, one in more.items() if name not in first] == [("dog", 3)]
    for same in (("dog", "car"), ("car", "dog")):
        assert annotated(same)[1][0] == "1 tasks: 1 done or skipped, 0 to do"
    annotated(("car",), StubEngine(answering=answering))
    assert known(studio) == first
    annotated(("dog",), StubEngine(answering=answering))
    assert [*known(studio).values()] == [("dog", 4)], "no number is given a second time"


def test_a_phrase_that_found_nothing_is_not_looked_for_again(studio: Studio, annotated, tmp_path: Path) -> None:
    add(studio, 1)
    annotated(("person",))
    assert [one["result"] for one in studio.predictions] == [[]]
    shutil.rmtree(tmp_path / "data")
    assert annotated(("person",))[1][0] == "1 tasks: 1 done or skipped, 0 to do"
    annotated(("person", "dog"))
    assert [*known(studio).values()] == [("dog", 1)]


def test_a_label_that_is_added_to_the_project_is_looked_for(studio: Studio, annotated) -> None:
    add(studio, 1)
    annotated()
    first = known(studio)
    studio.label_config = CONFIG.replace('<Label value="Person"/>', '<Label value="Person"/><Label value="Dog"/>')
    annotated()
    assert first.items() <= known(studio).items()
    assert sorted(known(studio).values()) == [("car", 1), ("dog", 2)]


def test_another_model_keeps_what_the_first_one_has_given(studio: Studio, annotated) -> None:
    add(studio, 1)
    annotated(("car",))
    newer = StubEngine(answering={"car": {"w": range(3, 33)}, "dog": {"z": range(40)}})
    newer.version = "2"
    annotated(("car", "dog"), newer)
    assert known(studio).items() <= known(studio, "stub-2").items()
    assert sorted(known(studio, "stub-2").values()) == [("car", 1), ("dog", 2)]


@pytest.mark.parametrize("at", ["POST", "DELETE"])
def test_broken_off_between_the_two_there_is_never_none_and_in_the_end_one(studio, annotated, monkeypatch, at) -> None:
    add(studio, 1)
    annotated(("car",))
    first = known(studio)
    counts, is_broken = [], threading.Event()

    def failing() -> Any:
        counts.append(len(studio.predictions))
        if request.method != at:
            return None
        is_broken.wait(30)
        return "busy", 503

    def breaking(seconds: float) -> None:
        time.sleep(0.02)
        if any(method == at for method, _ in studio.changes[1:]):
            is_broken.set()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("backend.commands.annotate.time", SimpleNamespace(sleep=breaking))
        studio.failing = failing
        with pytest.raises(KeyboardInterrupt):
            annotated(("car", "dog"))
    assert len(studio.predictions) == {"POST": 1, "DELETE": 2}[at]
    studio.failing = lambda: counts.append(len(studio.predictions))
    assert annotated(("car", "dog"))[0] == 0
    assert min(counts) == 1
    assert first.items() <= known(studio).items()
    assert sorted(known(studio).values()) == [("car", 1), ("dog", 2)]


def test_it_waits_for_predictions_of_jobs_whose_ends_are_not_saved_yet(studio: Studio, annotated, monkeypatch) -> None:
    saving = Store.set_ended

    def late(store: Store, ends: Any) -> None:
        time.sleep(0.3)
        saving(store, ends)

    monkeypatch.setattr(Store, "set_ended", late)
    add(studio, 2)
    assert annotated() == (0, ["2 tasks: 0 done or skipped, 2 to do", "annotated: 2 tasks"])
    assert sorted(one["task"] for one in studio.predictions) == [1, 2]


def test_it_goes_on_where_it_was_broken_off(studio: Studio, annotated, monkeypatch: pytest.MonkeyPatch) -> None:
    add(studio, 6)
    looks = itertools.count(1)

    def breaking(seconds: float) -> None:
        time.sleep(0.02)
        if next(looks) % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("backend.commands.annotate.time", SimpleNamespace(sleep=breaking))
    engine = StubEngine(answering=FOUND, gate=lambda frame: time.sleep(0.001))
    for _ in range(40):
        try:
            failed, _ = annotated(engine=engine)
            break
        except KeyboardInterrupt:
            continue
    assert failed == 0
    assert sorted(one["task"] for one in studio.predictions) == [1, 2, 3, 4, 5, 6]


def test_one_bad_video_costs_no_other_and_is_told(studio: Studio, annotated, monkeypatch: pytest.MonkeyPatch) -> None:
    add(studio, 2)
    studio.add_task({"fps": 25})
    studio.add_task({"video": "/data/broken.mp4", "fps": 25})

    def opened(path: Path, limits: object) -> FakeVideo:
        if path.name == "broken.mp4":
            raise SettingsError("this file holds no video")
        return FakeVideo(40)

    monkeypatch.setattr("backend.jobs.worker.Video", opened)
    failed, said = annotated()
    assert failed == 2
    assert said[1:] == [
        "annotated: 2 tasks; not annotated: 2 tasks",
        'task 3: failed: the task has no video: its data needs the field "video"',
        "task 4: failed: this file holds no video",
    ]
    assert sorted(one["task"] for one in studio.predictions) == [1, 2]


def test_a_model_that_fails_ends_it_with_the_reason_and_the_next_time_it_goes_on(
    studio: Studio, annotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(studio, 2)
    engine = StubEngine(answering=FOUND, status="loading")

    def fail(_: object) -> str:
        engine.status = "failed: no weights: give model_path"
        return ""

    with monkeypatch.context() as patches:
        patches.setattr(annotate, "describe_running", fail)
        with pytest.raises(SettingsError, match="no weights: give model_path"):
            annotated(engine=engine)
    assert studio.predictions == []
    assert annotated()[1][-1] == "annotated: 2 tasks"
    assert len(studio.predictions) == 2


def test_what_to_look_for_and_where(studio: Studio, annotated) -> None:
    add(studio, 4, prompt="dog")
    annotated(("dog",), tasks={2})
    assert [(one["task"], one["result"][0]["meta"]["phrase"]) for one in studio.predictions] == [(2, "dog")]
    annotated("prompt", limit=1)
    assert [one["task"] for one in studio.predictions] == [2, 1]
    failed, said = annotated("nothing", limit=1)
    assert failed == 1
    assert said[-1] == "task 3: failed: the task has no phrases to search for: write them into its field nothing"
    with pytest.raises(SettingsError, match="has no task 9"):
        annotated(tasks={9})


def test_a_dry_run_does_nothing(studio: Studio, annotated) -> None:
    add(studio, 2)
    assert annotated(dry_run=True)[1] == ["2 tasks: 0 done or skipped, 2 to do", "task 1: to do", "task 2: to do"]
    assert studio.predictions == []


def test_without_label_studio_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LABEL_STUDIO_URL"):
        annotate.run(Settings(data_dir=tmp_path), 1, "labels")
    with pytest.raises(StudioError):
        annotate.run(Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:1"), 1, "labels")


@pytest.mark.parametrize(
    ("words", "source", "tasks"),
    [
        ([], "labels", frozenset()),
        (["--labels"], "labels", frozenset()),
        (["--text", "red car,  dog"], ("red car", "dog"), frozenset()),
        (["--field", "prompt", "--tasks", "1,4..6"], "prompt", frozenset({1, 4, 5, 6})),
    ],
)
def test_the_command_line(monkeypatch: pytest.MonkeyPatch, words: list[str], source: Any, tasks: frozenset) -> None:
    seen: list[Any] = []

    def run(settings: Settings, project: int, source: Any, **options: Any) -> int:
        seen.extend([project, source, frozenset(options["tasks"])])
        return 0

    monkeypatch.setattr(annotate, "run", run)
    assert main(["project", "annotate", "--project", "7", *words]) == 0
    assert seen == [7, source, tasks]


@pytest.mark.parametrize("tasks", ["", "a", "3..1", "1,,2"])
def test_numbers_that_are_none_are_refused(tasks: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["project", "annotate", "--project", "7", "--tasks", tasks])
    assert "1,2,5..9" in capsys.readouterr().err


def region(name: str, label: str, *items: dict[str, Any]) -> dict[str, Any]:
    return drawn(*items, id=name, labels=(label,))


def test_what_is_like_the_regions_of_a_class_is_found_by_them_where_there_are_any(studio: Studio, annotated) -> None:
    first, _, third = add(studio, 3)
    boxes = [
        region("a", "Car", keyframe(5, x=10), keyframe(20, x=20, enabled=False)),
        region("b", "Car", keyframe(20, x=60)),
        region("c", "Person", keyframe(20, x=40)),
    ]
    studio.annotations[first] = [{"id": 1, "result": boxes, "updated_at": "2026-11-29"}]
    studio.annotations[third] = [{"id": 2, "result": boxes[2:], "updated_at": "2026-11-29"}]
    engine = StubEngine(answering={"like": {"x": range(40), "y": range(3, 30)}})
    assert annotated(LikeRegions("Car"), engine)[1] == ["3 tasks: 2 done or skipped, 1 to do", "annotated: 1 task"]
    (prediction,) = studio.predictions
    assert prediction["task"] == first
    assert [one["value"]["labels"] for one in prediction["result"]] == [["Car"], ["Car"]]
    assert {one["value"]["sequence"][0]["frame"] for one in prediction["result"]} == {1, 4}, (
        "both ways from the example"
    )
    (phrase,) = engine.searched
    assert (phrase.text, phrase.frame, [exemplar.positive for exemplar in phrase.exemplars]) == ("", 19, [True] * 2)
    assert [round(exemplar.box.x0) for exemplar in phrase.exemplars] == [round(0.2 * 640), round(0.6 * 640)]
    assert annotated(LikeRegions("Car"), engine)[1][0] == "3 tasks: 3 done or skipped, 0 to do"


def test_other_examples_search_again_and_replace(studio: Studio, annotated) -> None:
    (task,) = add(studio, 1)
    engine = StubEngine(answering={"like": {"x": range(40)}})
    for place in (10, 30):
        result = [region("a", "Car", keyframe(5, x=place))]
        studio.annotations[task] = [{"id": 1, "result": result, "updated_at": "2026-11-29"}]
        assert annotated(LikeRegions("Car"), engine)[1][0] == "1 tasks: 0 done or skipped, 1 to do"
    assert len(studio.predictions) == 1
    assert len(engine.searched) == 2


def test_the_command_line_names_the_class(studio: Studio, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(annotate, "run", lambda settings, project, source, **_: asked.append(source) or 0)
    assert main(["project", "annotate", "--project", "1", "--like-regions", "Car"]) == 0
    assert asked == [LikeRegions("Car")]
