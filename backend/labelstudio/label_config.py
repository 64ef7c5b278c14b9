"""The label config: what can be prompted, which labels it offers, where the video's url and framerate come from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import BadRequest

COMMAND_CONTROL = "cmd"
"""The control whose labels are keys to press, not classes."""
WORDS, LINE = "text_prompt", "region_prompt"
"""Our names of the line for words and of each region's line for commands. Where a config has them, other text controls
are the annotators' own; where it has not, any text control of the video is taken for one."""
ALL = "all"
"""The phrase that stands for every label's."""

DEFAULT_FRAMERATE = 24.0
"""What Label Studio counts with where neither the tag nor the task says otherwise."""
NUMBERS = "frame_numbers"
"""The task's field that tells which LS frame each picture of its strip is."""


def read_field(value: str, data: Mapping[str, Any]) -> Any:
    """What a tag's attribute says for a task: "$name" stands for a field of the task's data."""
    return data.get(value[1:]) if value.startswith("$") else value


@dataclass(frozen=True, slots=True)
class VideoTag:
    """The object tag `<Video>`: `value` and `framerate` as written, "$name" standing for a field of the task."""

    name: str
    value: str
    framerate: str | None

    def url(self, data: Mapping[str, Any]) -> str:
        """The video's address in a task's data.

        Raises:
            BadRequest: the task has no such field.
        """
        url = read_field(self.value, data)
        if not isinstance(url, str) or not url:
            raise BadRequest(f'the task has no video: its data needs the field "{self.value.lstrip("$")}"')
        return url

    def rate(self, data: Mapping[str, Any]) -> float:
        """Frames per second that Label Studio counts with, from the tag or the task's data, else its default."""
        try:
            return float(str(read_field(self.framerate or "", data)))
        except ValueError:
            return DEFAULT_FRAMERATE


@dataclass(frozen=True, slots=True)
class PointsControl:
    """A control `<KeyPointLabels>` on a strip of the video's frames.

    Attributes:
        pictures: the strip's `valueList` (or `value`) as written.
        classes: the class that a label's objects get, for labels that say so: `<Label value="object 1" class="Car"/>`.
    """

    pictures: str
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What of a label config matters here.

    Attributes:
        videos: the Video tags by name.
        rectangles: the name of each VideoRectangle, and of the Video that it draws on.
        labels: for each Video's name, the classes that its Labels controls offer, in their order.
        commands: labels of the control "cmd": keys to press, never a class.
        dynamic: names of Videos whose labels come, at least in part, from the tasks.
        words: the name of each line for words, and of its Video.
        lines: names of each region's lines for commands.
        points: the controls for clicks, by name.
        phrases: by class, the words that stand for it.
        notes: what in the config cannot be prompted, and why: sentences.
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
    notes: tuple[str, ...]

    @property
    def video(self) -> VideoTag:
        """The Video that boxes are drawn on; of several the first."""
        return self.videos[next(iter(self.rectangles.values()))]

    @property
    def strip(self) -> str:
        """The strip of frames that clicks are made on, as written; empty: there is none."""
        return next((control.pictures for control in self.points.values()), "")

    def classes(self, given: tuple[str, ...], video: str) -> tuple[str, ...]:
        """The classes among a region's labels; where none is set, the config's first.

        Label Studio would keep the command's label on a box without a class, and from then on pressing that key on it
        sends nothing, since the box carries no other label (seen in 1.23.2).

        Raises:
            BadRequest: a label is not in the config.
        """
        offered = self.labels.get(video, ())
        classes = tuple(label for label in given if label not in self.commands)
        for label in classes:
            if label not in offered and video not in self.dynamic:
                raise BadRequest(
                    f'the label "{label}" is not in the label config, which has: {", ".join(offered) or "none"}'
                )
        return classes or offered[:1]

    def click_classes(self, control: str, label: str, video: str) -> tuple[str, ...]:
        """The class of what is clicked with a label of a control for clicks: what it says, itself, or the first."""
        says = self.points[control].classes.get(label, label)
        offered = self.labels.get(video, ())
        return (says,) if says in offered else offered[:1]

    def classes_of_phrase(self, phrase: str, video: str) -> tuple[str, ...]:
        """The class that a phrase means: the one whose words it is, or the only one whose words it ends with."""
        offered = [label for label in self.labels.get(video, ()) if label in self.phrases]
        words = phrase.casefold().split()
        known = {label: [self.phrases[label].casefold().split(), label.casefold().split()] for label in offered}
        exact = [label for label, ways in known.items() if words in ways]
        ends = [label for label, ways in known.items() if any(words[-len(way) :] == way for way in ways if way)]
        return tuple(exact[:1] or (ends if len(ends) == 1 else ()))

    def region_control(self, video: str) -> str:
        """The VideoRectangle that new regions of a video belong to."""
        return next(name for name, of in self.rectangles.items() if of == video)

    def describe(self) -> list[str]:
        """How the config was understood, a sentence each; what cannot be prompted comes last."""
        told = [f"boxes: {', '.join(self.rectangles)}"]
        told += [f"words: {', '.join(self.words)}"] if self.words else ["no words: there is no TextArea on the video"]
        told += [f"commands of a region: {', '.join(self.lines)}"] if self.lines else []
        told += [f"clicks: {', '.join(self.points)}"] if self.points else ["no clicks: there is no strip of frames"]
        told += [f"track key: {', '.join(sorted(self.commands))}"] if self.commands else []
        return told + list(self.notes)


