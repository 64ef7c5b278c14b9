"""Many tracks of many frames on disk: their size, how soon they are read, and how soon they are answered."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.jobs.ended_results import EndedResults
from backend.jobs.job import Job, restore
from backend.jobs.schedule import Progress
from backend.jobs.spec import JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_run import SAVED_FRAMES
from backend.predict.results import TextResult
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES
from backend.tracks.track import ResultBlock
from backend.video import VideoInfo
from benchmarks.jobs_parts.requests import SEED, URL, ask, is_accepted, words
from benchmarks.jobs_parts.servers import Server, place_clip


def store(folder: Path, quick: bool, tracks: int = 50) -> dict[str, Any]:
    frames = 10_000 if quick else 100_000
    path, rng = folder / "jobs.sqlite3", np.random.default_rng(SEED)
    names = tuple(f"car {number}" for number in range(1, tracks + 1))
    phrases = dict.fromkeys(names, "car")
    spec = JobSpec("7", "3", URL, 25.0, ranges=(ALL_FRAMES,), phrases=("car",))
    corners = rng.normal(0, 2, (tracks, frames, 2)).cumsum(1, dtype=np.float32)
    rows = np.concatenate([corners, corners + 90, rng.random((tracks, frames, 1), np.float32)], axis=2)
    begin = time.perf_counter()
    with closing(Store(path, 1 << 40, 30)) as jobs:
        jobs.records.put_video(spec.url, VideoInfo.evenly_spaced(frames, 25, (1280, 720)))
        number = jobs.add("key", "digest", spec, "stub-1", batch=False, post=None).number
        for start in range(0, frames, SAVED_FRAMES):
            span = range(start, min(start + SAVED_FRAMES, frames))
            block = ResultBlock(span, False, names, rows[:, span.start : span.stop], phrases)
            jobs.save(number, names, [(0, block)], Progress(0, span.stop), (span.stop, frames, tracks))
        jobs.set_ended([(number, "done", None, time.time())])
        wrote = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in folder.glob("jobs.sqlite3*"))
    begin = time.perf_counter()
    with closing(Store(path, 1 << 40, 30)) as jobs:
        video_info, row = jobs.records.video(spec.url), jobs.job(number)
        assert video_info
        assert row
        resolved = row.spec.resolve(video_info)
        restore(resolved, row.initial_tracks or (), jobs.blocks(number))
        read = resolved.propagation.tracks()
    seconds = time.perf_counter() - begin
    assert all(np.array_equal(track.boxes, rows[int(name[4:]) - 1, :, :4]) for name, track in read.items())
    assert len(read) == tracks
    print(f"{frames} frames of {tracks} tracks: written in {wrote:.1f} s, {wrote / frames * 1e6:.0f} us a frame")
    return {"bytes_per_object_frame": round(size / frames / tracks, 2), "read_s": round(seconds, 2)}


def answers(folder: Path, quick: bool, tracks: int = 50) -> dict[str, Any]:
    frames = 2_000 if quick else 100_000
    place_clip(folder, 10)
    asked = words("long", 7, "car")
    server = Server.stub(folder, within=10.0, frames=frames)
    assert is_accepted(ask(server.port, asked))
    server.idle()
    server.close()
    settings = Settings(data_dir=folder)
    names = tuple(f"car {number}" for number in range(1, tracks + 1))
    rows, phrases = turning_boxes(tracks, frames), dict.fromkeys(names, "car")
    with closing(Store(folder / "jobs.sqlite3", 1 << 40, 30)) as jobs:
        (row,) = jobs.latest(1)
        jobs.cut(row.number, Progress(), range(0))
        jobs.records.put_video(row.spec.url, VideoInfo.evenly_spaced(frames, 25, (1280, 720)))
        for start in range(0, frames, 4096):
            span = range(start, min(start + 4096, frames))
            block = ResultBlock(span, False, names, rows[:, span.start : span.stop], phrases)
            counts = span.stop, frames, tracks
            jobs.save(row.number, names, [(0, block)], Progress(0, span.stop), counts)
        jobs.set_ended([(row.number, "done", None, time.time())])
        job = Job(jobs.latest(1)[0], EndedResults(jobs).load)
        begin = time.perf_counter()
        found = TextResult(job, settings).choose()  # as the server does while the job goes
        chosen = time.perf_counter() - begin
        assert job.resolved
        jobs.set_memo(row.number, job.resolved.memo.to_bytes())
    server = Server.stub(folder, within=10.0, frames=frames)
    times = []
    for count in (tracks, 0):  # then they are there already
        _, seconds, status, text = ask(server.port, asked)
        assert text.count(b"videorectangle") == count
        assert status == 200
        times.append(seconds)
    server.close()
    keys = sum(len(one.track.keyframes) for one in found.values())
    print(
        f"{keys} keyframes, chosen in {chosen:.1f} s; answered {times[0]:.1f} s after a restart, then {times[1]:.1f} s"
    )
    return {"answer_s": round(times[0], 2), "answer_late_s": round(max(0.0, max(times) - 10.0), 2)}


def turning_boxes(tracks: int, frames: int) -> NDArray[np.float32]:
    """Rows of boxes that turn every 40 frames or so, with the jitter of a detector."""
    rng, turns = np.random.default_rng(SEED), np.arange(0, frames + 40, 40)
    corners = rng.normal(0, 60, (tracks, 2, len(turns))).cumsum(2) % 600
    where = np.arange(frames)
    moves = np.stack([[np.interp(where, turns, axis) for axis in track] for track in corners]).transpose(0, 2, 1)
    moves = moves + rng.normal(0, 0.3, moves.shape)
    return np.concatenate([moves, moves + 90, rng.random((tracks, frames, 1))], axis=2).astype(np.float32)
