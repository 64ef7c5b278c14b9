"""The clients of all Label Studios that have connected, by project."""

from urllib.parse import urlsplit

from backend.errors import BadRequest, StudioError
from backend.jobs.store import Store
from backend.labelstudio.addresses import origin_of
from backend.labelstudio.client import LabelStudioClient
from backend.recent_values import RecentValues
from backend.settings import Settings

_MAX_CLIENTS = 1024
"""How many projects' clients are kept in memory; the others are on disk."""

_MAX_URL, _MAX_TOKEN = 2048, 8192
"""Characters; a personal access token has some 300."""


class Connections:
    """One per process. The Label Studio of the settings takes precedence over what a project sent when it connected.

    Attributes:
        default_client: of the Label Studio of the settings; None: they name none.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        url, key = settings.label_studio_url, settings.label_studio_api_key
        self.default_client = LabelStudioClient(url, key, settings.use_proxy) if url else None
        self._store, self._use_proxy = store, settings.use_proxy
        self._clients: RecentValues[LabelStudioClient] = RecentValues(_MAX_CLIENTS)

    def connect(self, project: str, hostname: str, token: str) -> None:
        """Save the address and token of a project's Label Studio; without an address, do nothing.

        Raises:
            BadRequest: the address is not one, or it or the token is too long.
        """
        if self.default_client or not hostname:
            return
        _check(hostname, token)
        if self._store.records.connection(project) != (hostname, token):
            self._store.records.put_connection(project, hostname, token)
            self._clients.put(project, LabelStudioClient(hostname, token, self._use_proxy))

    def client(self, project: str) -> LabelStudioClient | None:
        """The client of a project; None: its Label Studio is unknown."""
        if self.default_client:
            return self.default_client
        client = self._clients.get(project)
        if client is None and (connection := self._store.records.connection(project)):
            client = LabelStudioClient(*connection, self._use_proxy)
            self._clients.put(project, client)
        return client

    def require_client(self, project: str) -> LabelStudioClient:
        """The client of a project.

        Raises:
            StudioError: its Label Studio is unknown.
        """
        client = self.client(project)
        if client is None:
            raise StudioError("Label Studio's address is unknown: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        return client

    def task_url(self, project: str, task: str) -> str | None:
        """The address of a task's page in Label Studio; None: it is unknown."""
        client = self.client(project)
        is_numbered = project.isdecimal() and task.isdecimal()
        return f"{client.url}/projects/{project}/data?task={task}" if client and is_numbered else None


def _check(hostname: str, token: str) -> None:
    """Refuse what is not the address of a Label Studio: with a query, it would choose what is requested."""
    parts = urlsplit(hostname) if origin_of(hostname) else None
    is_valid = parts is not None and not (parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname)
    if not is_valid or len(hostname) > _MAX_URL or not hostname.isprintable() or "?" in hostname or "#" in hostname:
        raise BadRequest("the hostname in /setup is not an address: set LABEL_STUDIO_HOST in Label Studio")
    if len(token) > _MAX_TOKEN:
        raise BadRequest("the token in /setup is too long: use one of Label Studio's")
