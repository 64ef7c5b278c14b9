"""Tracks before anybody asks: a task's objects found by words, answered from what is kept, posted when they are done.

Label Studio asks for a task when it is opened, and for many with "Retrieve predictions"; its page waits for the answer,
so that is never more than what is there.

A task has one prediction of a model, for the phrases that were asked for last. Label Studio keeps with it which these
were, in `neighbors`: any JSON, which it hands back and uses for nothing, also where nothing was found (1.23.2). Another
one for other phrases is posted before the old one goes: broken off in between, the next time finds both.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from backend.errors import BackendError, BadRequest, StudioError, one_line, where
from backend.jobs.job import Job
from backend.jobs.rows import JobRow
from backend.jobs.spec import JobSpec
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from backend.labelstudio.region import Region, read_track_id
from backend.labelstudio.region_results import build_results
from backend.labelstudio.track_ids import TrackShape, assign_identities, read_shapes
from backend.predict.request_context import Results, Tools
from backend.predict.text_results import TextResult
from backend.tracks.frame_range import ALL_FRAMES
from backend.video.frame_clock import check_framerate

log = logging.getLogger(__name__)

OFF, LABELS = "off", "labels"
PhraseSource = str | tuple[str, ...]
"""Where phrases come from: "labels", for those of all labels; the name of a task's field; or they themselves."""
_RETRY_SECONDS = 60.0
"""Seconds until a Label Studio that did not take an answer is asked again."""


@dataclass(frozen=True, slots=True)
class _TaskHistory:
    """What a task had before it is given a prediction.

    Attributes:
        known: the tracks of its predictions, newest first, and of its newest annotation.
        numbers: all that any track of the task ever had, as far as it is told.
    """

    track_lists: Sequence[Sequence[Region]]
    numbers: frozenset[int]

    @classmethod
    def from_task(cls, predictions: object, annotations: object, drafts: object, video: str) -> Self:
        """As Label Studio lists them; what it does not tell is none."""
        newest = sorted(read_mappings(predictions), key=_number, reverse=True)
        submitted = [one for one in read_mappings(annotations) if not one.get("was_cancelled")]
        submitted.sort(key=lambda one: str(one.get("updated_at") or ""))
        tracks = [[one for one in read_shapes(each.get("result"), video) if one.track_id] for each in newest]
        tracks += [read_shapes(each.get("result"), video) for each in submitted[-1:]]
        holders = [*newest, *read_mappings(annotations), *read_mappings(drafts)]
        results = [one for each in holders for one in read_mappings(each.get("result"))]
        numbers = {number for one in results if (number := read_track_id(one.get("meta")))}
        numbers |= {last for each in newest if isinstance(last := _made_of(each).get("last"), int)}
        return cls(tracks, frozenset(numbers))


