"""Kernels and waits of a frame, counted on a CPU: `python benchmarks/launches.py`. The last line is one JSON object.

A GPU computes a small model as fast as a CPU launches its kernels, and waits for each result that is fetched. Both can
be counted without one. The model has the depth of the published one (32 layers of the vision encoder, 4 of memory
attention), a tiny width and random weights; it runs in bfloat16 autocast on a film of shapes. `--quick` counts fewer
objects, after fewer frames.

- kernels_1, kernels_16, kernels_64: calls of PyTorch in one propagated frame that make new storage or write in place,
  with so many clicked objects once their memories are full. Composite operations count once, so a lower bound; what
  is computed on the host, from what was read, does not count.
- kernels_words: the same of a frame that is searched for a phrase; objects_words: how many objects it has.
- waits_1, waits_16, waits_64, waits_words: reads of values that were computed on the device (`.cpu()`, `.tolist()`,
  `bool()`, `.item()`, `nonzero`, a mask as an index). What was read before lies on the host, and costs nothing more.
- uploads_1, uploads_16, uploads_64: small tensors made from Python values on the device.
- fp32_kernels_1: as kernels_1, without autocast.
- masked_calls, calls_per_layer: of 8 objects one is corrected and another one joins, and the frames after that are
  tracked as on CUDA with `attention: flash`, with a stand-in for its operator: products of attention that have a mask,
  and the most calls that a layer needs for what the objects remember. masked_calls_auto, calls_per_layer_auto: with
  `attention: auto`.
- tidy_ms_64, tidy_ms_64_whole: milliseconds on one thread to clean 64 masks (288 x 288; each 5 to 20 % of a
  1920 x 1080 picture's width, with three specks) and make their boxes; and where every mask is labelled whole.
- state_mb_object: megabytes that a saved state takes for an object of the published model's size with one conditioning
  frame and a full memory; kept_mb_slot: what one frame of its memory takes in use, with its mask, which a state omits.
- state_stop_ms_16, state_write_ms_16: milliseconds for which 16 such objects stand still while a state of them is
  taken, and which another thread then needs to write it.
"""

import argparse
import collections
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines.base import Session
from backend.engines.sam import mask_boxes, memory_attention, postprocess
from backend.engines.sam.memory_bank import FrameMemory, MemoryBank, MemoryWindow
from backend.engines.sam.session_state import SessionState, TrackedObject
from backend.engines.sam3.engine import Sam3Engine
from backend.settings import Settings
from backend.tracks.prompts import Phrase, Point, Prompt
from tests.engines.sam import scenes
from tests.engines.sam.packed_attention import attend_packed
from tests.engines.sam3 import tiny

WARM = 18
"""Frames after which all memories are full."""
READS = ("cpu", "tolist", "numpy", "__bool__", "item", "__float__", "__int__")
READING_OPERATIONS = {"nonzero", "nonzero_numpy", "masked_select", "_local_scalar_dense"}
FREE = {"empty", "empty_like", "new_empty", "empty_strided", "lift_fresh", "dropout"}
SIZE, POSITIONS, MEMORY_WIDTH, WIDTH = 288, 72 * 72, 64, 256
"""Of the published model: masks, memories, object pointers."""


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is active.

    Attributes:
        kernels: by name of the operation.
        waits: by kind.
        uploads: tensors made from Python values.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.uploads = 0
        # Storages on the host, those that were made of nothing, so that the others that they meet tell where they are,
        # and the tensors that keep both from being used again meanwhile.
        self._host: set[int] = set()
        self._anywhere: set[int] = set()
        self._kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        name, out = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        inputs, outputs = list(tensors(args)), list(tensors(out))
        if all(map(self._is_anywhere, inputs)):
            self._keep(self._anywhere, outputs)
        elif all(self._is_anywhere(tensor) or self.is_on_host(tensor) for tensor in inputs):
            self.put_on_host(*outputs)
            return out
        if name in READING_OPERATIONS:
            self.waits[name] += 1
        elif name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        ):
            self.waits["mask as an index"] += 1
        if name not in FREE and outputs and (name.endswith("_") or makes_storage(inputs, outputs)):
            self.kernels[name] += 1
        return out

    def is_on_host(self, tensor: Tensor) -> bool:
        """Whether a tensor was read, or made of such ones."""
        return not tensor.numel() or tensor.untyped_storage().data_ptr() in self._host

    def put_on_host(self, *found: Tensor) -> None:
        """Remember that tensors lie on the host."""
        self._keep(self._host, found)

    def _is_anywhere(self, tensor: Tensor) -> bool:
        # A number in Python's code is a tensor without dimensions here.
        return not tensor.dim() or tensor.untyped_storage().data_ptr() in self._anywhere

    def _keep(self, where: set[int], found: Sequence[Tensor]) -> None:
        self._kept += found
        where |= {tensor.untyped_storage().data_ptr() for tensor in found if tensor.numel()}


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)


