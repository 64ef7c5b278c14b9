"""One text prompt: the job that searches for its objects, the regions of these objects, and the status line."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import BadRequest
from backend.jobs.job import Job
from backend.labelstudio.commands import TextQuery, parse_text_query
from backend.labelstudio.label_config import ALL, LabelConfig
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.track_ids import TrackShape, match_shapes, shape_overlaps
from backend.predict import overwrite_policy
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import PageRegions, PromptFieldCache, ResultSource
from backend.predict.results import TextDetection, TextResult
from backend.tracks.frame_range import ALL_FRAMES, FrameRange


@dataclass(frozen=True, slots=True)
class TextMatches:
    """What becomes of the objects that were found; all keys are the objects' names.

    Attributes:
        new: ids of the objects' new regions.
        continued: regions of earlier responses that are continued.
        existing: how many other objects the page has already.
        deleted: how many other objects a person has deleted.
        fresh: how many of the existing ones were in a response that the page has not saved yet. They are not continued
            until the page is saved, because a person may have edited them.
    """

    new: Mapping[str, str]
    continued: Mapping[str, Region]
    existing: int
    deleted: int
    fresh: int


class ObjectSearch:
    """A search for all objects of some kinds, whose job is submitted.

    Args:
        cache: of what earlier responses to this search and its like have found.
        is_asked: this request asks for it.

    Attributes:
        job: searches for the objects.
        digest: of the prompt.
    """

    def __init__(
        self,
        context: RequestContext,
        query: TextQuery,
        cache: PromptFieldCache,
        digest: str,
        job: Job,
        *,
        is_asked: bool,
    ) -> None:
        self._context, self._query, self._cache, self._is_asked = context, query, cache, is_asked
        self.digest, self.job = digest, job
        self._result = TextResult(job, context.settings)

    def _classes(self, phrase: str) -> tuple[str, ...]:
        """The classes of what a phrase finds."""
        return self._context.config.classes_of_phrase(phrase, self._context.request.video)

    def _extra_meta(self, detection: TextDetection) -> dict[str, Any]:
        """Fields of `meta` of the region of an object."""
        return {"phrase": detection.phrase, **_describe_range(self._query)}

    def _finish(self) -> None:
        """Nothing is left of it to bring with later requests."""
        self._cache.pending.pop(self.digest, None)

    def build_regions(
        self, response: Iterable[Region] = (), may_bring: Callable[[tuple[str, ...]], bool] = lambda classes: True
    ) -> tuple[list[Region], str]:
        """Regions of the objects that were found so far, and the status line.

        Args:
            response: regions that the response contains already.
            may_bring: whether the response may contain regions of these classes.

        Raises:
            BackendError: the job has failed.
        """
        job, context, query, result = self.job, self._context, self._query, self._result
        if job.error:
            self._finish()
            raise job.error
        is_partial = job.state != "done"
        # In this order, because the job may continue in between.
        progress = result.progress()
        last_frame = result.last_frame()
        detections = result.detections()
        self._cache.unfinished = self.digest if is_partial else None
        with self._cache.planning:
            matches = match_regions(
                detections,
                context.request.page,
                {region.id: region for region in response},
                self._cache,
                self.digest,
                query,
                contents=context.contents,
                classes={each.phrase: self._classes(each.phrase) for each in detections.values()},
                since=context.start_time,
                last_frame=last_frame,
                preserve=context.settings.preserve,
            )
        partial = (1, result.length or 1) if query.at else progress if is_partial else None
        regions, is_held_back = list[Region](), False
        for name, detection in detections.items():
            region = matches.continued.get(name)
            if region and not self._is_asked and region.frames_done >= progress[0]:
                continue
            if region is None:
                if name not in matches.new:
                    continue
                region = context.new_region(matches.new[name], self._classes(detection.phrase))
            if not may_bring(context.config.own_classes(region.labels)):
                is_held_back = True
                continue
            extra_meta = self._extra_meta(detection)
            regions.append(context.build_region(region, detection.track, detection.score, partial, extra_meta))
            if name in matches.continued:
                self._cache.note(self.digest, name, region.id)
            context.cache.sources.put(context.key(region.id), ResultSource(result, name, (), extra_meta))
        job.is_fetched &= not is_held_back
        if not (is_partial or is_held_back or self._cache.request_time > context.start_time):
            self._finish()
        return regions, self._status_line(detections.values(), matches, progress if is_partial else None)

    def _status_line(
        self, detections: Collection[TextDetection], matches: TextMatches, progress: tuple[int, int] | None
    ) -> str:
        """What was found, for the control for text prompts; `progress` is None once the job is done."""
        context, query, video = self._context, self._query, self._context.request.video
        if progress and self._result.length is None:
            return f"{', '.join(query.phrases)}: opening the video, ask again"
        counts = dict.fromkeys(query.phrases, 0)
        for detection in detections:
            counts[detection.phrase] = counts.get(detection.phrase, 0) + 1
        parts = [", ".join(f"{phrase}: {count or 'none'}" for phrase, count in counts.items())]
        if matches.existing:
            parts.append(f"{matches.existing} there already")
        if matches.deleted:
            parts.append(f"{matches.deleted} deleted before: redo brings them back")
        if matches.fresh:
            parts.append("not saved by the page yet: ask again in five seconds")
        found = sorted(phrase for phrase, count in counts.items() if count)
        if nameless := [phrase for phrase in found if not context.config.classes_of_phrase(phrase, video)]:
            parts.append(f"no class is called {', '.join(nameless)}: select and press a class key")
        if query.at:
            parts.append(f"on frame {query.at} only: delete what is wrong, then t on a box, or ask without at")
        elif progress:
            parts.append(f"still looking, {progress[0]} of {progress[1]} frames: ask again for more")
        return " · ".join(parts)


class TextPrompt(ObjectSearch):
    """A text prompt.

    Args:
        field_id: id of the text's result; None: it was never saved.
        text: what the annotator typed.
        job: that an earlier request submitted; None: this request asks for it.

    Raises:
        BackendError: the prompt has no phrase, or no job can be started now.
    """

    def __init__(self, context: RequestContext, field_id: str | None, text: str, job: Job | None = None) -> None:
        request, query, is_asked = context.request, parse_text_query(text), job is None
        query = replace(query, phrases=resolve_phrases(query, context.config, request.video))
        search_range = query.within if query.at is None else FrameRange(query.at, query.at)
        parts = [request.url, request.framerate, context.settings.max_frames, query.phrases, search_range, query.redo]
        key, digest = context.key(field_id or "", "words"), context.digest(parts)
        cache = context.cache.prompt_field(request.task, field_id)
        # If the last response to a `redo` lacked frames, the same prompt continues its job.
        if is_asked and query.redo and cache.unfinished != digest:
            context.scheduler.forget(key)
            cache.forget(digest)
        job = job or context.submit(key, digest, replaces=False, phrases=query.phrases, ranges=(search_range,))
        cache.pending[digest] = text, job
        super().__init__(context, query, cache, digest, job, is_asked=is_asked)


def match_regions(
    detections: Mapping[str, TextDetection],
    page: Mapping[str, Region],
    response: Mapping[str, Region],
    cache: PromptFieldCache,
    digest: str,
    query: TextQuery,
    *,
    contents: Collection[str],
    classes: Mapping[str, tuple[str, ...]],
    since: float,
    last_frame: int,
    preserve: bool,
) -> TextMatches:
    """Match objects with the regions on the page. Regions that a person deleted stay deleted, unless the query redoes.

    Args:
        page: the annotation's regions as last saved, by id.
        response: regions that the response contains already, by id.
        cache: earlier responses to this prompt field.
        digest: of the query.
        contents: ids of all regions that the annotation has ever contained.
        classes: by phrase.
        since: when the request came, of the monotonic clock.
        last_frame: the last LS frame that was searched. Regions that go further are not shortened.
    """
    known = cache.regions(page, contents, since)
    known = replace(known, shown={**known.shown, **response})
    deleted = {} if query.redo else known.deleted
    ids = {name: cache.region_id(digest, name) for name in detections}
    on_page = _match_page(detections, ids, known)
    unknown = {name: detection for name, detection in detections.items() if name not in on_page and not ids[name]}
    duplicates = _overlapping(unknown, known.shown.values())
    unwanted = _overlapping(unknown, deleted.values(), classes)
    lost = match_shapes(_detection_shapes(unknown), _region_shapes(known.lost))
    new, continued, existing, absent, fresh = dict[str, str](), dict[str, Region](), 0, 0, 0
    for name, detection in detections.items():
        match, earlier_id = on_page.get(name), ids[name]
        is_saved = match is not None and known.is_saved(match)
        is_free = match and is_saved and query.at is None and match not in continued.values()
        if (
            match
            and is_free
            and match.keyframes[-1].frame <= last_frame
            and overwrite_policy.may_extend(match, detection.phrase, query.within, preserve=preserve)
        ):
            continued[name] = match
        elif match or name in duplicates:
            existing += 1
            fresh += match is not None and not is_saved and match.is_partial and match.is_untouched
        elif earlier_id in deleted if earlier_id else name in unwanted:
            absent += 1
        elif earlier_id:
            new[name] = earlier_id  # that response has not reached the page
        elif not _may_appear_later(detection, known.shown.values(), last_frame):
            new[name] = lost.get(name) or new_region_id()
        if region_id := new.get(name) or (match.id if match else None):
            cache.note(digest, name, region_id)
    return TextMatches(new, continued, existing, absent, fresh)


def _match_page(
    detections: Mapping[str, TextDetection], ids: Mapping[str, str | None], known: PageRegions
) -> dict[str, Region]:
    """The region on the page of each object: that of an earlier response, or one that overlaps, as it is or was."""
    matches = {name: known.shown[earlier] for name, earlier in ids.items() if earlier and earlier in known.shown}
    for regions in (known.shown, known.answered):
        taken = {region.id for region in matches.values()}
        free = {name: region for name, region in regions.items() if name in known.shown and name not in taken}
        rest = {name: detection for name, detection in detections.items() if name not in matches}
        same = match_shapes(_detection_shapes(rest), _region_shapes(free))
        matches |= {name: known.shown[region_id] for name, region_id in same.items()}
    return matches


def _overlapping(
    detections: Mapping[str, TextDetection],
    regions: Iterable[Region],
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> set[str]:
    """The objects that overlap any of these regions, also one that another object matches better.

    Args:
        classes: by phrase; if given, only regions of the same phrase or class count.
    """
    regions = list(regions)
    shapes = [*_detection_shapes(detections).values()]
    overlaps = shape_overlaps(shapes, [TrackShape.from_region(region) for region in regions])
    return {
        name
        for (name, detection), row in zip(detections.items(), overlaps, strict=True)
        for overlap, region in zip(row, regions, strict=True)
        if overlap and (classes is None or _is_alike(region, detection.phrase, classes.get(detection.phrase, ())))
    }


def _is_alike(region: Region, phrase: str, classes: Collection[str]) -> bool:
    """Whether the phrase found the region, or a region of another prompt may be what the phrase finds."""
    if "phrase" in region.meta:
        return bool(region.meta["phrase"] == phrase)
    return not classes or not region.labels or not {*classes}.isdisjoint(region.labels)


def _detection_shapes(detections: Mapping[str, TextDetection]) -> dict[str, TrackShape]:
    return {
        name: TrackShape(detection.track.keyframes, frozenset({detection.phrase}))
        for name, detection in detections.items()
    }


def _region_shapes(regions: Mapping[str, Region]) -> dict[str, TrackShape]:
    return {name: TrackShape.from_region(region) for name, region in regions.items()}


def _may_appear_later(detection: TextDetection, regions: Iterable[Region], last_frame: int) -> bool:
    """Whether the object may be one that was found on a single frame (`at`) which the search has not reached yet."""
    frames = [region.meta.get("at") for region in regions if region.meta.get("phrase") == detection.phrase]
    return any(isinstance(frame, int) and frame > last_frame for frame in frames)


def _describe_range(query: TextQuery) -> dict[str, Any]:
    """The frames of the search, for `meta` of what it finds; empty: all."""
    if query.at is not None:
        return {"at": query.at}
    return {} if query.within == ALL_FRAMES else {"searched": [*query.within]}


def resolve_phrases(query: TextQuery, config: LabelConfig, video: str) -> tuple[str, ...]:
    """The phrases of a query, with those of all labels in place of "all".

    Raises:
        BadRequest: there are none.
    """
    labels = [config.phrases[label] for label in config.labels.get(video, ())]
    parts = [labels if phrase.casefold() == ALL else [phrase] for phrase in query.phrases]
    phrases = tuple(dict.fromkeys(phrase for part in parts for phrase in part))
    if not phrases:
        raise BadRequest("the label config has no labels to search for: write what to find")
    return phrases
