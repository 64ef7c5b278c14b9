"""On Apple's GPUs: every operator that an engine uses has a kernel there, as PyTorch lists them. No Mac ran it."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Point, Prompt
from tests.engines.contract import ENGINES, HEIGHT, WIDTH, ball, video

pytestmark = pytest.mark.slow

COMPOSITE = "CompositeImplicitAutograd"
ON_ANY_DEVICE = {
    "MPS",
    COMPOSITE,
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
}
ITS_OWN = {"_scaled_dot_product_flash_attention_for_cpu": "_scaled_dot_product_attention_math_for_mps"}
"""Where the same call goes to another operator on each device."""
DOUBLE = {torch.float64, torch.complex128}
"""Types that MPS does not have."""


@cache
def kernels() -> dict[str, Mapping[str, Any]]:
    """PyTorch's own list of operators, with the devices of each."""
    spec = find_spec("torchgen")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    listed = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].split("(")[0]: entry for entry in listed}


def has_kernel(name: str) -> bool:
    """Whether an operator runs on MPS, by itself or by the one that it is a form of."""
    entry = kernels().get(name)
    if entry is None:
        return False
    devices = {device.strip() for devices in entry.get("dispatch") or {} for device in devices.split(",")}
    form_of = entry.get("structured_delegate")
    if not devices and not form_of:
        return True  # composite, as is said by saying nothing
    return bool(devices & ON_ANY_DEVICE) or (form_of is not None and has_kernel(form_of))


class Walk(TorchDispatchMode):
    """Notes every operator that has a kernel of its own, also inside composite ones."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.double: set[str] = set()

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with self:
                return func._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        name, overload = func._schema.name.removeprefix("aten::"), func._schema.overload_name
        name = f"{name}.{overload}" if overload else name
        self.names.add(ITS_OWN.get(name, name))
        results = func(*args, **kwargs)
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor) and result.dtype in DOUBLE:
                self.double.add(name)
        return results


@pytest.mark.parametrize("name", ["sam2", "edgetam", "sam3"])
def test_every_operator_on_the_way_has_a_kernel(name: str) -> None:
    engine, mask = ENGINES[name](), np.zeros((HEIGHT, WIDTH), bool)
    mask[30:60, 40:70] = True
    prompts = [
        Prompt("box", 2, box=Box(*ball(2))),
        Prompt("clicks", 2, points=(Point(20, 20), Point(60, 60, positive=False))),
        Prompt("mask", 2, mask=mask),
    ]
    with Walk() as walk, engine.open(video()) as session:
        session.prompt([*prompts, *([Phrase("a b", 2)] if name == "sam3" else [])])
        list(session.propagate(range(2, 5)))
        session.prompt([Prompt("box", 4, points=(Point(20, 20),))])
        list(session.propagate(range(4, 6)))
    assert len(walk.names) > 70
    assert not [name for name in sorted(walk.names) if not has_kernel(name)]
    if name != "sam3":  # its association of detections is in double precision where the device has it
        assert not walk.double


def test_the_list_knows_what_has_none() -> None:
    assert has_kernel("convolution")
    assert not has_kernel("_scaled_dot_product_flash_attention_for_cpu")
