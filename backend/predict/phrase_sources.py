"""What to search for in a project's tasks, and how their predictions say so."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import BadRequest
from backend.jobs.spec import ExemplarBox, JobSpec
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.keyframe import boxes_at
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.track_ids import read_shapes
from backend.tracks.prompts import LIKE

LABELS = "labels"


@dataclass(frozen=True, slots=True)
class LikeRegions:
    """Search by examples: the regions of a class that a task's newest annotation has."""

    label: str


PhraseSource = str | tuple[str, ...] | LikeRegions
"""What to search for: "labels" for all labels, the name of a field of the task's data that has phrases, phrases, or
what is like regions."""


def searched_by(spec: JobSpec) -> list[str]:
    """See `describe_search`."""
    return describe_search(spec.phrases, spec.exemplars, *spec.classes)


def describe_search(phrases: Sequence[str], exemplars: Sequence[ExemplarBox], label: str = "") -> list[str]:
    """What a prediction says that was searched for: its phrases, or its examples by their digest."""
    if not exemplars:
        return list(phrases)
    digest = hashlib.sha256(repr(tuple(exemplars)).encode()).hexdigest()[:10]
    return [f"{LIKE} regions of {label} {digest}"]


def find_examples(
    client: LabelStudioClient, task: Mapping[str, Any], config: LabelConfig, label: str
) -> tuple[ExemplarBox, ...]:
    """The boxes of a class on the frame with a keyframe that shows most of them; empty: there are none.

    Raises:
        StudioError: Label Studio does not answer.
    """
    submitted = [one for one in client.annotations(int(task["id"])) if not one.get("was_cancelled")]
    submitted.sort(key=lambda annotation: str(annotation.get("updated_at") or ""))
    results = submitted[-1].get("result") if submitted else []
    regions = [
        region
        for region in read_shapes(results, config.video.name)
        if label in region.labels and not region.is_taken_away
    ]
    frames = sorted({key.frame for region in regions for key in region.keyframes})
    if not frames:
        return ()
    boxes = np.array([boxes_at(region.keyframes, np.array(frames)) for region in regions])
    most = int((~np.isnan(boxes[..., 0])).sum(0).argmax())
    return tuple(
        ExemplarBox(frames[most], (x, y, width, height, 0.0))
        for x, y, width, height in boxes[:, most].tolist()
        if not np.isnan(x)
    )


def read_phrases(data: Mapping[str, Any], config: LabelConfig, source: str | tuple[str, ...]) -> tuple[str, ...]:
    """The phrases of a task.

    Raises:
        BadRequest: it has none.
    """
    if not isinstance(source, str):
        texts: Iterable[Any] = source
    elif source == LABELS:
        texts = [config.phrases[label] for label in config.labels.get(config.video.name, ())]
    else:
        content = data.get(source)
        texts = content if isinstance(content, list) else str(content or "").split(",")
    phrases = tuple(dict.fromkeys(phrase for text in texts if (phrase := " ".join(str(text).split()))))
    if not phrases:
        fix = "give the label config some labels" if source == LABELS else f"write them into its field {source}"
        raise BadRequest(f"the task has no phrases to search for: {fix}")
    return phrases
