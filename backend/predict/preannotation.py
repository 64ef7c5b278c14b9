"""Annotates tasks before anybody opens them: finds their objects by text and adds them to Label Studio as predictions.

Label Studio requests a prediction when a task is opened, and many with "Retrieve predictions". Its page waits for the
response, so that contains only what is computed already.

A task has one prediction of a model, for the phrases that were searched last. Its `neighbors` contain them: Label
Studio returns any JSON there and does not use it, even if nothing was found (seen in 1.23.2). A prediction for other
phrases is added before the old one is deleted, so that an interruption loses neither.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from backend.errors import BackendError, BadRequest, StudioError, one_line, where
from backend.jobs.job import Job
from backend.jobs.rows import JobRow
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec, prompt_digest
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from backend.labelstudio.region import Region, read_track_id
from backend.labelstudio.region_results import build_region, format_prediction, format_region
from backend.labelstudio.track_ids import TrackShape, assign_identities, read_shapes
from backend.predict.connections import Connections
from backend.predict.phrase_sources import (
    LikeRegions,
    PhraseSource,
    describe_search,
    find_examples,
    read_phrases,
    searched_by,
)
from backend.predict.results import TextResult
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES
from backend.tracks.prompts import LIKE
from backend.video.frame_clock import check_framerate

log = logging.getLogger(__name__)

OFF = "off"
_RETRY_SECONDS = 60.0
"""Time until a Label Studio that refused a prediction gets it again."""
_MAX_TRAINING = 8
"""How many projects are gone through at a time."""


@dataclass(frozen=True, slots=True)
class _TaskHistory:
    """The tracks that a task has.

    Attributes:
        track_lists: of each prediction, newest first, and of the newest annotation.
        track_ids: all track ids that the task has used, as far as they are known.
    """

    track_lists: Sequence[Sequence[Region]]
    track_ids: frozenset[int]

    @classmethod
    def from_task(cls, predictions: object, annotations: object, drafts: object, video: str) -> Self:
        """Read lists of Label Studio; missing and invalid ones count as empty."""
        newest = sorted(read_mappings(predictions), key=_prediction_id, reverse=True)
        submitted = [annotation for annotation in read_mappings(annotations) if not annotation.get("was_cancelled")]
        submitted.sort(key=lambda annotation: str(annotation.get("updated_at") or ""))
        track_lists = [
            [region for region in read_shapes(prediction.get("result"), video) if region.track_id]
            for prediction in newest
        ]
        track_lists += [read_shapes(annotation.get("result"), video) for annotation in submitted[-1:]]
        entries = [*newest, *read_mappings(annotations), *read_mappings(drafts)]
        results = [result for entry in entries for result in read_mappings(entry.get("result"))]
        track_ids = {track_id for result in results if (track_id := read_track_id(result.get("meta")))}
        track_ids |= {last for entry in newest if isinstance(last := _prediction_info(entry).get("last"), int)}
        return cls(track_lists, frozenset(track_ids))


class Preannotation:
    """One per process.

    Args:
        post_due: set whenever a job is done whose prediction is to be posted.
    """

    def __init__(
        self,
        settings: Settings,
        pool: WorkerPool,
        store: Store,
        scheduler: Scheduler,
        connections: Connections,
        post_due: threading.Event,
    ) -> None:
        self._settings, self._pool, self._store = settings, pool, store
        self._scheduler, self._connections, self._post_due = scheduler, connections, post_due
        # Numbers of jobs whose predictions Label Studio refused: a request for a prediction returns them.
        self._refused: set[int] = set()
        self._training: set[int] = set()
        self._training_lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._post_loop, name="poster", daemon=True)
        self._post_due.set()  # for jobs of an earlier process
        self._thread.start()

    def close(self) -> None:
        """Stop posting; the rest is posted after the next start."""
        self._closed.set()
        self._post_due.set()
        self._thread.join(1.0)

    def predict(self, tasks: Sequence[Mapping[str, Any]], xml: str, project: str) -> list[Any]:
        """The finished predictions of tasks; the others are queued if the setting `pre_annotate` says so.

        Returns:
            One entry per task, an empty list where there is none; empty if there are none at all.
        """
        source = self._settings.pre_annotate
        if source == OFF:
            return []
        answers = [self._predict_task(task, xml, project, source) for task in tasks if isinstance(task, Mapping)]
        return answers if any(answers) else []

    def _predict_task(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Any:
        job = self._try_queue(task, xml, project, source)
        # A prediction that will be posted is not returned: Label Studio would have it twice.
        if (
            job is None
            or job.state != "done"
            or (self._connections.client(project) and job.number not in self._refused)
        ):
            return []
        config = parse_label_config(xml)
        history = _TaskHistory.from_task(
            task.get("predictions"), task.get("annotations"), task.get("drafts"), config.video.name
        )
        return self._prediction(job, config, history)

    def train(self, project: Mapping[str, Any]) -> None:
        """Annotate all tasks of a project if the setting `pre_annotate` says so; someone pressed "Start training".

        Args:
            project: as Label Studio sends it to its webhook.
        """
        number, source = project.get("id"), self._settings.pre_annotate
        if not isinstance(number, int) or source == OFF:
            return
        xml = str(project.get("label_config") or "")
        with self._training_lock:
            if number in self._training or len(self._training) >= _MAX_TRAINING:
                return  # it goes through the project's tasks already, or too many others do
            self._training.add(number)
            threading.Thread(target=self._annotate, args=(number, xml, source), name="annotate", daemon=True).start()

    def _annotate(self, project: int, xml: str, source: PhraseSource) -> None:
        try:
            client = self._connections.require_client(str(project))
            count = 0
            for task in client.tasks(project):
                if not self.is_annotated(client, task, xml, source):
                    count += self._try_queue(task, xml, str(project), source) is not None
            log.info("project %d: %d tasks are queued for pre-annotation", project, count)
        except BackendError as error:
            log.warning("project %d is not pre-annotated: %s", project, one_line(error))
        finally:
            with self._training_lock:
                self._training.discard(project)

    def _try_queue(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Job | None:
        """As `queue`, but logs an error and returns None."""
        try:
            return self.queue(task, xml, project, source)
        except BackendError as error:
            log.warning("task %s is not pre-annotated: %s", task.get("id"), one_line(error))
            return None

    def queue(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Job:
        """The job that annotates a task: an existing one, or a new one with the lowest priority.

        Args:
            task: as Label Studio sends it.
            xml: the project's label config.
            source: what to search for.

        Raises:
            BackendError: the task has no video or no phrases, or no job can be started now.
        """
        spec = self._job_spec(task, parse_label_config(xml), project, source)
        parts = ["batch", spec.url, spec.framerate, spec.max_frames, *([spec.exemplars] if spec.exemplars else [])]
        parts += [spec.phrases]
        digest = prompt_digest(self._pool.model_version, parts)
        post = json.dumps({"config": xml, "task": task.get("id")})
        self._pool.check_engine()
        job = self._scheduler.submit((spec.task, "batch", ""), digest, spec, batch=True, post=post)
        if job.state == "done":  # it is requested again, so Label Studio may have lost it
            self._store.set_unposted(job.number)
            self._post_due.set()
        return job

    def is_annotated(self, client: LabelStudioClient, task: Mapping[str, Any], xml: str, source: PhraseSource) -> bool:
        """Whether a task has a prediction of this model for these phrases, or for any if it names none.

        Raises:
            StudioError: Label Studio does not answer.
        """
        config = parse_label_config(xml)
        if isinstance(source, LikeRegions):
            exemplars = find_examples(client, task, config, source.label)
            phrases: Sequence[str] | None = describe_search((LIKE,), exemplars, source.label)
            return not exemplars or self.has_prediction(client, task["id"], phrases)
        try:
            phrases = read_phrases(task.get("data") or {}, config, source)
        except BadRequest:
            phrases = None
        return self.has_prediction(client, task["id"], phrases)

    def has_prediction(self, client: LabelStudioClient, task: int, phrases: Sequence[str] | None = None) -> bool:
        """Whether a task has a prediction of this model for these phrases and none for others; None: for any.

        Raises:
            StudioError: Label Studio does not answer.
        """
        current, outdated = self._split_predictions(client.predictions(task), phrases)
        return bool(current) and not outdated

    def _split_predictions(
        self, predictions: Iterable[Mapping[str, Any]], phrases: Sequence[str] | None
    ) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """The predictions of this model: those for these phrases, and those for others."""
        current: list[Mapping[str, Any]] = []
        outdated: list[Mapping[str, Any]] = []
        for prediction in predictions:
            if str(prediction.get("model_version")) == self._pool.model_version:
                searched = _prediction_info(prediction).get("phrases")
                is_current = phrases is None or not isinstance(searched, list) or {*map(str, searched)} == {*phrases}
                (current if is_current else outdated).append(prediction)
        return current, outdated

    def _job_spec(self, task: Mapping[str, Any], config: LabelConfig, project: str, source: PhraseSource) -> JobSpec:
        data, video = task.get("data"), config.video
        if not isinstance(data, Mapping):
            raise BadRequest("the task holds no data: import it again with the video's address")
        framerate = video.rate(data)
        check_framerate(framerate)
        spec = JobSpec(
            task=str(task.get("id", "")),
            project=project,
            url=video.url(task),
            framerate=framerate,
            max_frames=self._settings.max_frames,
            ranges=(ALL_FRAMES,),
        )
        if not isinstance(source, LikeRegions):
            return replace(spec, phrases=read_phrases(data, config, source))
        exemplars = find_examples(self._connections.require_client(project), task, config, source.label)
        if not exemplars:
            raise BadRequest(f"the task has no region of {source.label}: annotate one as the example")
        ends = (None, exemplars[0].frame), (exemplars[0].frame, None)
        return replace(spec, phrases=(LIKE,), exemplars=exemplars, intervals=ends, classes=(source.label,))

    def _prediction(self, job: Job, config: LabelConfig, history: _TaskHistory) -> dict[str, Any]:
        """The prediction of a job; the same job and history always give the same one."""
        video, row = config.video.name, job.row
        detections = TextResult(job, self._settings).detections()
        classes = {
            name: row.spec.classes if row.spec.exemplars else config.classes_of_phrase(each.phrase, video)
            for name, each in detections.items()
        }
        shapes = {
            name: TrackShape(each.track.keyframes, frozenset({each.phrase, *classes[name]}))
            for name, each in detections.items()
        }
        identities = assign_identities(shapes, history.track_lists, history.track_ids)
        taken = {region.id for regions in history.track_lists for region in regions}
        results: list[dict[str, Any]] = []
        for name, detection in detections.items():
            number = identities[name].number
            region_id = identities[name].id or _new_id(f"{row.digest}|{row.key}|{name}", number, taken)
            region = build_region(
                Region(region_id, config.region_control(video), video, classes[name], (), origin="prediction"),
                detection.track,
                track_id=number,
                engine=self._pool.name,
                score=detection.score,
                extra_meta={"phrase": detection.phrase},
            )
            results += format_region(region, row.spec.framerate)
        last = max([0, *history.track_ids, *(identity.number for identity in identities.values())])
        info = {"phrases": searched_by(row.spec), "last": last}
        return format_prediction(results, self._pool.model_version) | {"neighbors": info}

    # Posting

    def _post_loop(self) -> None:
        is_retry_due = False
        while True:
            self._post_due.wait(_RETRY_SECONDS if is_retry_due else None)
            self._post_due.clear()
            try:
                is_retry_due = False
                for row in self._store.unposted():
                    if self._closed.is_set():
                        return
                    is_retry_due |= not self._post(row)
            except Exception as error:  # a full disk, for instance
                log.error("the predictions to post cannot be read: %s", where(error))
                is_retry_due = True
            if self._closed.is_set():
                return

    def _post(self, row: JobRow) -> bool:
        """Post a job's prediction unless the task has it, and delete outdated ones. False: try again later."""
        job, client = self._scheduler.job(row.number), self._connections.client(row.spec.project)
        if job is None or client is None:
            return True  # a request for a prediction returns it
        target = json.loads(row.post or "{}")
        try:
            task = int(target["task"])
            config = parse_label_config(target["config"])
            predictions = client.predictions(task)
            current, outdated = self._split_predictions(predictions, searched_by(row.spec))
            if not current:
                history = _TaskHistory.from_task(
                    predictions, client.annotations(task), client.drafts(task), config.video.name
                )
                client.add_prediction(task, self._prediction(job, config, history))
        except BackendError as error:
            self._refused.add(row.number)
            log.warning("job %d is not posted: %s", row.number, one_line(error))
            if not (isinstance(error, StudioError) and error.is_final):
                return False
        except Exception as error:
            log.error("job %d cannot be posted: %s", row.number, where(error))
        else:
            self._refused.discard(row.number)
            if not _delete_predictions(client, outdated):
                return False
        self._store.set_posted(row.number)
        return True


def _delete_predictions(client: LabelStudioClient, predictions: Iterable[Mapping[str, Any]]) -> bool:
    """Delete predictions. False: try again later."""
    try:
        for prediction in predictions:
            client.delete_prediction(int(prediction["id"]))
    except StudioError as error:
        log.warning("a prediction for other phrases is not deleted: %s", one_line(error))
        return error.is_final
    return True


def _prediction_info(prediction: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a prediction of the backend contains about itself: `phrases`, and `last`, the task's largest track id."""
    info = prediction.get("neighbors")
    return info if isinstance(info, Mapping) else {}


def _prediction_id(prediction: Mapping[str, Any]) -> int:
    number = prediction.get("id")
    return number if isinstance(number, int) else 0


def _new_id(name: str, number: int, taken: set[str]) -> str:
    """A region id that is not taken, the same for the same track."""
    seeds = (name, f"{name}|{number}")
    ids = (hashlib.sha256(seed.encode(errors="replace")).hexdigest()[:10] for seed in seeds)
    return next(region_id for region_id in ids if region_id not in taken)
