"""Runs sessions through what facebookresearch/sam3 was run through, and compares with its numbers.

Features of frames are noise in both, and detections are drawn. See `original` for where the numbers come from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from backend.engines.sam.detections import Detections, Query
from backend.engines.sam.device import Batcher
from backend.engines.sam.image_encoder import ImageEncoder
from backend.engines.sam.memory_bank import FrameMemory
from backend.engines.sam.model import SamModel
from backend.engines.sam.preprocess import preprocess_image
from backend.engines.sam.session import SamSession
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.video import Picture
from tests.engines.contract import FakeVideo
from tests.engines.sam3 import original
from tests.engines.sam3.original import normal
from tests.engines.sam3.tiny import GRID, IMAGE, WIDTH

FRAMES, HEIGHT, BREADTH = 24, 120, 160
CPU = torch.device("cpu")
LEVELS = (WIDTH // 8, 4 * GRID), (WIDTH // 4, 2 * GRID), (WIDTH, GRID)


@dataclass(frozen=True)
class Features:
    """The levels of one frame."""

    fpn_levels: Sequence[Tensor]


class NoiseEncoder(ImageEncoder[Features]):
    """Frames that resemble each other, as those of a film do."""

    def __init__(self) -> None:
        super().__init__(None)

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        frame = int(picture[0, 0, 0])
        shapes = [(1, channels, side, side) for channels, side in LEVELS]
        return tuple(
            normal(f"level {n}", shape) + 0.3 * normal(f"level {n} of frame {frame}", shape)
            for n, shape in enumerate(shapes)
        )

    def compile(self) -> None:
        """Nothing to compile."""

    def _features(self, output: tuple[Tensor, ...]) -> Features:
        return Features(output)


@dataclass
class DrawnDetector:
    """Finds discs the first time that it is asked, and nothing after that."""

    count: int
    batches: Batcher = field(default_factory=lambda: Batcher(1, "phrases"))

    def check_texts(self, texts: Sequence[str]) -> None:
        """Nothing to check."""

    def detect_queries(self, image: Any, queries: Sequence[Query], tracks: Tensor) -> Detections:
        """See `backend.engines.sam.detections.Detector`."""
        found = torch.stack([disc("detection 0", 9, 11), disc("detection 1", 23, 19)])[: self.count]
        self.count = 0
        kinds = torch.zeros(len(found), dtype=torch.int64)
        return Detections.select(found, torch.full((len(found),), 0.9), kinds, tracks)


def disc(name: str, x: float, y: float) -> Tensor:
    """Logits of shape (32, 32)."""
    rows, columns = np.mgrid[: 4 * GRID, : 4 * GRID]
    cone = torch.from_numpy((7 - 1.1 * np.hypot(columns - x, rows - y)).astype(np.float32))
    return cone + normal(name, (4 * GRID, 4 * GRID)) / 2


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    """A mask of the picture's size."""
    rows, columns = np.mgrid[:HEIGHT, :BREADTH]
    return np.asarray(((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1)


class Comparison:
    """Differences of ours from the original's numbers, by name."""

    def __init__(self) -> None:
        self._numbers = original.read()
        self.tracker_model = original.build_model(self._numbers["shapes"], original.driver_weight).tracker_model
        self.masks: dict[str, float] = {}
        self.pointers: dict[str, float] = {}
        self.memories: dict[str, float] = {}
        self.others: dict[str, float] = {}

    def run(self) -> None:
        """Run all cases."""
        with torch.inference_mode(), patch.object(Tracker, "memory_dtype", torch.float32):
            self._run_mask_and_click()
            self._run_long()
            self._run_words()
            self._run_refinement()
            self._encode_memories()
        pixels = preprocess_image(self._picture(), IMAGE, CPU, published=True)
        self.others["picture"] = original.relative_difference(
            pixels * 127.5 + 127.5, self._numbers["driver"]["picture"]
        )

    def _picture(self) -> np.ndarray:
        return np.random.RandomState(5).randint(0, 256, (HEIGHT, BREADTH, 3)).astype(np.uint8)

    def _session(self, detections: int = 0) -> SamSession:
        pictures = [np.full((HEIGHT, BREADTH, 3), frame, np.uint8) for frame in range(FRAMES)]
        model = SamModel(
            image_encoder=NoiseEncoder(),
            tracker=Tracker(self.tracker_model),
            detector=DrawnDetector(detections),
            thresholds=Thresholds(hotstart_frames=0, recondition_every=0),
            inference=_as_is,
            max_speck_area=16,
            with_masks=False,
            fingerprint="",
            published=True,
        )
        return SamSession(model, FakeVideo(pictures))

    def _check(self, name: str, session: SamSession, track: str, frame: int) -> None:
        memory = session._object_tracker.objects[track].memory_bank.get(frame)
        assert memory is not None
        self._check_memory(name, memory)

    def _check_memory(self, name: str, memory: FrameMemory) -> None:
        numbers = self._numbers["driver"]
        assert memory.logits is not None
        assert memory.features is not None
        if not name.startswith("born"):  # of which the original keeps the thresholded mask, and we the detection
            theirs = torch.tensor(numbers[f"{name}: mask"])
            difference = original.sample(memory.logits).sigmoid() - theirs.sigmoid()
            self.masks[name] = float(difference.abs().max())
            self.others[f"{name}: score"] = abs(memory.object_score - numbers[f"{name}: score"][0])
        self.pointers[name] = original.relative_difference(memory.object_pointer, numbers[f"{name}: pointer"])
        self.memories[name] = original.relative_difference(memory.features, numbers[f"{name}: memory"])

    def _run_mask_and_click(self) -> None:
        with self._session() as session:
            session.prompt([Prompt("a", 0, mask=ellipse(60, 50, 33, 21))])
            self._check("given mask", session, "a", 0)
            list(session.propagate(range(5)))
            self._check("tracked 1", session, "a", 1)
            self._check("tracked 4", session, "a", 4)
            session.prompt([Prompt("a", 4, points=(Point(70, 60),))])
            self._check("click on a tracked frame", session, "a", 4)
            list(session.propagate(range(5, 7)))
            self._check("after the click", session, "a", 6)

    def _run_long(self) -> None:
        """Long enough for pointers to be left out."""
        with self._session() as session:
            session.prompt([Prompt("a", 0, points=(Point(60, 50),))])
            self._check("click", session, "a", 0)
            list(session.propagate(range(19)))
            self._check("tracked 18", session, "a", 18)
            list(session.propagate(range(19, 23)))
            self._check("tracked 22", session, "a", 22)

    def _run_words(self) -> None:
        with self._session(detections=2) as session:
            session.prompt([Phrase("disc")])
            for number in range(2):
                self._check(f"born {number}", session, f"disc {number + 1}", 0)
            list(session.propagate(range(2)))
            banks = [obj.memory_bank for obj in session._object_tracker.objects.values()]
            features = torch.stack([bank.directions[False].non_cond_frames[1].features for bank in banks])
            numbers = self._numbers["driver"]["words tracked: memory"]
            self.memories["words tracked"] = original.relative_difference(features, numbers)

    def _run_refinement(self) -> None:
        with self._session(detections=1) as session:
            session.prompt([Phrase("disc")])
            list(session.propagate(range(4)))
            self._check("words alone 3", session, "disc 1", 3)
            session.prompt([Prompt("disc 1", 3, points=(Point(70, 40),))])
            self._check("refined", session, "disc 1", 3)
            list(session.propagate(range(4, 6)))
            self._check("after refining 4", session, "disc 1", 4)
            self._check("after refining 5", session, "disc 1", 5)

    def _encode_memories(self) -> None:
        tracker, black = Tracker(self.tracker_model), np.zeros((1, 1, 3), np.uint8)
        image = NoiseEncoder().encode("", 0, lambda: black)
        logits, scores = normal("mask", (1, 1, 4 * GRID, 4 * GRID))[0] * 5, torch.tensor([5.0])
        for name, binary in (("soft memory", False), ("hard memory", True)):
            features = tracker._encode_memory(image, logits, scores, full_size=True, binary=binary)
            self.memories[name] = original.relative_difference(features, self._numbers["driver"][name])


@contextmanager
def _as_is() -> Iterator[None]:
    yield
