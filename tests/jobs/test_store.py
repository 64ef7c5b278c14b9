import os
import sqlite3
import threading
import time
from collections.abc import Container
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import SettingsError, explain_unwritable
from backend.jobs.rows import State
from backend.jobs.saved_masks import read_mask_blocks
from backend.jobs.schedule import Progress
from backend.jobs.spec import FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.track import ABSENT, FrameResult, Observation, ResultBlock
from backend.video import VideoInfo

SPEC = JobSpec("7", "3", "/clip.mp4", 25.0, prompts=(FramePrompts(1, (10, 10, 20, 20, 0)),), intervals=((1, None),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite3"


def open_store(path: Path, most_bytes: int = 2**30, most_days: float = 30) -> Store:
    return Store(path, most_bytes, most_days)


def add_job(store: Store, digest: str = "d", **changes) -> int:
    return store.add("k", digest, SPEC, "stub-1", **{"batch": False, "post": None, **changes}).number


def end_job(store: Store, number: int, state: State = "done") -> None:
    store.set_ended([(number, state, None, time.time())])


def blocks(frames: range, reverse: bool = False, masks: bool = False) -> list[ResultBlock]:
    order = reversed(frames) if reverse else frames
    mask = Rle.from_mask(np.eye(3, dtype=bool)) if masks else None
    results = [
        FrameResult(at, {"a": Observation(Box(at, 0, at + 1.5, 2), 0.25, mask), "b": ABSENT}, {"b": "car"})
        for at in order
    ]
    return ResultBlock.from_results(results, reverse, masks)


def equal_blocks(one: ResultBlock, other: ResultBlock) -> bool:
    alike = [(b.frames, b.reverse, b.tracks, b.phrases, b.masks) for b in (one, other)]
    return alike[0] == alike[1] and np.array_equal(one.rows, other.rows, equal_nan=True)


def test_a_job_and_its_results_survive_a_restart(path: Path) -> None:
    store = open_store(path)
    number = add_job(store)
    saved = [(0, one) for one in (*blocks(range(5), masks=True), *blocks(range(5, 9), masks=True))]
    store.save(number, ["x"], saved, Progress(0, 9), (9, 100, 2))
    store.save(number, ["x"], [(1, *blocks(range(3, 6), reverse=True))], Progress(1, 3), (12, 100, 2))
    store.close()
    store = open_store(path)
    (row,) = store.unfinished()
    assert (row.number, row.spec, row.model) == (number, SPEC, "stub-1")
    assert (row.progress, row.initial_tracks) == (Progress(1, 3), ("x",))
    assert (row.frames, row.track_count) == ((12, 100), 2)
    (index, first), (last_index, last) = store.blocks(number)
    assert (index, last_index) == (0, 1)
    assert equal_blocks(first, *blocks(range(9), masks=True)), "joined, and as it was"
    assert equal_blocks(last, *blocks(range(3, 6), reverse=True))
    store.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=8))
def test_blocks_hold_the_results_they_are_built_from(parts: list[tuple[bool, int]]) -> None:
    """However results are cut into blocks, the tracks that they name and where are the same."""
    at, results = 0, []
    for named, count in parts:
        for frame in range(at, at + count):
            tracks = {"a": Observation(Box(frame, 0, frame + 1, 1), 0.5)} | ({"b": ABSENT} if named else {})
            results.append(FrameResult(frame, tracks))
        at += count
    joined = ResultBlock.from_results(results, reverse=False)
    assert [frame for block in joined for frame in block.frames] == list(range(at))
    tracks_at = {frame: block.tracks for block in joined for frame in block.frames}
    assert all(tracks_at[result.frame] == tuple(result.tracks) for result in results)
    assert all(not np.isnan(block.rows[0]).any() for block in joined)


def test_job_states_and_which_jobs_can_be_joined(path: Path) -> None:
    store = open_store(path)
    first, second = add_job(store, "1"), add_job(store, "2", post="{}")
    end_job(store, first, "cancelled")
    end_job(store, second)
    assert store.unfinished() == []
    assert [one.number for one in store.unposted()] == [second]
    store.set_posted(second)
    assert store.unposted() == []
    assert store.find("k", "1").state == "cancelled"
    assert store.newest("k").number == second
    store.forget("k")
    assert store.find("k", "1") is None
    assert [one.number for one in store.latest(9)] == [second, first]
    store.close()


def test_pruning_deletes_old_jobs_and_keeps_unfinished_ones(path: Path) -> None:
    store = open_store(path)
    running, *ended = [add_job(store, str(number)) for number in range(40)]
    rows = np.random.default_rng(1).random((1, 2000, 5), np.float32)
    for number in (running, *ended):
        store.save(number, [], [(0, ResultBlock(range(2000), False, ("a",), rows))], Progress(0, 2000), (1, 1, 1))
    for number in ended:
        end_job(store, number)
    store.close()
    store = open_store(path, most_bytes=900_000)
    left = [one.number for one in store.latest(99)]
    assert running in left
    assert 5 < len(left) < 25
    assert sorted(left)[1:] == ended[-len(left) + 1 :], "the newest stay"
    store.close()
    store = open_store(path, most_days=0)
    assert [one.number for one in store.latest(99)] == [running]
    assert store.records.video("/clip.mp4") is None
    store.close()