@lru_cache(maxsize=64)
def parse_label_config(xml: str) -> LabelConfig:
    """Read a label config.

    Raises:
        BadRequest: it is not XML, or has no Video or no VideoRectangle for it.
    """
    try:
        root = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise BadRequest(
            "the label config is not valid XML: open the project's labeling interface and save it again"
        ) from error
    videos = {
        tag.get("name", ""): VideoTag(tag.get("name", ""), tag.get("value", ""), tag.get("framerate"))
        for tag in root.iter("Video")
    }
    if not videos:
        raise BadRequest('the label config has no Video tag: add <Video name="video" value="$video" framerate="$fps"/>')
    rectangles = {
        tag.get("name", ""): tag.get("toName", "") for tag in root.iter("VideoRectangle") if tag.get("toName") in videos
    }
    if not rectangles:
        raise BadRequest(
            'the label config cannot draw boxes on the video: add <VideoRectangle name="box" toName="video"/>'
        )
    classes: dict[str, tuple[str, ...]] = {}
    commands: set[str] = set()
    dynamic: set[str] = set()
    phrases: dict[str, str] = {}
    for control in root.iter("Labels"):
        # A label with an alias is known by it in all that Label Studio sends.
        labels = {_name(label): _phrase(label) for label in control.iter("Label")}
        if control.get("name") == COMMAND_CONTROL:
            commands.update(labels)
            continue
        for video in videos.keys() & control.get("toName", "").split(","):
            classes[video] = (*classes.get(video, ()), *labels)
            phrases |= labels
            if control.get("value", "").startswith("$"):
                dynamic.add(video)
    texts = [tag for tag in root.iter("TextArea") if tag.get("toName") in rectangles.values()]
    words = _ours(WORDS, (tag for tag in texts if tag.get("perRegion") != "true"))
    lines = _ours(LINE, (tag for tag in texts if tag.get("perRegion") == "true"))
    return LabelConfig(
        videos=videos,
        rectangles=rectangles,
        labels=classes,
        commands=frozenset(commands),
        dynamic=frozenset(dynamic),
        words={tag.get("name", ""): tag.get("toName", "") for tag in words},
        lines=frozenset(tag.get("name", "") for tag in lines),
        points=_points(root),
        phrases=phrases,
        notes=tuple(_notes(root, videos)),
    )


def _name(label: Element) -> str:
    return label.get("alias", "") or label.get("value", "")


def _phrase(label: Element) -> str:
    """The words that stand for a label. Label Studio takes attributes that it does not know (seen in 1.23.2)."""
    given = (label.get(name, "").strip() for name in ("phrase", "predicted_values"))
    return next((words for words in given if words), _name(label).lower())


def _ours(name: str, controls: Iterable[Element]) -> list[Element]:
    """The control of our name, or where there is none all of them."""
    controls = list(controls)
    return [tag for tag in controls if tag.get("name") == name] or controls


def _points(root: Element) -> dict[str, PointsControl]:
    pictures = {tag.get("name", ""): tag.get("valueList", "") or tag.get("value", "") for tag in root.iter("Image")}
    return {
        control.get("name", ""): PointsControl(
            pictures[control.get("toName", "")],
            {_name(label): label.get("class", "") for label in control.iter("Label") if label.get("class")},
        )
        for control in root.iter("KeyPointLabels")
        if control.get("toName") in pictures
    }


def _notes(root: Element, videos: Mapping[str, VideoTag]) -> Iterable[str]:
    for tag in root.iter("KeyPointLabels"):
        if tag.get("toName") in videos:
            yield (
                f'"{tag.get("name")}" breaks the page: Label Studio has no KeyPointLabels on a Video, point its toName '
                'at <Image name="frames" valueList="$frames"/>'
            )
        elif tag.get("smart") == "false":
            yield f'clicks of "{tag.get("name")}" ask for nothing: remove its smart="false"'
    for kind in ("VideoVector", "ReactCode", "CustomInterface"):
        if root.find(f".//{kind}") is not None:
            yield f"{kind} is of Label Studio Enterprise: the page will not open with it"
    for kind in ("VideoRectangle", "TextArea"):
        for tag in root.iter(kind):
            if tag.get("toName") in videos and tag.get("smart") == "false":
                yield f'"{tag.get("name")}" asks for nothing: replace its smart="false" by smartOnly="true"'
    for video in videos.values():
        if not video.framerate:
            yield (
                f'frames are counted at {DEFAULT_FRAMERATE:g} a second: add framerate="$fps" to the Video '
                f'"{video.name}", and fps to the tasks, or boxes drift'
            )
