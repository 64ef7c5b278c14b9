"""Tracks before anybody asks: a task's objects found by words, answered from what is kept, posted when they are done.

Label Studio asks for a task when it is opened, and for many with "Retrieve predictions"; its page waits for the answer,
so that is never more than what is there.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from backend.answers.request import Results, Tools
from backend.errors import BackendError, BadRequest, StudioError, where
from backend.jobs.finding import Finding
from backend.jobs.job import Job
from backend.jobs.recipe import Recipe
from backend.jobs.store import Kept
from backend.labelstudio import config as label_config
from backend.labelstudio import regions
from backend.labelstudio.clock import check_framerate
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.grammar import EVERYWHERE
from backend.labelstudio.regions import Region

log = logging.getLogger(__name__)

OFF, LABELS = "off", "labels"
_AGAIN = 60.0
"""Seconds until a Label Studio that did not take an answer is asked again."""


class Batch:
    """One per process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
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
        if self._tools.settings.pre_annotate == OFF:
            return []
        config = label_config.parse(xml)
        answers = [self._one(task, config, xml, project) for task in tasks if isinstance(task, Mapping)]
        return answers if any(answers) else []

    def _one(self, task: Mapping[str, Any], config: LabelConfig, xml: str, project: str) -> Any:
        try:
            recipe = self._recipe(task, config, project)
            parts = [recipe.url, recipe.framerate, recipe.max_frames, recipe.phrases]
            post = json.dumps({"config": xml, "task": {"id": task.get("id"), "data": task["data"]}})
            key = (recipe.task, "batch", "")
            job = self._tools.submit(key, self._tools.digest(["batch", *parts]), recipe, batch=True, post=post)
        except BackendError as error:
            log.warning("task %s is not annotated ahead: %s", task.get("id"), " ".join(str(error).split()))
            return []
        if job.state != "done":
            return []
        self._tools.store.set_posted(job.number)  # Label Studio keeps what it asked for
        return self._prediction(job, config, task["data"])

    def _recipe(self, task: Mapping[str, Any], config: LabelConfig, project: str) -> Recipe:
        """What is to be found in a task's video.

        Raises:
            BadRequest: it has no video, or no words.
        """
        data, settings = task.get("data"), self._tools.settings
        if not isinstance(data, Mapping):
            raise BadRequest("the task holds no data: import it again with the video's address")
        video, field = config.video, settings.pre_annotate
        if field == LABELS:
            phrases = [config.phrases[label] for label in config.labels.get(video.name, ())]
        else:
            given = data.get(field)
            listed = given if isinstance(given, list) else str(given or "").split(",")
            phrases = [" ".join(str(one).split()) for one in listed]
        phrases = [phrase for phrase in dict.fromkeys(phrases) if phrase]
        if not phrases:
            raise BadRequest(f"it has no words to look for: write them into its field {field}")
        framerate = video.rate(data)
        check_framerate(framerate)
        return Recipe(
            task=str(task.get("id", "")),
            project=project,
            url=video.url(data),
            framerate=framerate,
            max_frames=settings.max_frames,
            phrases=tuple(phrases),
            within=(EVERYWHERE,),
        )

    def _prediction(self, job: Job, config: LabelConfig, data: Mapping[str, Any]) -> dict[str, Any]:
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
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed.is_set():
                return
            left = 0
            for kept in self._tools.store.unposted():
                if self._closed.is_set():
                    return
                left += not self._post(kept)
            if left and not self._closed.is_set():
                threading.Timer(_AGAIN, self._wanted.set).start()

    def _post(self, kept: Kept) -> bool:
        """Give a job's answer to Label Studio, unless it has one of this model. False: later."""
        job, client = self._tools.runner.job(kept.number), self._tools.studios.of(kept.recipe.project)
        if job is None or client is None:
            return True  # it is answered from the store, when it is asked for
        posted = json.loads(kept.post or "{}")
        job.enter("posting")
        try:
            task = int(posted["task"]["id"])
            config = label_config.parse(posted["config"])
            known = {str(one.get("model_version")) for one in client.predictions(task)}
            if kept.model not in known:
                client.add_prediction(task, self._prediction(job, config, posted["task"]["data"]))
        except StudioError as error:
            log.warning("job %d is not posted yet: %s", kept.number, " ".join(str(error).split()))
            return False
        except Exception as error:
            log.error("job %d cannot be posted: %s", kept.number, where(error))
        finally:
            job.enter("")
        self._tools.store.set_posted(kept.number)
        return True
