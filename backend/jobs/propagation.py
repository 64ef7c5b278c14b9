"""All tracks of one session: each frame is processed once per direction and serves every track."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, groupby

import numpy as np
from numpy.typing import NDArray

from backend.engines.base import Engine
from backend.jobs.schedule import Interval, Progress, Schedule, intervals_between, merge_passes
from backend.jobs.track_buffer import TrackBuffer, frame_mask
from backend.tracks.prompts import Direction, Phrase, Prompt, group_by_frame
from backend.tracks.track import ResultBlock, Track
from backend.video import Video


class PropagationRun:
    """The tracks of one session; other threads may read them while it runs.

    Attributes:
        schedule: what the session does.
        progress: how far it is.
        track_phrases: by name of a track that a phrase found, the phrase; the last one if a better one took over.

    Args:
        length: frames of the video.
        targets: intervals by name of a prompted track.
        prompts: of these tracks.
        phrases: each with a text of its own. The tracks that they find have the engine's names, as long as these tell
            objects apart, and rows on the frames of all phrases: the engine names an object after the phrase that fits
            best, wherever that phrase starts.
        direction: from the frame of a phrase.
        max_frames: how far to go from a phrase's frame, and beyond a target's outer prompts; 0: no limit.
        span: source frames that the tracks do not leave.
    """

    def __init__(
        self,
        length: int,
        targets: Mapping[str, Sequence[Interval]],
        prompts: Iterable[Prompt],
        phrases: Sequence[Phrase] = (),
        direction: Direction = "forward",
        *,
        max_frames: int = 0,
        span: range | None = None,
    ) -> None:
        self._length = length
        self._targets = {name: TrackBuffer(length, intervals, max_frames, span) for name, intervals in targets.items()}
        starts = [intervals_between([phrase.frame], direction) for phrase in phrases]
        searches = [TrackBuffer(length, intervals, max_frames, span) for intervals in starts]
        self._phrase_passes = merge_passes(chain.from_iterable(search.passes for search in searches))
        target_passes = chain.from_iterable(target.passes for target in self._targets.values())
        self.schedule = Schedule(_group_prompts(prompts, phrases), merge_passes([*target_passes, *self._phrase_passes]))
        self._names = _TrackNames(targets)
        self._phrase_tracks: dict[str, TrackBuffer] = {}
        self.track_phrases: dict[str, str] = {}
        self._pass_index = -1
        self.progress = Progress()

    @property
    def total(self) -> int:
        """Frames to process; those that are processed in both directions count twice."""
        return self.schedule.total

    @property
    def done(self) -> int:
        """Frames that are processed."""
        return self.schedule.count_done(self.progress)

    def frame_counts(self) -> tuple[int, int]:
        """Frames of the video that are done and in total; one that is processed twice counts half after one time."""
        frames = frame_mask(self._length, [span for span, _ in self.schedule.passes])
        count = int(np.count_nonzero(frames))
        return count * self.done // max(self.total, 1), count

    @property
    def newest_frame(self) -> int | None:
        """The source frame that was processed last."""
        progress = self.progress
        if not progress.done:
            return None
        current = self.schedule.passes[progress.pass_index]
        part = current.completed_part(progress.done)
        return part[0] if current.reverse else part[-1]

    def run(self, engine: Engine, video: Video, masks: bool = False) -> Generator[int]:
        """Give all prompts, then propagate; yields every source frame that is processed.

        Args:
            masks: keep the masks.
        """
        with engine.open(video) as session:
            if masks:
                session.keep_masks()
            self.add_initial_tracks(self.schedule.prompt(session))
            for index, result in self.schedule.propagate(session, Progress()):
                for block in ResultBlock.from_results([result], self.schedule.passes[index].reverse, masks):
                    self.add(index, block)
                yield result.frame

    def add_initial_tracks(self, names: Iterable[str]) -> None:
        """Tracks that phrases found on their first frame: their names mean the same object on all passes."""
        self._names.add_shared(names)

    def add(self, pass_index: int, block: ResultBlock) -> None:
        """Add the next block of a pass."""
        if pass_index != self._pass_index:
            self._pass_index = pass_index
            self._names.begin_pass(block.reverse)
        spans = [span for span, reverse in self._phrase_passes if reverse == block.reverse]
        for row, name in enumerate(block.tracks):
            masks = block.masks.get(name, {})
            if name in self._targets:
                self._targets[name].add(block.frames, block.rows[row], block.reverse, masks)
            elif (phrase := block.phrases.get(name)) and any(_overlap(block.frames, span) for span in spans):
                track = self._phrase_track(self._names.resolve(name, phrase), phrase)
                track.add(block.frames, block.rows[row], block.reverse, masks)
        self.progress = self.schedule.place_after(pass_index, block.frames)

    def missing_part(self, pass_index: int, block: ResultBlock) -> ResultBlock | None:
        """The part of a block beyond the frames that are done; None: all of it is done."""
        progress = self.progress
        if pass_index < progress.pass_index:
            return None
        done = progress.done if pass_index == progress.pass_index else 0
        return block.crop(self.schedule.passes[pass_index].remaining_part(done))

    @property
    def track_count(self) -> int:
        """How many tracks there are so far."""
        return len(self._targets) + len(self._phrase_tracks)

    def _phrase_track(self, name: str, phrase: str) -> TrackBuffer:
        self.track_phrases[name] = phrase
        if name not in self._phrase_tracks:
            self._phrase_tracks[name] = TrackBuffer.from_passes(self._length, self._phrase_passes)
        return self._phrase_tracks[name]

    def target(self, name: str) -> TrackBuffer:
        """A prompted track."""
        return self._targets[name]

    def track(self, name: str) -> Track:
        """One track as far as it is computed, by its name in `tracks`."""
        return (self._targets.get(name) or self._phrase_tracks[name]).track()

    def processed_frames(self, name: str) -> NDArray[np.bool_]:
        """Shape (length,): whether a track was looked for on each frame."""
        if name in self._targets:
            return self._targets[name].processed_frames()
        done = frame_mask(self._length, self.schedule.completed_parts(self.progress))
        return done & frame_mask(self._length, [span for span, _ in self._phrase_passes])

    def tracks(self) -> dict[str, Track]:
        """Tracks by name: the targets, then those that phrases found on their frames."""
        # A copy: another thread may add tracks meanwhile.
        found_tracks = {name: buffer.track() for name, buffer in list(self._phrase_tracks.items())}
        targets = {name: buffer.track() for name, buffer in self._targets.items()}
        return targets | {name: track for name, track in found_tracks.items() if len(track.scores)}


def _group_prompts(prompts: Iterable[Prompt], phrases: Sequence[Phrase]) -> list[list[Prompt | Phrase]]:
    """Prompts in groups of one frame each.

    Negative clicks come after all prompts that say what the object is. Phrases come last, so that what they find takes
    no target's name.
    """
    ordered = sorted(prompts, key=lambda prompt: (prompt.is_negative, prompt.frame))
    groups = groupby(ordered, key=lambda prompt: (prompt.is_negative, prompt.frame))
    prompt_groups: list[list[Prompt | Phrase]] = [list(group) for _, group in groups]
    return prompt_groups + [list(group) for _, group in sorted(group_by_frame(phrases).items())]


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


class _TrackNames:
    """Names of the tracks that phrases find: the session's name, unless another object has it already.

    On the next pass in the same direction a session starts to count its objects anew.

    Args:
        shared: names that mean the same object on all passes.
    """

    def __init__(self, shared: Iterable[str]) -> None:
        self._shared = set(shared)
        self._reverse = False
        # Our name by the session's name, on this pass; the session's names on earlier passes, by direction.
        self._current: dict[str, str] = {}
        self._earlier: dict[bool, set[str]] = {False: set(), True: set()}
        self._new_names: set[str] = set()
        self._numbers: dict[str, Iterator[int]] = {}

    def add_shared(self, names: Iterable[str]) -> None:
        """More names that mean the same object on all passes."""
        self._shared.update(names)

    def begin_pass(self, reverse: bool) -> None:
        """Another pass begins."""
        self._earlier[self._reverse].update(self._current)
        self._reverse, self._current = reverse, {}

    def resolve(self, name: str, phrase: str) -> str:
        """Our name of the track that the session calls `name` on this pass."""
        if name in self._shared:
            return name
        if name not in self._current:
            is_taken = name in self._earlier[self._reverse] or name in self._new_names
            self._current[name] = self._new_name(phrase) if is_taken else name
        return self._current[name]

    def _new_name(self, phrase: str) -> str:
        taken = (self._shared, self._current, *self._earlier.values(), self._new_names)
        candidates = (f"{phrase} {number}" for number in self._numbers.setdefault(phrase, count(1)))
        name = next(name for name in candidates if not any(name in names for names in taken))
        self._new_names.add(name)
        return name
