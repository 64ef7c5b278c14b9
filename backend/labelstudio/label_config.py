"""Reads a label config: its controls for prompts, its labels, and the video's url and framerate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import BadRequest
from backend.labelstudio.task_data import file_address, read_field, read_framerate

_MAX_LENGTH = 1 << 20
"""Characters of a label config."""
COMMAND_CONTROL = "cmd"
"""The control whose labels are keys to press instead of classes."""
WORDS, LINE = "text_prompt", "region_prompt"
"""Names of the text controls for text prompts and for each region's commands. If a config does not contain them, text
controls that are made for prompts are used; all others are the annotators' own."""
PANEL = "panel"
"""The name of the HyperText that shows the live panel."""
ALL = "all"
"""The phrase that stands for those of all labels."""

DEFAULT_FRAMERATE = 24.0
"""Label Studio's framerate if neither the tag nor the task sets it."""
NUMBERS = "frame_numbers"
"""The task's field with the LS frame of each picture of its strip."""


@dataclass(frozen=True, slots=True)
class VideoTag:
    """The object tag `<Video>`: `value` and `framerate` as written; "$name" refers to a field of the task."""

    name: str
    value: str
    framerate: str | None

    def url(self, task: Mapping[str, Any]) -> str:
        """Where a task's video can be fetched.

        Args:
            task: with its `id` and `data`.

        Raises:
            BadRequest: the task has no such field.
        """
        url = self.address(task["data"])
        if not url:
            raise BadRequest(f'the task has no video: its data needs the field "{self.value.lstrip("$")}"')
        return file_address(url, task.get("id"))

    def address(self, data: Mapping[str, Any]) -> str:
        """The video's address as in a task's data; empty if the task has no such field."""
        url = read_field(self.value, data)
        return url if isinstance(url, str) else ""

    def given_rate(self, data: Mapping[str, Any]) -> float | None:
        """Frames per second that the tag or the task's data sets; None: neither does."""
        return read_framerate(read_field(self.framerate or "", data))

    def rate(self, data: Mapping[str, Any]) -> float:
        """Frames per second that Label Studio counts with: from the tag or the task's data, or the default."""
        return self.given_rate(data) or DEFAULT_FRAMERATE


