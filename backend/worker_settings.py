"""Settings of where the workers run: on which devices, and on which cluster."""

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from backend.errors import SettingsError

_DEVICE = r"auto|cpu(:[1-9]\d?)?|mps|cuda(:\d+)?"


@dataclass(frozen=True, slots=True)
class RaySettings:
    """With `workers: ray`, where the workers run and how many there are."""

    address: Annotated[
        str,
        "`auto` on a node of a cluster, or its head's address, such as `10.0.0.5:6379`; empty: a cluster of this "
        "machine alone, which ends with the server",
    ] = ""
    num_gpus: Annotated[float, "GPUs of each worker; 0: it runs on a CPU"] = 1.0
    num_cpus: Annotated[float, "CPU cores of each worker"] = 1.0
    min: Annotated[int, "workers that always run"] = 1
    max: Annotated[int, "most workers; those beyond `ray.min` start when jobs wait and end when they are idle"] = 4
    runtime_env: Annotated[
        dict[str, Any],
        "what Ray prepares on the nodes, as its documentation says: `{pip: [...], env_vars: {...}}`",
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise SettingsError(
                "ray.address is of Ray's client, which cannot stream: run the server on a node of the cluster with "
                "auto, or give the head's own address, such as 10.0.0.5:6379"
            )
        for name in ("num_gpus", "num_cpus"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"ray.{name} is {getattr(self, name):g}: give 0 or more")
        if not 1 <= self.min <= self.max:
            raise SettingsError(f"ray.min is {self.min}, ray.max {self.max}: give 1 or more, and max at least min")


def parse_devices(text: str) -> tuple[str, ...]:
    """The devices that the setting `device` names, one for each worker; "auto" stays so.

    Raises:
        SettingsError: there is no such device, or one is named twice, or they are of several kinds.
    """
    names = [name.strip() for name in text.split(",")]
    if bad := [name for name in names if not re.fullmatch(_DEVICE, name)]:
        raise SettingsError(
            f"device has {bad[0]!r}: choose auto, cpu, cpu:N (N workers), mps, cuda or cuda:N; several as "
            "[cuda:0, cuda:1]"
        )
    kinds = [name.partition(":")[0] for name in names]
    numbered = ["cuda:0" if name == "cuda" else name for name in names if name[:3] != "cpu"]
    if twice := next((name for name in numbered if numbered.count(name) > 1), None):
        raise SettingsError(f"device names {twice} twice: name each device once")
    if kinds.count("cpu") > 1:
        raise SettingsError("device names cpu twice: write cpu:2 for two workers")
    if len({*kinds}) > 1:
        raise SettingsError(f"device is {text!r}: give devices of one kind, which compute equal tracks")
    if kinds == ["cpu"]:
        return ("cpu",) * int(names[0].removeprefix("cpu").lstrip(":") or 1)
    return tuple(names)
