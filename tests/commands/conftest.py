"""What the commands' tests share."""

from collections.abc import Iterator

import pytest

from tests.labelstudio.bodies import CONFIG
from tests.labelstudio.studio import TOKEN, Studio


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """A small Label Studio that the settings name."""
    with Studio(CONFIG) as studio:
        monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
        yield studio
