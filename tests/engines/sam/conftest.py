"""Sessions for the tests of the scene and of words, over one engine whose random weights are lively."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from backend.engines.sam.model import SamModel
from backend.engines.sam.session import SamSession
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.contract import FakeVideo
from tests.engines.sam import scenes
from tests.engines.sam.sessions import VIDEO


@pytest.fixture(scope="module")
def sam3() -> SamModel:
    return scenes.engine().model


@pytest.fixture
def opened(sam3) -> Iterator[Callable[..., SamSession]]:
    """Opens sessions; thresholds as keywords."""
    sessions = []

    def open_one(
        *prompts: Prompt | Phrase, video: FakeVideo = VIDEO, state: bytes | None = None, masks: bool = False, **changes
    ) -> SamSession:
        model = replace(sam3, thresholds=replace(sam3.thresholds, **changes), with_masks=masks)
        sessions.append(SamSession(model, video, state))
        for frame in sorted({prompt.frame for prompt in prompts}):
            sessions[-1].prompt([prompt for prompt in prompts if prompt.frame == frame])
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.__exit__()
