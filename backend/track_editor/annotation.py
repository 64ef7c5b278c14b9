"""Where the annotation that is managed is kept: a task of Label Studio, or one in a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from backend.errors import BadRequest, SettingsError
from backend.formats.tasks import ChosenAnnotation, ExportControls, choose_annotation, load_tasks, task_number
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.track_editor.track_table import Result


class AnnotationStore(Protocol):
    """One annotation of one task.

    Attributes:
        name: no other annotation has it.
    """

    def read(self) -> tuple[ChosenAnnotation, ExportControls]:
        """As it is now.

        Raises:
            BackendError: it cannot be had, or there is none.
        """

    def write(self, chosen: ChosenAnnotation, results: Sequence[Result]) -> ChosenAnnotation:
        """Put other results into it, and read it again.

        Raises:
            BackendError: it cannot be written, and is as it was.
        """

    def name(self, chosen: ChosenAnnotation) -> str:
        """What no other annotation is called."""


class LabelStudioTask:
    """A task of Label Studio."""

    def __init__(self, client: LabelStudioClient, task: int) -> None:
        self._client, self._task = client, task

    def read(self) -> tuple[ChosenAnnotation, ExportControls]:
        """See `AnnotationStore`."""
        task = self._client.task(self._task)
        config = parse_label_config(str(self._client.project(task["project"]).get("label_config") or ""))
        return _chosen(task, self._task), ExportControls.from_config(config)

    def write(self, chosen: ChosenAnnotation, results: Sequence[Result]) -> ChosenAnnotation:
        """See `AnnotationStore`."""
        # What is not submitted yet would be shown instead of the change, and would be lost or undo it.
        if self.has_draft(chosen):
            raise BadRequest(
                f"annotation {chosen.entry['id']} has changes that nobody has submitted: open the task in Label "
                "Studio, press Update or discard them, and try again"
            )
        self._client.set_result(chosen.kind, chosen.entry["id"], results)
        return _chosen(self._client.task(self._task), self._task)

    def has_draft(self, chosen: ChosenAnnotation) -> bool:
        """Whether anybody has changes to it that are not submitted; the task itself tells those of one account only."""
        if chosen.kind != "annotations":
            return False
        return any(draft.get("annotation") == chosen.entry["id"] for draft in self._client.drafts(self._task))

    def name(self, chosen: ChosenAnnotation) -> str:
        """See `AnnotationStore`."""
        return f"{self._client.url} {chosen.kind} {chosen.entry['id']}"


class FileTask:
    """A task in a JSON file of tasks.

    Args:
        task: its number; None: the only one.
    """

    def __init__(self, path: Path, task: int | None = None) -> None:
        self._path, self._task = path, task

    def read(self) -> tuple[ChosenAnnotation, ExportControls]:
        """See `AnnotationStore`."""
        numbered = {task_number(task, place): task for place, task in enumerate(load_tasks(self._path), start=1)}
        number = self._task
        if number is None and len(numbered) == 1:
            (number,) = numbered
        if number is None or number not in numbered:
            some = ", ".join(map(str, list(numbered)[:10]))
            raise BadRequest(f"{self._path.name} holds the tasks {some}: say which by --task N")
        return _chosen(numbered[number], number), ExportControls()

    def write(self, chosen: ChosenAnnotation, results: Sequence[Result]) -> ChosenAnnotation:
        """See `AnnotationStore`."""
        held = json.loads(self._path.read_text(encoding="utf-8"))
        listed = held if isinstance(held, list) else [held]
        place = next(place for place, task in enumerate(listed) if task_number(task, place + 1) == chosen.number)
        entries = listed[place][chosen.kind]
        entries[_place(chosen, entries)]["result"] = list(results)
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            part.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            raise SettingsError(f"{self._path.name} cannot be written: mend that, and nothing was changed") from error
        return _chosen(listed[place], chosen.number)

    def name(self, chosen: ChosenAnnotation) -> str:
        """See `AnnotationStore`."""
        entry = chosen.entry.get("id", _place(chosen, chosen.task[chosen.kind]))
        return f"{self._path.resolve()} {chosen.number} {chosen.kind} {entry}"


def _place(chosen: ChosenAnnotation, entries: Sequence[Mapping[str, Any]]) -> int:
    """Which of the task's entries counts: it is known by its number, or by what is in it."""
    return next(place for place, entry in enumerate(entries) if entry == chosen.entry)


def _chosen(task: Mapping[str, Any], number: int) -> ChosenAnnotation:
    chosen = choose_annotation(task, number, predictions=True)
    if chosen is None:
        raise BadRequest(f"nothing is submitted for task {number}: open it in Label Studio and press Submit")
    return chosen
