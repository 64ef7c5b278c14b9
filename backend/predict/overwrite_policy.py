"""What a response may replace on an annotator's page.

1. A region of the request that was asked for may be replaced; no other region of the request that was edited since.
2. A region that the request shows elsewhere, in the sender's drafts or in any annotation, is left alone: this copy may
   be seconds old, and later edits would be lost. Only the prompt that made a region may continue it. Clicks continue
   the track that they made, and keep a person's keyframes; a text prompt continues its own regions that nobody has
   edited, if they are unfinished or were searched for in a smaller range, and with `preserve` off all regions of the
   backend that nobody has edited; `unlike` takes away what `like` has found from the same example and nobody has
   edited; and what an earlier request asked for comes with any later one (see `pending`),
   unless somebody has edited it. An edit made within the five seconds before such a request can be lost.
3. All other regions are new, and are added once.

Linked results of a region are only sent with its box: otherwise Label Studio would put their text in the box's place
(seen in 1.23.2). What a person does while the request runs is not known here, so responses come early.
"""

from collections.abc import Collection, Iterable

from backend.labelstudio.region import Region
from backend.labelstudio.request import PredictRequest
from backend.tracks.frame_range import FrameRange


def may_extend(region: Region, phrase: str, search_range: FrameRange, *, preserve: bool) -> bool:
    """Whether a region may be replaced by an object that this phrase finds in a range."""
    if not region.is_untouched or region.is_taken_away:
        return False
    is_wider = search_range != region.search_range and search_range.contains(region.search_range)
    return not preserve or ((region.is_partial or is_wider) and region.meta.get("phrase") == phrase)


def allowed_regions(regions: Iterable[Region], request: PredictRequest, continued: Collection[str]) -> list[Region]:
    """The regions that a response may contain.

    Args:
        continued: ids of regions that may be replaced under rule 2.
    """
    replaceable = {*continued, *(prompt.region.id for prompt in request.region_prompts)}
    allowed: list[Region] = []
    known = {*request.context, *request.others}
    for region in regions:
        if region.id in replaceable or region.id not in known:
            known.add(region.id)
            allowed.append(region)
    return allowed
