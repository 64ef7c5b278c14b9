"""The Label Studios that ask: where each project's is, and what it gave us to fetch files with."""

from backend.errors import StudioError
from backend.jobs.store import Store
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from backend.table import Table

_CLIENTS = 1024
"""How many projects' are held at hand; those of the others are on disk."""


class Connections:
    """One per process. What the settings say counts for more than what a project said when it connected."""

    def __init__(self, settings: Settings, store: Store) -> None:
        url, key = settings.label_studio_url, settings.label_studio_api_key
        self._set = LabelStudioClient(url, key) if url else None
        self._store = store
        self._clients: Table[LabelStudioClient] = Table(_CLIENTS)

    def connect(self, project: str, hostname: str, token: str) -> None:
        """Take note of a project's Label Studio; without an address, of nothing."""
        if hostname and self._store.connection(project) != (hostname, token):
            self._store.put_connection(project, hostname, token)
            self._clients.put(project, LabelStudioClient(hostname, token))

    @property
    def default_client(self) -> LabelStudioClient | None:
        """The one that the settings name."""
        return self._set

    def client(self, project: str) -> LabelStudioClient | None:
        """A project's, where it is known."""
        if self._set:
            return self._set
        client = self._clients.get(project)
        if client is None and (known := self._store.connection(project)):
            client = LabelStudioClient(*known)
            self._clients.put(project, client)
        return client

    def require_client(self, project: str) -> LabelStudioClient:
        """The client of a project.

        Raises:
            StudioError: its Label Studio is not known.
        """
        client = self.client(project)
        if client is None:
            raise StudioError("Label Studio's address is unknown: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        return client
