"""Workers, actors and nodes that are lost while jobs run."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from backend.jobs.carried import VideoFile, VideoPart, send_video
from backend.jobs.job import Job
from backend.jobs.slots import Slot
from benchmarks.jobs_parts.kills import recomputed
from benchmarks.jobs_parts.servers import until
from benchmarks.scale_parts.ray_nodes import RayNodes
from benchmarks.scale_parts.workers import Workers, actors, is_right, processes, wait

FRAME_SECONDS = 0.004
"""Shorter, so that frames between two states of a session are computed before a kill."""
SEED = 6
KILLS_OF_FETCHES = 6
ROOM = 2
"""Workers on a node."""


class Kill(NamedTuple):
    """Something that was killed, and the tasks of its jobs.

    Attributes:
        noticed_at: when the server has noticed the end of a worker, and the cluster that of a node.
    """

    what: str
    killed_at: float
    noticed_at: float
    tasks: tuple[int, ...]


class Campaign:
    """Kills while jobs run, of which some always wait.

    Attributes:
        lost: jobs that have not ended with the right track.

    Args:
        nodes: those of the actors; None: processes are killed.
    """

    def __init__(self, workers: Workers, nodes: RayNodes | None) -> None:
        self._workers, self._nodes = workers, nodes
        self._rng, self.kills, self.jobs, self.lost = random.Random(SEED), list[Kill](), list[Job](), list[Job]()

    def run(self, counts: Counter[str]) -> None:
        """Kill so many of each kind, in any order, and wait for the jobs."""
        left = [*counts.elements()]
        self._rng.shuffle(left)
        while left:
            while sum(not job.has_ended for job in self.jobs) < 8:
                self.jobs.append(self._workers.submit(len(self.jobs)))
            time.sleep(self._rng.uniform(0.1, 0.5))
            if kill := self._kill_node() if left[-1] == "node" else self._kill_worker(left[-1]):
                self.kills.append(kill)
                left.pop()
        wait(self.jobs)
        self.lost = [job for job in self.jobs if not is_right(job)]

    def costs(self) -> tuple[int, float]:
        """The most frames of a job that a kill cost, and the longest time until the next frame of a job."""
        lines = self._workers.lines()
        costs, resumed = [0], [0.0]
        for task in sorted({task for kill in self.kills for task in kill.tasks}):
            own = [line for line in lines if line.video == task]
            kills = [kill for kill in self.kills if task in kill.tasks]
            marks = [sum(line.at <= kill.killed_at for line in own) for kill in kills]
            costs += recomputed([line.frame for line in own], marks)
            for kill, mark in zip(kills, marks, strict=True):
                seconds = max(own[mark].at - kill.noticed_at, 0.0) if mark < len(own) else 0.0
                resumed.append(seconds)
                if seconds > 5:
                    print(f"a {kill.what}: job of video {task} went on after {seconds:.1f} s", flush=True)
        return max(costs), max(resumed)

    def _slots(self) -> list[Slot]:
        """The workers whose jobs have advanced since they lost another."""

        def has_begun(slot: Slot) -> bool:
            is_ready = self._workers.pool.workers[slot.number].status == "ready"
            has_advanced = bool(slot.running) and not any(job.worker_deaths for job in slot.running)
            return has_advanced and is_ready and time.monotonic() - slot.changed_at > 0.1

        return [slot for slot in self._workers.queue.slots if has_begun(slot)]

    def _has_others(self, slots: Sequence[Slot]) -> bool:
        """Whether other workers are ready, so that the jobs of these can go on elsewhere."""
        lost = {slot.number for slot in slots}
        workers = enumerate(self._workers.pool.workers)
        return any(worker.status == "ready" and number not in lost for number, worker in workers)

    def _kill_worker(self, what: str) -> Kill | None:
        with self._workers.queue.changed:
            slots = [slot for slot in self._slots() if self._has_others([slot])]
            if not slots:
                return None
            slot = self._rng.choice(slots)
        worker = self._workers.pool.workers[slot.number]
        with self._workers.queue.changed:
            tasks = _tasks([slot])
        link = worker._link
        worker.kill()
        until(lambda: worker._link is not link, 30)
        now = time.monotonic()
        return Kill(what, now, now, tasks)

    def _kill_node(self) -> Kill | None:
        """Kill a node all of whose workers have jobs; another takes its place."""
        assert self._nodes
        with self._workers.queue.changed:
            by_node: dict[str, list[Slot]] = {}
            for slot in self._slots():
                link: Any = self._workers.pool.workers[slot.number]._link
                by_node.setdefault(link.node_id(), []).append(slot)
            full = sorted(node for node, slots in by_node.items() if len(slots) == ROOM and self._has_others(slots))
            if not full:
                return None
            node = self._rng.choice(full)
            tasks = _tasks(by_node[node])
        killed_at, noticed_at = self._nodes.kill(node)
        self._nodes.add(ROOM)
        return Kill("node", killed_at, noticed_at, tasks)


def _tasks(slots: Sequence[Slot]) -> tuple[int, ...]:
    return tuple(int(job.row.spec.task) for slot in slots for job in slot.running)


def measure(folder: Path, clip: Path, nodes: RayNodes | None, quick: bool) -> dict[str, Any]:
    """Kill workers; and actors and nodes if there is a cluster."""
    campaigns = []
    with processes(folder / "kills", clip, 4, FRAME_SECONDS) as workers:
        campaigns.append(Campaign(workers, None))
        campaigns[-1].run(Counter(worker=2 if quick else 20))
    if nodes:
        with actors(folder / "node_kills", clip, 2 * ROOM, FRAME_SECONDS) as workers:
            campaigns.append(Campaign(workers, nodes))
            campaigns[-1].run(Counter(actor=1, node=1) if quick else Counter(actor=20, node=10))
    figures: dict[str, Any] = {"kills": 0, "lost_jobs": 0, "max_recomputed": 0, "resumed_s": 0.0}
    for campaign in campaigns:
        for job in campaign.lost:
            print(f"lost: job {job.number} {job.state}, {job.error}", flush=True)
        frames, seconds = campaign.costs()
        counts = Counter(kill.what for kill in campaign.kills)
        told = ", ".join(f"{count} {what}s" for what, count in counts.items())
        noticed = max(kill.noticed_at - kill.killed_at for kill in campaign.kills)
        print(
            f"{told} killed, noticed after at most {noticed:.1f} s, {len(campaign.jobs)} jobs: a kill cost at most "
            f"{frames} frames, and {seconds:.2f} s until the next one",
            flush=True,
        )
        figures["kills"] += len(campaign.kills)
        figures["lost_jobs"] += len(campaign.lost)
        figures["max_recomputed"] = max(figures["max_recomputed"], frames)
        figures["resumed_s"] = round(max(figures["resumed_s"], seconds), 2)
    return figures


def measure_fetches(folder: Path, clip: Path, nodes: RayNodes) -> dict[str, Any]:
    """Jobs on three videos whose workers are killed, so that all workers of both nodes come to need them."""
    from backend.jobs import ray_link

    sent, before, rng = list[Path](), len(nodes.videos()), random.Random(SEED)

    def send(video: VideoFile, send_part: Callable[[VideoPart], None]) -> None:
        sent.append(video.path)
        send_video(video, send_part)

    with (
        patch.object(ray_link, "send_video", send),
        actors(folder / "fetches", clip, 2 * ROOM, FRAME_SECONDS, is_away=True) as workers,
    ):
        for number in range(KILLS_OF_FETCHES):
            jobs = [workers.submit(task, number) for task in range(3)]
            until(partial(_have_begun, jobs), 60)
            name = rng.choice(jobs).worker
            next(worker for worker in workers.pool.workers if worker.device == name).kill()
            wait(jobs)
            if lost := [f"{job.state}, {job.error}" for job in jobs if not is_right(job)]:
                raise RuntimeError(f"jobs are lost: {lost}")
            until(workers.are_ready, 60)
    copies = len(nodes.videos()) - before
    print(f"{KILLS_OF_FETCHES} kills: {len(sent)} videos sent, {copies} lie on the nodes", flush=True)
    return {"fetches_per_node": round(len(sent) / copies, 2)}


def _have_begun(jobs: Sequence[Job]) -> bool:
    return all(job.progress()[0] for job in jobs)