def makes_storage(inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    return any(tensor.untyped_storage().data_ptr() not in known for tensor in outputs)


@contextmanager
def counting() -> Iterator[Counter]:
    """Count all operations of the block, and the reads by methods of tensors."""
    counter = Counter()

    def reading(name: str) -> Callable[..., Any]:
        method = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not counter.is_on_host(self):
                counter.waits[name] += 1
                if name == "cpu":
                    self = self.clone()
            with torch.utils._python_dispatch._disable_current_modes():
                found = method(self, *args, **kwargs)
            if isinstance(found, Tensor):
                counter.put_on_host(found)
            return found

        return read

    def making(name: str) -> Callable[..., Tensor]:
        make = getattr(torch, name)

        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor: Tensor = make(*args, **kwargs)
            if kwargs.get("device") is None:
                counter.put_on_host(tensor)
            else:
                counter.uploads += 1
            return tensor

        return made

    with ExitStack() as patches:
        for name in READS:
            patches.enter_context(patch.object(Tensor, name, reading(name)))
        for name in ("tensor", "from_numpy"):
            patches.enter_context(patch.object(torch, name, making(name)))
        with counter:
            yield counter


@contextmanager
def real_depth() -> Iterator[None]:
    """The tests' tiny model with as many layers as the published one."""
    vision, detector, tracker = tiny.vision, tiny.detector, tiny.tracker

    def deep_vision() -> dict[str, Any]:
        found = vision()
        found["backbone_config"] |= {"num_hidden_layers": 32, "global_attn_indexes": [7, 15, 23, 31]}
        return found

    def deep_detector() -> dict[str, Any]:
        found = detector() | {"vision_config": deep_vision()}
        found["geometry_encoder_config"]["num_layers"] = 3
        found["detr_encoder_config"]["num_layers"] = found["detr_decoder_config"]["num_layers"] = 6
        return found

    def deep_tracker() -> dict[str, Any]:
        return tracker() | {"vision_config": deep_vision(), "memory_attention_num_layers": 4}

    with patch.multiple(tiny, vision=deep_vision, detector=deep_detector, tracker=deep_tracker):
        yield


def load(folder: Path, dtype: Literal["float32", "bfloat16"]) -> Sam3Engine:
    thresholds: dict[str, Any] = {"score_threshold": 0.1, "new_object_threshold": 0.15, "max_objects": 128}
    engine = Sam3Engine(Settings(model_path=str(folder), device="cpu", dtype=dtype, **thresholds))
    assert engine.model
    return engine


def count_frame(engine: Sam3Engine, objects: int, words: bool = False, warm: int = WARM) -> tuple[Counter, int]:
    """Count a frame once memories are full; returns how many objects there are as well."""
    frames = warm + (18 if words else 2)
    side = int(np.ceil(np.sqrt(max(1, objects))))
    places = [((n % side + 0.5) * 168 / side, (n // side + 0.5) * 168 / side) for n in range(objects)]
    clicks = [Prompt(str(n), 0, points=(Point(*place),)) for n, place in enumerate(places)]
    with engine.open(scenes.endless(scenes.FIVE, frames)) as session:
        session.prompt([Phrase("a b")] if words else clicks)
        results = session.propagate(range(frames))
        for _ in range(warm):
            next(results)
        with counting() as counter:
            next(results)
        count = len(session._object_tracker.objects)
        results.close()
    return counter, count


def report(name: str, counter: Counter) -> None:
    """What the counts are made of, for people."""
    waits, kernels = dict(counter.waits), counter.kernels.most_common(8)
    print(f"{name}: {sum(counter.kernels.values())} kernels, waits {waits}, {kernels}", file=sys.stderr, flush=True)


def launches(quick: bool) -> dict[str, int]:
    figures: dict[str, int] = {}
    warm = 4 if quick else WARM
    with tempfile.TemporaryDirectory() as temporary, real_depth():
        folder = tiny.save(Path(temporary) / "deep")
        engine = load(folder, "bfloat16")
        for objects in (1, 16, 64):
            counter, _ = count_frame(engine, min(objects, 4) if quick else objects, warm=warm)
            report(f"{objects} objects", counter)
            figures |= {
                f"kernels_{objects}": sum(counter.kernels.values()),
                f"waits_{objects}": sum(counter.waits.values()),
                f"uploads_{objects}": counter.uploads,
            }
        counter, count = count_frame(engine, 0, words=True, warm=warm)
        report(f"words, {count} objects", counter)
        figures |= {
            "kernels_words": sum(counter.kernels.values()),
            "waits_words": sum(counter.waits.values()),
            "objects_words": count,
        }
        counter, _ = count_frame(load(folder, "float32"), 1, warm=warm)
        report("1 object, float32", counter)
        return figures | {"fp32_kernels_1": sum(counter.kernels.values())}


class AttentionCounter:
    """Counts products of attention, and stands in for PyTorch's operator for tokens of any number, which needs a GPU.

    Attributes:
        masked: products with a mask.
        calls: all of them.
        calls_per_layer: the most for what objects remember.
    """

    def __init__(self) -> None:
        self._attend, self._attend_to_tokens = (
            functional.scaled_dot_product_attention,
            memory_attention.attend_to_tokens,
        )
        self.masked = self.calls = self.calls_per_layer = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Any:
        """In place of `scaled_dot_product_attention`."""
        self.masked += attn_mask is not None
        self.calls += 1
        return self._attend(query, key, value, attn_mask, **options)

    def attend_packed(self, *args: Any, **kwargs: Any) -> Tensor:
        """In place of `varlen_attn`."""
        self.calls += 1
        return attend_packed(*args, **kwargs)

    def attend_to_tokens(self, *args: Any) -> Tensor:
        """In place of the function that makes one or several of these calls."""
        before = self.calls
        found = self._attend_to_tokens(*args)
        self.calls_per_layer = max(self.calls_per_layer, self.calls - before)
        return found


def attention_calls(quick: bool) -> dict[str, int]:
    """Of objects with different histories."""
    warm = 4 if quick else WARM
    places = [(20.0 * n + 10, 50.0) for n in range(8)]
    late = [Prompt("0", warm, points=(Point(12.0, 52.0),)), Prompt("new", warm, points=(Point(90.0, 90.0),))]
    with tempfile.TemporaryDirectory() as temporary:
        engine = load(tiny.save(Path(temporary) / "tiny"), "bfloat16")

    def count(prefers_flash: bool) -> AttentionCounter:
        counter = AttentionCounter()
        engine.model.tracker.prefers_flash = prefers_flash
        with (
            patch.object(functional, "scaled_dot_product_attention", counter.attend),
            patch.object(varlen, "varlen_attn", counter.attend_packed),
            patch.object(memory_attention, "fits_flash", lambda *_: True),
            patch.object(memory_attention, "attend_to_tokens", counter.attend_to_tokens),
            engine.open(scenes.endless(scenes.FIVE, warm + 4)) as session,
        ):
            session.prompt([Prompt(str(n), 0, points=(Point(*place),)) for n, place in enumerate(places)])
            run(session, range(warm + 1))
            session.prompt(late)
            counter.masked = counter.calls_per_layer = 0
            run(session, range(warm, warm + 4))
        return counter

    packed, auto = count(True), count(False)
    return {
        "masked_calls": packed.masked,
        "calls_per_layer": packed.calls_per_layer,
        "masked_calls_auto": auto.masked,
        "calls_per_layer_auto": auto.calls_per_layer,
    }


def run(session: Session, span: range) -> None:
    """Track over the whole of it."""
    for _ in session.propagate(span):
        pass


def specked_masks(count: int) -> Tensor:
    """Logits of objects, each with three specks; shape (n, 288, 288)."""
    random = np.random.default_rng(0)
    masks = np.full((count, SIZE, SIZE), -5, np.float32)
    for mask in masks:
        radius = random.uniform(0.05, 0.2) * SIZE / 2
        x, y = random.uniform(radius, SIZE - radius, 2)
        cv2.ellipse(mask, (round(x), round(y)), (round(radius), round(radius * 1.4)), 20, 0, 360, 5, -1)
        for left, top in random.integers(0, SIZE - 3, (3, 2)):
            mask[top : top + 2, left : left + 2] = 5
    return torch.from_numpy(masks)


def clean_whole(logits: Tensor, area: int) -> Tensor:
    """As `clean_masks`, by labelling every mask whole."""
    inside = (logits > 0).numpy()
    holes, specks = np.empty_like(inside), np.empty_like(inside)
    for index, mask in enumerate(inside):
        holes[index] = small_components(~mask, area)
        filled = mask | holes[index]
        specks[index] = small_components(filled, min(area, int(filled.sum()) // 2))
    logits = torch.where(torch.from_numpy(holes), postprocess.HOLE_LOGIT, logits)
    return torch.where(torch.from_numpy(specks), postprocess.SPECK_LOGIT, logits)


def small_components(mask: Any, area: int) -> Any:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= area
    small[0] = False
    return small[labels]


def tidying(quick: bool) -> dict[str, float]:
    masks = specked_masks(4 if quick else 64)
    assert torch.equal(postprocess.clean_masks(masks, 16), clean_whole(masks, 16))

    def seconds(clean: Callable[[Tensor, int], Tensor]) -> float:
        begin = time.process_time()
        mask_boxes.masks_to_boxes(clean(masks, 16), 1080, 1920)
        return time.process_time() - begin

    turns = [(seconds(postprocess.clean_masks), seconds(clean_whole)) for _ in range(2 if quick else 9)]
    cropped, whole = np.median(turns, 0) * 1e3
    return {"tidy_ms_64": round(float(cropped), 1), "tidy_ms_64_whole": round(float(whole), 1)}


def memory() -> dict[str, float]:
    """Of objects as the published model's tracker leaves them."""

    def frame(score: float = 1.0) -> FrameMemory:
        features = torch.randn(POSITIONS, MEMORY_WIDTH).bfloat16()
        return FrameMemory(features, torch.randn(WIDTH), torch.randn(SIZE, SIZE), score)

    window, positions = MemoryWindow(6, 16, 4, 0.01), {False: 39, True: 40}

    def tracked() -> TrackedObject:
        bank = MemoryBank({0: frame()})
        for at in range(1, 40):
            bank.directions[False].non_cond_frames[at] = frame()
            bank.prune(at, False, window)
        return TrackedObject(bank)

    def take_state(objects: Mapping[str, TrackedObject]) -> SessionState:
        taken = {name: one.snapshot(positions) for name, one in objects.items()}
        for one in taken.values():
            one.memory_bank.strip(positions, window)
        return SessionState({}, taken)

    objects = {str(number): tracked() for number in range(16)}
    slot = objects["0"].memory_bank.directions[False].non_cond_frames[39]
    kept = sum(value.nbytes for value in slot if isinstance(value, Tensor))
    size = len(bytes(take_state({"0": objects["0"]})))
    start = time.perf_counter()
    state = take_state(objects)
    taken = time.perf_counter()
    with tempfile.TemporaryFile() as file:
        file.write(bytes(state))
    written = time.perf_counter()
    return {
        "state_mb_object": round(size / 1e6, 3),
        "kept_mb_slot": round(kept / 1e6, 2),
        "state_stop_ms_16": round((taken - start) * 1e3, 2),
        "state_write_ms_16": round((written - taken) * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer objects and frames")
    quick = parser.parse_args().quick
    print(json.dumps({**launches(quick), **attention_calls(quick), **tidying(quick), **memory()}))


torch.set_num_threads(1)
cv2.setNumThreads(1)

if __name__ == "__main__":
    main()
