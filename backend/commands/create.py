"""`sam3-backend project create`: a project of Label Studio that is ready to be worked in, made once."""

from collections.abc import Callable, Sequence
from pathlib import Path

from backend.commands import prepare
from backend.commands.console import tell
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.settings import Settings


def run(
    settings: Settings,
    title: str,
    config: Path,
    backend: str | None,
    videos: Sequence[str],
    say: Callable[[str], None] = tell,
) -> int:
    """Make a project, connect it and prepare its videos; what is there already is left as it is.

    Once a project has more tasks than these videos, people work in it: then only its connection is looked after.

    Args:
        title: by which the project is known again.
        config: a file with its label config.
        backend: the address at which Label Studio reaches this backend; None: connect none.
        videos: as for `prepare.run`.
        say: is told what was done.

    Returns:
        How many tasks could not be prepared.

    Raises:
        BackendError: Label Studio cannot be asked, it does not reach the backend, or the config cannot be prompted.
    """
    client, xml = LabelStudioClient.from_settings(settings), _read(config)
    project = next((one["id"] for one in client.projects() if one.get("title") == title), None)
    if project is None:
        project = client.add_project(title, xml)
        say(f"{title}: project {project}")
    else:
        say(f"{title}: there already, project {project}")
    if backend and backend.rstrip("/") not in {str(one.get("url")).rstrip("/") for one in client.backends(project)}:
        client.add_backend(project, backend, settings.basic_auth_user, settings.basic_auth_pass)
        say(f"connected to {backend}")
    failed, tasks = 0, sum(1 for _ in client.tasks(project))
    if tasks <= len(videos):
        failed = prepare.run(settings, project, videos, say)
    else:
        say(f"it has {tasks} tasks, which are left as they are: sam3-backend project prepare --project {project} VIDEO")
    say(f"open {client.url}/projects/{project}")
    return failed


def _read(config: Path) -> str:
    """A label config that can be prompted.

    Raises:
        SettingsError: there is none.
    """
    try:
        xml = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config.name} cannot be read: give a file with a label config") from error
    parse_label_config(xml)
    return xml