def test_videos_clicks_and_connections(path: Path) -> None:
    store = open_store(path)
    store.records.put_video("/a\ud800", VideoInfo.evenly_spaced(9, 25, (64, 48)))
    video = store.records.video("/a\ud800")
    assert (video.end, video.size) == (0.36, (64, 48))
    assert np.array_equal(video.times, np.arange(9) / 25)
    store.records.put_click("7", "p", False)
    assert (store.records.is_click_positive("7", "p"), store.records.is_click_positive("8", "p")) == (False, None)
    store.records.put_connection("3", "http://studio", "t0ken")
    assert (store.records.connection("3"), store.records.connection("4")) == (("http://studio", "t0ken"), None)
    assert path.stat().st_mode & 0o77 == 0, "tokens are nobody else's to read"
    store.close()


def test_a_copy_is_consistent_while_others_write(path: Path, tmp_path: Path) -> None:
    store, stop = open_store(path), threading.Event()
    number = add_job(store)

    def write() -> None:
        at = 0
        while not stop.is_set():
            store.save(number, [], [(0, *blocks(range(at, at + 10)))], Progress(0, at + 10), (at + 10, 10**6, 1))
            at += 10

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for which in range(5):
            store.copy(tmp_path / f"{which}.sqlite3")
    finally:
        stop.set()
        thread.join()
        store.close()
    for which in range(5):
        copied = open_store(tmp_path / f"{which}.sqlite3")
        (job,) = copied.unfinished()
        reached = [frame for _, block in copied.blocks(number) for frame in block.frames]
        assert reached == list(range(job.progress.done))
        copied.close()


def test_a_second_process_and_a_newer_file_are_refused(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(SettingsError, match="--data-dir"):
        open_store(path)
    store.close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(SettingsError, match="newer sam3-backend"):
        open_store(path)


def mask_blocks(path: Path, *job_of: str, masks: Container[int] = range(99)) -> list[tuple[int, int, ResultBlock]]:
    task, project, url = job_of or (SPEC.task, SPEC.project, SPEC.url)
    return list(read_mask_blocks(path, task, project, url, masks))


def test_masks_are_read_while_a_server_writes(path: Path) -> None:
    store = open_store(path)
    first, plain, other, last = (add_job(store, digest) for digest in "1234")
    (shown,) = blocks(range(4), masks=True)
    (later,) = blocks(range(4, 6), reverse=True, masks=True)
    for number in (first, other, last):
        store.save(number, [], [(0, shown)], Progress(0, 4), (4, 9, 2))
    store.save(first, [], [(1, later), (2, *blocks(range(6, 9)))], Progress(2, 3), (9, 9, 2))
    store.save(plain, [], [(0, *blocks(range(4)))], Progress(0, 4), (4, 9, 2))
    found = mask_blocks(path)
    assert [(job, index) for job, index, _ in found] == [(first, 0), (first, 1), (other, 0), (last, 0)]
    expected = (shown, later, shown, shown)
    assert all(equal_blocks(block, one) for (_, _, block), one in zip(found, expected, strict=True))
    boxes = mask_blocks(path, masks=[other])
    assert [(job, index, block.frames) for job, index, block in boxes] == [
        (job, index, one.frames) for job, index, one in found
    ]
    assert [job for job, _, block in boxes if block.masks] == [other]
    store.save(last, [], [(1, later)], Progress(1, 2), (6, 9, 2))
    assert len(mask_blocks(path)) == 5, "nothing was in the index of the server's next word"
    store.close()
    assert len(mask_blocks(path)) == 5, "nor does anybody have to be at work"


def test_masks_are_of_one_task_and_project(path: Path) -> None:
    store = open_store(path)
    number = add_job(store)
    store.save(number, [], [(0, *blocks(range(4), masks=True))], Progress(0, 4), (4, 9, 2))
    store.close()
    assert len(mask_blocks(path)) == 1
    for job_of in (("8", "3", "/clip.mp4"), ("7", "4", "/clip.mp4"), ("7", "3", "/other.mp4"), ("7", "3", "\ud800")):
        assert mask_blocks(path, *job_of) == []


def test_a_missing_file_has_no_masks_and_a_broken_one_is_reported(path: Path) -> None:
    assert mask_blocks(path) == []
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    assert mask_blocks(path) == []
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(SettingsError, match="newer sam3-backend"):
        mask_blocks(path)
    path.write_bytes(b"no database at all, but as long as one" * 99)
    with pytest.raises(SettingsError, match="--data-dir"):
        mask_blocks(path)


def test_the_owner_of_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    told = explain_unwritable(tmp_path / "below" / "it", PermissionError(13, "Permission denied"))
    assert f"belongs to user {tmp_path.stat().st_uid}, and this process runs as user {os.getuid()}" in told
    assert f"chown -R {os.getuid()}" in told
    assert str(tmp_path) not in told


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="data_dir is not writable"):
        open_store(tmp_path / "file" / "jobs.sqlite3")
