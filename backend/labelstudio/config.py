"""The label config: what can be prompted, which labels it offers, where the video's url and framerate come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import BadRequest

COMMAND_CONTROL = "cmd"
"""The control whose labels are keys to press, not classes."""

DEFAULT_FRAMERATE = 24.0
"""What Label Studio counts with where neither the tag nor the task says otherwise."""


@dataclass(frozen=True, slots=True)
class VideoTag:
    """The object tag `<Video>`: `value` and `framerate` as written, "$name" standing for a field of the task."""

    name: str
    value: str
    framerate: str | None

    def url(self, data: Mapping[str, object]) -> str:
        """The video's address in a task's data.

        Raises:
            BadRequest: the task has no such field.
        """
        url = data.get(self.value[1:]) if self.value.startswith("$") else self.value
        if not isinstance(url, str) or not url:
            raise BadRequest(f'the task has no video: its data needs the field "{self.value.lstrip("$")}"')
        return url

    def rate(self, data: Mapping[str, object]) -> float:
        """Frames per second that Label Studio counts with, from the tag or the task's data, else its default."""
        given = self.framerate
        value = data.get(given[1:]) if given and given.startswith("$") else given
        try:
            return float(str(value))
        except ValueError:
            return DEFAULT_FRAMERATE


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What of a label config matters here.

    Attributes:
        videos: the Video tags by name.
        rectangles: the name of each VideoRectangle, and of the Video that it draws on.
        labels: for each Video's name, the classes that its Labels controls offer, in their order.
        commands: labels of the control "cmd": keys to press, never a class.
        dynamic: names of Videos whose labels come, at least in part, from the tasks.
    """

    videos: Mapping[str, VideoTag]
    rectangles: Mapping[str, str]
    labels: Mapping[str, tuple[str, ...]]
    commands: frozenset[str]
    dynamic: frozenset[str]

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


@lru_cache(maxsize=64)
def parse(xml: str) -> LabelConfig:
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
    for control in root.iter("Labels"):
        # A label with an alias is known by it in all that Label Studio sends.
        labels = [label.get("alias", "") or label.get("value", "") for label in control.iter("Label")]
        if control.get("name") == COMMAND_CONTROL:
            commands.update(labels)
            continue
        for video in videos.keys() & control.get("toName", "").split(","):
            classes[video] = (*classes.get(video, ()), *labels)
            if control.get("value", "").startswith("$"):
                dynamic.add(video)
    return LabelConfig(videos, rectangles, classes, frozenset(commands), frozenset(dynamic))