class Preannotation:
    """One per process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._refused: set[int] = set()
        """Jobs that Label Studio did not take: they are answered where they are asked for."""
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._post_all, name="poster", daemon=True)
        tools.scheduler.on_done = self._on_done
        self._wake.set()  # what an earlier process has left
        self._thread.start()

    def close(self) -> None:
        """Post no more; what is left is posted when the store is next opened."""
        self._closed.set()
        self._wake.set()
        self._thread.join(1.0)

    def predict(self, tasks: Sequence[Mapping[str, Any]], xml: str, project: str) -> list[Any]:
        """For each task the prediction that is kept, or nothing: then it is made, where `pre_annotate` asks for it.

        Returns:
            One entry a task, an empty list where there is nothing to say; or nothing at all.
        """
        source = self._tools.settings.pre_annotate
        if source == OFF:
            return []
        answers = [self._predict_task(task, xml, project, source) for task in tasks if isinstance(task, Mapping)]
        return answers if any(answers) else []

    def _predict_task(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Any:
        job = self.try_queue(task, xml, project, source)
        if job is None:
            return []
        # What can be posted is not answered, too: Label Studio would have it twice.
        is_to_come = self._tools.connections.client(project) and job.number not in self._refused
        if job.state != "done" or is_to_come:
            return []
        config = parse_label_config(xml)
        before = _TaskHistory.from_task(
            task.get("predictions"), task.get("annotations"), task.get("drafts"), config.video.name
        )
        return self._prediction(job, config, before)

    def try_queue(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Job | None:
        """As `queue`; None: the log says why not."""
        try:
            return self.queue(task, xml, project, source)
        except BackendError as error:
            log.warning("task %s is not annotated ahead: %s", task.get("id"), one_line(error))
            return None

    def queue(self, task: Mapping[str, Any], xml: str, project: str, source: PhraseSource) -> Job:
        """The job that annotates a task: one that is there, or a new one, which waits until nobody else wants anything.

        Args:
            task: as Label Studio has it.
            xml: the project's label config.
            source: what to look for.

        Raises:
            BackendError: the task has no video, no words, or cannot be taken now.
        """
        recipe = self._job_spec(task, parse_label_config(xml), project, source)
        parts = [recipe.url, recipe.framerate, recipe.max_frames, recipe.phrases]
        post = json.dumps({"config": xml, "task": task.get("id")})
        key = (recipe.task, "batch", "")
        job = self._tools.submit(key, self._tools.digest(["batch", *parts]), recipe, batch=True, post=post)
        if job.state == "done":  # it is asked for, so Label Studio may have lost it
            self._tools.store.set_unposted(job.number)
            self._wake.set()
        return job

    def has_prediction(self, client: LabelStudioClient, task: int, phrases: Sequence[str] | None = None) -> bool:
        """Whether a task has a prediction of this model, for these phrases and no others; None: for any.

        Raises:
            StudioError: Label Studio does not answer.
        """
        right, stale = self._split_predictions(client.predictions(task), phrases)
        return bool(right) and not stale

    def phrases(self, task: Mapping[str, Any], xml: str, source: PhraseSource) -> tuple[str, ...] | None:
        """What is to be looked for in a task; None: that cannot be told."""
        try:
            return _phrases(task.get("data") or {}, parse_label_config(xml), source)
        except BadRequest:
            return None

    def _split_predictions(
        self, predictions: Iterable[Mapping[str, Any]], phrases: Sequence[str] | None
    ) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """The predictions of this model: those for these phrases, and those that are known to be for others."""
        ours = [one for one in predictions if str(one.get("model_version")) == self._tools.model_version]
        made = [_made_of(one).get("phrases") for one in ours]
        stale = [
            one
            for one, its in zip(ours, made, strict=True)
            if phrases is not None and isinstance(its, list) and {*map(str, its)} != {*phrases}
        ]
        return [one for one in ours if one not in stale], stale

    def _job_spec(self, task: Mapping[str, Any], config: LabelConfig, project: str, source: PhraseSource) -> JobSpec:
        data, video = task.get("data"), config.video
        if not isinstance(data, Mapping):
            raise BadRequest("the task holds no data: import it again with the video's address")
        framerate = video.rate(data)
        check_framerate(framerate)
        return JobSpec(
            task=str(task.get("id", "")),
            project=project,
            url=video.url(data),
            framerate=framerate,
            max_frames=self._tools.settings.max_frames,
            phrases=_phrases(data, config, source),
            ranges=(ALL_FRAMES,),
        )

    def _prediction(self, job: Job, config: LabelConfig, before: _TaskHistory) -> dict[str, Any]:
        """A prediction, the same whenever it is made of the same: new ids are made of the job's."""
        video, settings = config.video.name, self._tools.settings
        found = TextResult(job, settings).detections()
        classes = {name: config.classes_of_phrase(one.phrase, video) for name, one in found.items()}
        sights = {
            name: TrackShape(one.made.keyframes, frozenset({one.phrase, *classes[name]})) for name, one in found.items()
        }
        known = assign_identities(sights, before.track_lists, before.numbers)
        taken = {region.id for tracks in before.track_lists for region in tracks}
        result: Results = []
        scores = []
        for name, one in found.items():
            labels, number = classes[name], known[name].number
            own = known[name].id or _new_id(f"{job.row.digest}|{job.row.key}|{name}", number, taken)
            region = Region(own, config.region_control(video), video, labels, (), origin="prediction")
            result += build_results(
                region,
                one.made.keyframes,
                framerate=job.row.spec.framerate,
                labels=labels,
                track_id=number,
                engine=self._tools.worker.name,
                score=one.score,
                iou=one.made.iou,
                made_of={"phrase": one.phrase},
            )
            scores.append(one.score)
        score = sum(scores) / len(scores) if scores else 0.0
        last = max([0, *before.numbers, *(one.number for one in known.values())])
        made = {"phrases": list(job.row.spec.phrases), "last": last}
        version = self._tools.model_version
        return {"result": result, "score": round(score, 4), "model_version": version, "neighbors": made}

    # Posting

    def _on_done(self, job: Job) -> None:
        if job.row.post:
            self._wake.set()

    def _post_all(self) -> None:
        left = 0
        while True:
            self._wake.wait(_RETRY_SECONDS if left else None)
            self._wake.clear()
            try:
                left = 0
                for kept in self._tools.store.unposted():
                    if self._closed.is_set():
                        return
                    left += not self._post(kept)
            except Exception as error:  # a full disk, for instance
                log.error("what is to be posted cannot be read: %s", where(error))
                left = 1
            if self._closed.is_set():
                return

    def _post(self, kept: JobRow) -> bool:
        """Give a job's answer to Label Studio, unless it has it, instead of one for other phrases. False: later."""
        job, client = self._tools.scheduler.job(kept.number), self._tools.connections.client(kept.spec.project)
        if job is None or client is None:
            return True  # it is answered from the store, when it is asked for
        posted = json.loads(kept.post or "{}")
        try:
            task = int(posted["task"])
            config = parse_label_config(posted["config"])
            predictions = client.predictions(task)
            right, stale = self._split_predictions(predictions, kept.spec.phrases)
            if not right:
                before = _TaskHistory.from_task(
                    predictions, client.annotations(task), client.drafts(task), config.video.name
                )
                client.add_prediction(task, self._prediction(job, config, before))
        except BackendError as error:
            self._refused.add(kept.number)
            log.warning("job %d is not posted: %s", kept.number, one_line(error))
            if not (isinstance(error, StudioError) and error.is_final):
                return False
        except Exception as error:
            log.error("job %d cannot be posted: %s", kept.number, where(error))
        else:
            self._refused.discard(kept.number)
            if not _delete_predictions(client, stale):
                return False
        self._tools.store.set_posted(kept.number)
        return True


