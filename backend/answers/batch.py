"""Tracks before anybody asks: a task's objects found by words, answered from what is kept, posted when they are done.

Label Studio asks for a task when it is opened, and for many with "Retrieve predictions"; its page waits for the answer,
so that is never more than what is there.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backend.answers.request import Results, Tools
from backend.errors import BackendError, BadRequest, StudioError, where
from backend.jobs.finding import Finding
from backend.jobs.job import Job
from backend.jobs.recipe import Recipe
from backend.jobs.store import Kept
from backend.labelstudio import config as label_config
from backend.labelstudio import regions
from backend.labelstudio.client import Client
from backend.labelstudio.clock import check_framerate
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.grammar import EVERYWHERE
from backend.labelstudio.regions import Region

log = logging.getLogger(__name__)

OFF, LABELS = "off", "labels"
Source = str | tuple[str, ...]
"""Where phrases come from: "labels", for those of all labels; the name of a task's field; or they themselves."""
_AGAIN = 60.0
"""Seconds until a Label Studio that did not take an answer is asked again."""


class Batch:
    """One per process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._refused: set[int] = set()
        """Jobs that Label Studio did not take: they are answered where they are asked for."""
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._post_all, name="poster", daemon=True)
        tools.runner.done = self._note
        self._wanted.set()  # what an earlier process has left
        self._thread.start()

    def close(self) -> None:
        """Post no more; what is left is posted when the store is next opened."""
        self._closed.set()
        self._wanted.set()
        self._thread.join(1.0)

    def predict(self, tasks: Sequence[Mapping[str, Any]], xml: str, project: str) -> list[Any]:
        """For each task the prediction that is kept, or nothing: then it is made, where `pre_annotate` asks for it.

        Returns:
            One entry a task, an empty list where there is nothing to say; or nothing at all.
        """
        source = self._tools.settings.pre_annotate
        if source == OFF:
            return []
        answers = [self._one(task, xml, project, source) for task in tasks if isinstance(task, Mapping)]
        return answers if any(answers) else []

    def _one(self, task: Mapping[str, Any], xml: str, project: str, source: Source) -> Any:
        job = self.try_queue(task, xml, project, source)
        if job is None:
            return []
        # What can be posted is not answered, too: Label Studio would have it twice.
        is_to_come = self._tools.studios.of(project) and job.number not in self._refused
        return [] if job.state != "done" or is_to_come else self._prediction(job, label_config.parse(xml))

    def try_queue(self, task: Mapping[str, Any], xml: str, project: str, source: Source) -> Job | None:
        """As `queue`; None: the log says why not."""
        try:
            return self.queue(task, xml, project, source)
        except BackendError as error:
            log.warning("task %s is not annotated ahead: %s", task.get("id"), " ".join(str(error).split()))
            return None

    def queue(self, task: Mapping[str, Any], xml: str, project: str, source: Source) -> Job:
        """The job that annotates a task: one that is there, or a new one, which waits until nobody else wants anything.

        Args:
            task: as Label Studio has it.
            xml: the project's label config.
            source: what to look for.

        Raises:
            BackendError: the task has no video, no words, or cannot be taken now.
        """
        recipe = self._recipe(task, label_config.parse(xml), project, source)
        parts = [recipe.url, recipe.framerate, recipe.max_frames, recipe.phrases]
        post = json.dumps({"config": xml, "task": task.get("id")})
        key = (recipe.task, "batch", "")
        job = self._tools.submit(key, self._tools.digest(["batch", *parts]), recipe, batch=True, post=post)
        if job.state == "done":  # it is asked for, so Label Studio may have lost it
            self._tools.store.set_unposted(job.number)
            self._wanted.set()
        return job

    def has(self, client: Client, task: int) -> bool:
        """Whether a task has a prediction of this model.

        Raises:
            StudioError: Label Studio does not answer.
        """
        return self._tools.model_version in {str(one.get("model_version")) for one in client.predictions(task)}

    def _recipe(self, task: Mapping[str, Any], config: LabelConfig, project: str, source: Source) -> Recipe:
        data, video = task.get("data"), config.video
        if not isinstance(data, Mapping):
            raise BadRequest("the task holds no data: import it again with the video's address")
        framerate = video.rate(data)
        check_framerate(framerate)
        return Recipe(
            task=str(task.get("id", "")),
            project=project,
            url=video.url(data),
            framerate=framerate,
            max_frames=self._tools.settings.max_frames,
            phrases=_phrases(data, config, source),
            within=(EVERYWHERE,),
        )

    def _prediction(self, job: Job, config: LabelConfig) -> dict[str, Any]:
        """A prediction, the same whenever it is made: the ids are made of the job's."""
        video, settings = config.video.name, self._tools.settings
        result: Results = []
        scores = []
        for number, (name, one) in enumerate(Finding(job, settings.keyframes.iou).found().items(), start=1):
            identity = hashlib.sha256(f"{job.kept.digest}|{job.kept.key}|{name}".encode(errors="replace")).hexdigest()
            labels = config.named(one.phrase, video)
            region = Region(identity[:10], config.region_control(video), video, labels, (), origin="prediction")
            result += regions.answer(
                region,
                one.items,
                framerate=job.kept.recipe.framerate,
                labels=labels,
                track_id=number,
                engine=self._tools.device.name,
                score=one.score,
                made={"phrase": one.phrase},
            )
            scores.append(one.score)
        score = sum(scores) / len(scores) if scores else 0.0
        return {"result": result, "score": round(score, 4), "model_version": self._tools.model_version}

    # Posting

    def _note(self, job: Job) -> None:
        if job.kept.post:
            self._wanted.set()

    def _post_all(self) -> None:
        left = 0
        while True:
            self._wanted.wait(_AGAIN if left else None)
            self._wanted.clear()
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

    def _post(self, kept: Kept) -> bool:
        """Give a job's answer to Label Studio, unless it has one of this model. False: later."""
        job, client = self._tools.runner.job(kept.number), self._tools.studios.of(kept.recipe.project)
        if job is None or client is None:
            return True  # it is answered from the store, when it is asked for
        posted = json.loads(kept.post or "{}")
        try:
            task = int(posted["task"])
            config = label_config.parse(posted["config"])
            if not self.has(client, task):
                client.add_prediction(task, self._prediction(job, config))
        except BackendError as error:
            self._refused.add(kept.number)
            log.warning("job %d is not posted: %s", kept.number, " ".join(str(error).split()))
            if not (isinstance(error, StudioError) and error.is_final):
                return False
        except Exception as error:
            log.error("job %d cannot be posted: %s", kept.number, where(error))
        else:
            self._refused.discard(kept.number)
        self._tools.store.set_posted(kept.number)
        return True


def _phrases(data: Mapping[str, Any], config: LabelConfig, source: Source) -> tuple[str, ...]:
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
