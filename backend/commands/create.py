"""`sam3-backend project create`: create a Label Studio project that is ready to use."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from backend.commands import prepare
from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings
from backend.commands.console import format_count, print_message
from backend.errors import BackendError, SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.settings import Settings

_DESCRIPTION = """
Create a project with a label config, connect it to this backend and prepare its videos.

If a project with this title exists, only what is missing is added.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "create",
        _run,
        summary="create a project that is ready to use",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project create Cars clip.mp4 --label-config label_config.xml",
            "sam3-backend project create Cars --label-config label_config.xml --backend http://localhost:9090",
        ),
    )
    parser.add_argument("title", metavar="TITLE", help="title of the project")
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="a file to upload, or a URL")
    parser.add_argument("--label-config", type=Path, required=True, metavar="FILE", help="for example label_config.xml")
    parser.add_argument("--backend", metavar="URL", help="connect the project to this backend, at this URL")
    parser.add_argument(
        "--browser-url", metavar="URL", help="Label Studio's address for browsers, if it is another one"
    )
    add_settings_options(parser)


def _run(options: argparse.Namespace) -> None:
    settings = load_settings(options, "data_dir")
    failed = run(settings, options.title, options.label_config, options.backend, options.videos, options.browser_url)
    if failed:
        raise BackendError(f"{format_count(failed, 'task')} not prepared: see above")


def run(
    settings: Settings,
    title: str,
    config: Path,
    backend: str | None,
    videos: Sequence[str],
    browser_url: str | None = None,
    say: Callable[[str], None] = print_message,
) -> int:
    """Create a project, connect it and prepare its videos, unless this was done before.

    A project with more tasks than these videos is in use: its tasks are not prepared.

    Args:
        title: identifies an existing project.
        config: file with the label config.
        backend: URL at which Label Studio reaches this backend; None: connect no backend.
        videos: see `prepare.run`.
        browser_url: Label Studio's address for browsers; None: the address in the settings.
        say: prints what was done.

    Returns:
        The number of tasks that were not prepared.

    Raises:
        BackendError: Label Studio does not answer or cannot reach the backend, or the label config is not supported.
    """
    client, xml = LabelStudioClient.connect(settings), _read_config(config)
    project = next((known["id"] for known in client.projects() if known.get("title") == title), None)
    if project is None:
        project = client.add_project(title, xml)
        say(f"{title}: project {project}")
    else:
        say(f"{title}: already exists, project {project}")
    connected = {str(known.get("url")).rstrip("/") for known in client.backends(project)} if backend else set()
    if backend and backend.rstrip("/") not in connected:
        client.add_backend(project, backend, settings.basic_auth_user, settings.basic_auth_pass)
        say(f"connected to {backend}")
    failed, tasks = 0, sum(1 for _ in client.tasks(project))
    if tasks <= len(videos):
        failed = prepare.run(settings, project, videos, say)
    else:
        say(f"its {tasks} tasks are unchanged; to add a video: sam3-backend project prepare --project {project} VIDEO")
    say(f"open {(browser_url or client.url).rstrip('/')}/projects/{project}")
    return failed


def _read_config(config: Path) -> str:
    """A label config that this backend supports.

    Raises:
        BackendError: the file cannot be read, or its label config is not supported.
    """
    try:
        xml = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config.name} cannot be read: give a file with a label config") from error
    parse_label_config(xml)
    return xml