@dataclass(frozen=True, slots=True)
class PointsControl:
    """A control `<KeyPointLabels>` on a strip of the video's frames.

    Attributes:
        pictures: the strip's `valueList` (or `value`) as written.
        classes: the class of a label's objects, for labels that set it: `<Label value="object 1" class="Car"/>`.
    """

    pictures: str
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The parts of a label config that the backend uses.

    Attributes:
        videos: the Video tags by name.
        rectangles: the name of each VideoRectangle and of its Video.
        labels: the classes of each Video's Labels controls, in their order, by the Video's name.
        commands: labels of the control "cmd": keys to press, never classes.
        dynamic: names of Videos that take some or all of their labels from the tasks.
        words: the name of each text control for text prompts and of its Video.
        lines: names of the per-region text controls for commands.
        points: the controls for clicks, by name.
        phrases: the phrase to search for, by class.
        panel: the HyperText's value with the live panel, as written; empty: there is none.
        notes: sentences about what cannot be prompted, and why.
    """

    videos: Mapping[str, VideoTag]
    rectangles: Mapping[str, str]
    labels: Mapping[str, tuple[str, ...]]
    commands: frozenset[str]
    dynamic: frozenset[str]
    words: Mapping[str, str]
    lines: frozenset[str]
    points: Mapping[str, PointsControl]
    phrases: Mapping[str, str]
    panel: str
    notes: tuple[str, ...]

    @property
    def video(self) -> VideoTag:
        """The Video that boxes are drawn on; the first one if there are several."""
        return self.videos[next(iter(self.rectangles.values()))]

    @property
    def strip(self) -> str:
        """The frame strip for clicks, as written; empty: there is none."""
        return next((control.pictures for control in self.points.values()), "")

    def classes(self, labels: tuple[str, ...], video: str) -> tuple[str, ...]:
        """The classes among a region's labels; if there are none, the config's first class.

        Without a class, Label Studio would keep the command's label on the box; as its only label, pressing that key
        again would send no request (seen in 1.23.2).

        Raises:
            BadRequest: a label is not in the config.
        """
        offered = self.labels.get(video, ())
        classes = self.own_classes(labels)
        for label in classes:
            if label not in offered and video not in self.dynamic:
                raise BadRequest(
                    f'the label "{label}" is not in the label config, which has: {", ".join(offered) or "none"}'
                )
        return classes or offered[:1]

    def own_classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The classes among a region's labels: those that are no commands."""
        return tuple(label for label in labels if label not in self.commands)

    def click_classes(self, control: str, label: str, video: str) -> tuple[str, ...]:
        """The class of an object clicked with a label: the label's `class`, the label itself, or the only class."""
        name = self.points[control].classes.get(label, label)
        offered = self.labels.get(video, ())
        return (name,) if name in offered else offered if len(offered) == 1 else ()

    def classes_of_phrase(self, phrase: str, video: str) -> tuple[str, ...]:
        """The class of a phrase: the class whose phrase or name it is, or the only one with which it ends."""
        offered = [label for label in self.labels.get(video, ()) if label in self.phrases]
        words = phrase.casefold().split()
        known = {label: [self.phrases[label].casefold().split(), label.casefold().split()] for label in offered}
        exact = [label for label, names in known.items() if words in names]
        ends = [label for label, names in known.items() if any(words[-len(name) :] == name for name in names if name)]
        return tuple(exact[:1] or (ends if len(ends) == 1 else ()))

    def region_control(self, video: str) -> str:
        """The VideoRectangle of a video's new regions."""
        return next(name for name, target in self.rectangles.items() if target == video)

    def describe(self) -> list[str]:
        """The controls that the backend recognised, a line each; what cannot be prompted comes last."""
        lines = [f"boxes: {', '.join(self.rectangles)}"]
        lines += (
            [f"words: {', '.join(self.words)}"]
            if self.words
            else [f'no words: no TextArea of the video is named "{WORDS}"']
        )
        lines += [f"commands of a region: {', '.join(self.lines)}"] if self.lines else []
        lines += [f"clicks: {', '.join(self.points)}"] if self.points else ["no clicks: there is no strip of frames"]
        lines += [f"track key: {', '.join(sorted(self.commands))}"] if self.commands else []
        return lines + list(self.notes)


def parse_label_config(xml: str) -> LabelConfig:
    """Read a label config.

    Raises:
        BadRequest: it is not XML, or has no Video or no VideoRectangle for it, or is too long.
    """
    if len(xml) > _MAX_LENGTH:
        raise BadRequest(f"the label config has over {_MAX_LENGTH} characters: shorten it")
    return _parse(xml)


@lru_cache(maxsize=64)
def _parse(xml: str) -> LabelConfig:
    try:
        root = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise BadRequest(
            "the label config is not valid XML: open the project's labeling interface and save it again"
        ) from error
    _lower_names(root)
    videos = {
        tag.get("name", ""): VideoTag(tag.get("name", ""), tag.get("value", ""), tag.get("framerate"))
        for tag in root.iter("video")
    }
    if not videos:
        raise BadRequest('the label config has no Video tag: add <Video name="video" value="$video" framerate="$fps"/>')
    rectangles = {
        tag.get("name", ""): tag.get("toname", "") for tag in root.iter("videorectangle") if tag.get("toname") in videos
    }
    if not rectangles:
        raise BadRequest(
            'the label config cannot draw boxes on the video: add <VideoRectangle name="box" toName="video"/>'
        )
    classes: dict[str, tuple[str, ...]] = {}
    commands: set[str] = set()
    dynamic: set[str] = set()
    phrases: dict[str, str] = {}
    for control in root.iter("labels"):
        # Label Studio sends a label's alias instead of its value.
        labels = {_name(label): _phrase(label) for label in control.iter("label")}
        if control.get("name") == COMMAND_CONTROL:
            commands.update(labels)
            continue
        for video in videos.keys() & control.get("toname", "").split(","):
            classes[video] = (*classes.get(video, ()), *labels)
            phrases |= labels
            if control.get("value", "").startswith("$"):
                dynamic.add(video)
    texts = [tag for tag in root.iter("textarea") if tag.get("toname") in rectangles.values()]
    words = _ours(WORDS, (tag for tag in texts if tag.get("perregion") != "true"))
    lines = _ours(LINE, (tag for tag in texts if tag.get("perregion") == "true"))
    return LabelConfig(
        videos=videos,
        rectangles=rectangles,
        labels=classes,
        commands=frozenset(commands),
        dynamic=frozenset(dynamic),
        words={tag.get("name", ""): tag.get("toname", "") for tag in words},
        lines=frozenset(tag.get("name", "") for tag in lines),
        points=_points(root),
        phrases=phrases,
        panel=_panel(root),
        notes=tuple(_notes(root, videos, (*words, *lines))),
    )


