"""The law of answers: what an answer may hold of what a person has on the page.

1. A region that the request is about may be replaced if it was asked for, and no other of them.
2. A region that the request shows elsewhere, in the asker's drafts or in anybody's annotations, is left alone. That
   copy may be seconds old, and what was done since would be lost. Only what goes on with the very question that made it
   is replaced: a track when one more point of its own is clicked, a person's keyframes kept; what words have found,
   while it is unfinished and nobody touched it, by the same words; with `preserve` off, all that is ours and untouched.
   Of these an edit can be lost that was made within the five seconds before asking: it is the price of going on.
3. Everything else is new, and is added once.
4. No text of a region comes without its box: Label Studio would put the text in the box's place (seen in 1.23.2).

What a person does while we work is not known here at all: so answers are early, and name no other region.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from backend.labelstudio.region import TYPE, Region
from backend.labelstudio.request import PredictRequest, PromptField


def may_extend(region: Region, phrase: str, *, preserve: bool) -> bool:
    """Whether what words have found may be replaced by what these words find."""
    if not region.is_untouched:
        return False
    return not preserve or (region.is_partial and region.meta.get("phrase") == phrase)


def allowed_results(
    results: Iterable[Mapping[str, Any]], interaction: PredictRequest, going_on: Collection[str]
) -> list[Mapping[str, Any]]:
    """The results that may be answered.

    Args:
        going_on: ids of regions that are replaced under rule 2.
    """
    asked = {one.region.id for one in interaction.region_prompts}
    kept: list[Mapping[str, Any]] = []
    boxes: set[str] = set()
    for result in results:
        name = str(result["id"])
        if result["type"] == TYPE:
            is_new = name not in interaction.context and name not in interaction.others and name not in boxes
            if name in asked or name in going_on or is_new:
                boxes.add(name)
                kept.append(result)
        elif name in boxes or _is_line(result, interaction.prompt_field):
            kept.append(result)
    return kept


def _is_line(result: Mapping[str, Any], line: PromptField | None) -> bool:
    return line is not None and result.get("from_name") == line.control
