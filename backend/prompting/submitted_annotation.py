"""Writes corrected regions into an annotation that was submitted and that nobody has open."""

from collections.abc import Sequence
from dataclasses import replace

from backend.errors import Conflict
from backend.labelstudio.region_results import build_region, format_region
from backend.predict.page_track import PAGE_JOB, plan_track, state_of
from backend.predict.results import RegionResult
from backend.prompting.page import Page
from backend.prompting.page_tracks import ListedTrack
from backend.settings import Settings
from backend.track_editor.editor import Editor, EditorState
from backend.track_editor.track_table import Result, TrackRow


class CorrectionWriter:
    """Writes corrections of the page of a task.

    Args:
        engine: as a region's Info panel names it.
    """

    def __init__(self, page: Page, settings: Settings, engine: str) -> None:
        self._page, self._settings, self._engine = page, settings, engine

    def write(self, editor: Editor, state: EditorState, corrections: Sequence[ListedTrack]) -> list[int]:
        """Put corrections that are computed into the annotation; returns the numbers of their tracks.

        Args:
            state: of the annotation, as the editor has read it.

        Raises:
            Conflict: some of the regions were changed meanwhile: they are as they were, the others are written.
            BackendError: the annotation cannot be written, and is as it was.
        """
        rows = {row.region.id: row for row in state.table.rows}
        written, refused = dict[int, Result](), list[str]()
        for one in corrections:
            row = rows.get(one.name)
            if row and row.region.meta.get(PAGE_JOB) == one.track.job:  # it has it already
                continue
            try:
                row, region = self._correct(row, one)
                written[row.number] = region
            except Conflict as conflict:
                refused.append(str(conflict))
        if written:
            numbers = ", ".join(map(str, written))
            editor.put_regions(written, f"correct {numbers} on the video", state.version)
        if refused:
            raise Conflict("; ".join(refused))
        return [*written]

    def _correct(self, row: TrackRow | None, one: ListedTrack) -> tuple[TrackRow, Result]:
        """The track of a region, and the region with its correction.

        Raises:
            Conflict: the region is not the one that was corrected.
        """
        if row is None:
            name = one.track.label or "no class"
            raise Conflict(f"the annotation has no region of {name} any more: remove its correction from the list")
        track, shown = one.track, row.region
        before = track.region(self._page.new_region(one.name, track.label))
        classes = [self._page.config.own_classes(region.labels) for region in (before, shown)]
        is_relabelled = track.classes != classes[0]
        is_changed = state_of(shown) not in track.states or (is_relabelled and classes[0] != classes[1])
        if is_changed:
            raise Conflict(
                f"track {row.number} was changed in Label Studio meanwhile and is as it was: choose it in the list, "
                "press Correct to correct what is there now, and send it again"
            )
        plan = plan_track(track.region(before, shown), track.added, track.direction, track.within)
        found, score = RegionResult(one.job, plan.region, plan.segments, self._settings).read()
        keyframes = [*plan.fixed, *found.keyframes]
        if not keyframes:
            raise Conflict(f"track {row.number} was seen nowhere and is as it was: click on it on another frame")
        region = build_region(
            plan.region,
            replace(found, keyframes=keyframes),
            track_id=row.number,
            engine=self._engine,
            score=score,
            labels=track.classes if is_relabelled else shown.labels,
            extra_meta={PAGE_JOB: one.job.number},
        )
        return row, format_region(region, self._page.framerate)[0]  # what is linked to it stays