def _delete_predictions(client: LabelStudioClient, stale: Iterable[Mapping[str, Any]]) -> bool:
    """Take predictions away. False: later."""
    try:
        for one in stale:
            client.delete_prediction(int(one["id"]))
    except StudioError as error:
        log.warning("a prediction for other words is not taken away: %s", one_line(error))
        return error.is_final
    return True


def _made_of(prediction: Mapping[str, Any]) -> Mapping[str, Any]:
    """What one of ours was made of: `phrases`, and `last`, the last number that its task had used."""
    made = prediction.get("neighbors")
    return made if isinstance(made, Mapping) else {}


def _number(prediction: Mapping[str, Any]) -> int:
    number = prediction.get("id")
    return number if isinstance(number, int) else 0


def _new_id(name: str, number: int, taken: set[str]) -> str:
    """An id that no track had before."""
    ways = (hashlib.sha256(way.encode(errors="replace")).hexdigest()[:10] for way in (name, f"{name}|{number}"))
    return next(way for way in ways if way not in taken)


def _phrases(data: Mapping[str, Any], config: LabelConfig, source: PhraseSource) -> tuple[str, ...]:
    if not isinstance(source, str):
        given: Iterable[Any] = source
    elif source == LABELS:
        given = [config.phrases[label] for label in config.labels.get(config.video.name, ())]
    else:
        held = data.get(source)
        given = held if isinstance(held, list) else str(held or "").split(",")
    phrases = tuple(dict.fromkeys(phrase for one in given if (phrase := " ".join(str(one).split()))))
    if not phrases:
        where_to = "give the label config some labels" if source == LABELS else f"write them into its field {source}"
        raise BadRequest(f"the task has no words to look for: {where_to}")
    return phrases
