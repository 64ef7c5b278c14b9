"""A region to answer, and what is done for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import BackendError
from backend.jobs.job import Job
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.region import Region
from backend.labelstudio.segments import Segment
from backend.predict.response_cache import ResultSource


@dataclass
class RegionWork:
    """A region to answer.

    Attributes:
        region: as the request contains it, or without keyframes.
        classes: its classes.
        fixed: a person's keyframes, or those that are used in their place; they are returned unchanged.
        segments: the rest of the track.
        source: where the track comes from; None: nothing is computed.
        click_label: the label of the clicks that prompt it; empty: it has none.
        error: why it cannot be tracked.
        is_unchanged: it is returned as received, and only its Info panel shows an error.
        is_answered: something else answers it.
    """

    region: Region
    classes: tuple[str, ...]
    fixed: Sequence[Keyframe] = ()
    segments: Sequence[Segment] = ()
    source: ResultSource | None = None
    click_label: str = ""
    error: BackendError | None = None
    is_unchanged: bool = False
    is_answered: bool = False

    @property
    def tracked_segments(self) -> list[Segment]:
        """The segments that a job tracks."""
        return [segment for segment in self.segments if segment.is_tracked]

    @property
    def job(self) -> Job | None:
        """The job that computes its track."""
        return self.source.result.job if self.source else None
