"""What an open prompting page has to know of its task."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a task.

    Attributes:
        framerate: frames per second that Label Studio counts with.
    """

    task: str
    project: str
    url: str
    framerate: float
    config: LabelConfig

    @property
    def labels(self) -> Sequence[str]:
        """The classes of the project."""
        return self.config.labels.get(self.config.video.name, ())

    def new_region(self, name: str, label: str) -> Region:
        """A region that the annotation does not have yet."""
        video = self.config.video.name
        labels = (label,) if label else ()
        return Region(name, self.config.region_control(video), video, labels, (), origin="prediction")