def _panel(root: Element) -> str:
    values = (tag.get("value", "") for tag in root.iter("hypertext") if tag.get("name") == PANEL)
    return next((value for value in values if value.startswith("$")), "")


def _lower_names(root: Element) -> None:
    """Lower-case the names of tags and attributes, as Label Studio's page does (seen in 1.23.2)."""
    for tag in root.iter():
        tag.tag = tag.tag.lower()
        attributes = {name.lower(): value for name, value in tag.attrib.items()}
        tag.attrib.clear()
        tag.attrib.update(attributes)


def _name(label: Element) -> str:
    return label.get("alias", "") or label.get("value", "")


def _phrase(label: Element) -> str:
    """The phrase to search for. Label Studio accepts attributes that it does not know (seen in 1.23.2)."""
    phrases = (label.get(name, "").strip() for name in ("phrase", "predicted_values"))
    return next((phrase for phrase in phrases if phrase), _name(label).lower())


def _ours(name: str, controls: Iterable[Element]) -> list[Element]:
    """The control with this name, or if there is none, those that are made for prompts."""
    controls = list(controls)
    return [tag for tag in controls if tag.get("name") == name] or [tag for tag in controls if _is_for_prompts(tag)]


def _is_for_prompts(control: Element) -> bool:
    """Whether it exists for an ML backend alone, or is called a prompt as in Label Studio's own examples."""
    return control.get("smartonly") == "true" or "prompt" in control.get("name", "").lower()


def _points(root: Element) -> dict[str, PointsControl]:
    pictures = {tag.get("name", ""): tag.get("valuelist", "") or tag.get("value", "") for tag in root.iter("image")}
    return {
        control.get("name", ""): PointsControl(
            pictures[control.get("toname", "")],
            {_name(label): label.get("class", "") for label in control.iter("label") if label.get("class")},
        )
        for control in root.iter("keypointlabels")
        if control.get("toname") in pictures
    }


def _notes(root: Element, videos: Mapping[str, VideoTag], prompts: Iterable[Element]) -> Iterable[str]:
    for tag in root.iter("keypointlabels"):
        if tag.get("toname") in videos:
            yield (
                f'"{tag.get("name")}" breaks the page: Label Studio has no KeyPointLabels on a Video, point its toName '
                'at <Image name="frames" valueList="$frames"/>'
            )
        elif tag.get("smart") == "false":
            yield f'clicks of "{tag.get("name")}" send no requests: remove its smart="false"'
    for kind in ("VideoVector", "ReactCode", "CustomInterface"):
        if root.find(f".//{kind.lower()}") is not None:
            yield f"{kind} exists only in Label Studio Enterprise: the page cannot open with it"
    for tag in (*root.iter("videorectangle"), *prompts):
        if tag.get("toname") in videos and tag.get("smart") == "false":
            yield f'"{tag.get("name")}" sends no requests: replace its smart="false" by smartOnly="true"'
    for video in videos.values():
        if not video.framerate:
            yield (
                f'frames are counted at {DEFAULT_FRAMERATE:g} a second: add framerate="$fps" to the Video '
                f'"{video.name}", and fps to the tasks, or boxes drift'
            )
