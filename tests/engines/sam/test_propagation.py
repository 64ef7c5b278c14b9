"""Sessions that stand on one frame: what they ask for is answered in one batch."""

from collections import Counter

import pytest

from backend.engines.sam import mask_boxes, postprocess
from backend.engines.sam.propagation import advance_together
from tests.engines.sam.sessions import A, B, click, run

PARTS = ((postprocess, "fetch"), (mask_boxes, "masks_to_boxes"))
YOUNG = click("c", 6, 80, 100)


@pytest.fixture
def calls(monkeypatch, sam3) -> Counter[str]:
    """How often parts were called."""
    counted: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        call = getattr(owner, name)

        def counting(*args, **kwargs):
            counted[name] += 1
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    for owner, name in PARTS:
        count(owner, name)
    count(sam3.tracker, "_run_decoder")
    count(sam3.tracker, "_encode_memory")
    return counted


@pytest.mark.slow
def test_sessions_of_any_age_share_transfers_decoder_and_boxes(opened, calls):
    prompts = (A, B, YOUNG)
    alone = [run(opened(prompt), 6, 9) if prompt is YOUNG else run(opened(prompt), 0, 9)[6:] for prompt in prompts]
    sessions = [opened(prompt) for prompt in prompts]
    for session in sessions[:2]:
        run(session, 0, 7)
    run(sessions[2], 6, 7)
    propagations = [session.propagate(range(7, 9)) for session in sessions]
    for frame in (7, 8):
        calls.clear()
        results = advance_together(propagations)
        assert calls == {"fetch": 1, "masks_to_boxes": 1, "_run_decoder": 1, "_encode_memory": 1}
        for result, expected in zip(results, alone, strict=True):
            ((name, seen),) = result.tracks.items()
            known = expected[frame - 6].tracks[name]
            assert seen.score == pytest.approx(known.score, abs=1e-4)
            assert (seen.box is None) == (known.box is None)
            assert seen.box is None or seen.box == pytest.approx(known.box, abs=1)
