"""All settings, one frozen dataclass: flag > environment > YAML > default. The only reader of the environment."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from backend.errors import SettingsError
from backend.prompts import Direction

PREFIX = "SAM3_BACKEND_"
ALIASES = {
    name: name.lower()
    for name in (
        "LABEL_STUDIO_URL",
        "LABEL_STUDIO_API_KEY",
        "BASIC_AUTH_USER",
        "BASIC_AUTH_PASS",
        "MODEL_DIR",
        "DEVICE",
        "LOG_LEVEL",
        "PORT",
    )
}
"""Names of the environment that users of Label Studio backends expect to work."""

SECRETS = frozenset({"label_studio_api_key", "basic_auth_pass"})
PLACES = frozenset({"data_dir", "model_dir", "bpe_path"})
"""Settings that only name a place on this machine: nobody is shown them."""

_MENU = "belongs to X-AnyLabeling's menu: leave it out, model_path says what is loaded"
_REFUSED = {
    "auto_clear_cache_label_and_gid": "belongs to X-AnyLabeling's client: leave it out",
    "batch_processing_mode": "belongs to X-AnyLabeling's client: leave it out, every task is a video here",
    "display_name": _MENU,
    "epsilon_factor": "smooths X-AnyLabeling's polygons, and tracks here are boxes: leave it out",
    "model_id": _MENU,
    "name": _MENU,
    "params": "is X-AnyLabeling's group: write the settings below it without it, at the start of the line",
    "provider": _MENU,
    "type": "is X-AnyLabeling's: leave it out, engine: sam3 is what it means",
    "widgets": "belongs to X-AnyLabeling's client: leave it out, the label config says what Label Studio shows",
}
"""X-AnyLabeling's keys that mean nothing here, and what to do about each."""
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class KeyframeSettings:
    """How a track becomes keyframes. `iou`: the least IoU of an interpolated box with the tracked one."""

    iou: float = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost: a file's bytes, download seconds, pixels and frames, jobs waiting, a body's bytes; how
    many seconds a frame may take before the engine counts as hung; the bytes and days for which jobs are kept."""

    bytes: int = 8 * 2**30
    seconds: float = 600.0
    pixels: int = 8192**2
    frames: int = 1_000_000
    queue: int = 64
    body: int = 64 * 2**20
    stall: float = 600.0
    store: int = 4 * 2**30
    days: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting and its default; README.md says what each does."""

    engine: Literal["auto", "sam3", "opencv"] = "auto"
    model_path: str = "facebook/sam3"
    bpe_path: str = ""
    model_dir: str = ""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    image_size: int = 0
    score_threshold: float = 0.5
    new_object_threshold: float = 0.7
    max_objects: int = 64
    hotstart_frames: int = 15
    show_masks: bool = False
    direction: Direction = "forward"
    max_frames: int = 0
    answer_within: float = 10.0
    preserve: bool = True
    pre_annotate: str = "off"
    frames_per_strip: int = 200
    public_url: str = ""
    keyframes: KeyframeSettings = field(default_factory=KeyframeSettings)
    limits: Limits = field(default_factory=Limits)
    data_dir: Path = Path("~/.local/share/sam3-backend")
    host: str = "127.0.0.1"
    port: int = 9090
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    label_studio_url: str = ""
    label_studio_api_key: str = ""
    basic_auth_user: str = ""
    basic_auth_pass: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.keyframes.iou <= 1:
            raise SettingsError(f"keyframes.iou is {self.keyframes.iou:g}: give a number above 0, at most 1")
        self._check_model()
        for name in ("answer_within", "max_frames", "hotstart_frames"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is negative: give 0 or more")
        if not 2 <= self.frames_per_strip <= 1000:
            raise SettingsError(f"frames_per_strip is {self.frames_per_strip}: give 2 to 1000, more make the page slow")
        if self.public_url and not re.fullmatch(r"https?://[^\s/]+.*", self.public_url):
            raise SettingsError("public_url must begin with http:// or https://: it is how browsers reach this server")
        if not 0 <= self.port < 65536:
            raise SettingsError(f"port is {self.port}: give 0 to 65535")
        for limit in fields(self.limits):
            if getattr(self.limits, limit.name) <= 0:
                raise SettingsError(f"limits.{limit.name} must be above 0")
        if self.label_studio_api_key and not self.label_studio_url:
            raise SettingsError(
                "label_studio_api_key is set, but not label_studio_url: the key is sent to that address alone"
            )
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass):
            raise SettingsError("basic_auth_user and basic_auth_pass go together: set both or none")

    def _check_model(self) -> None:
        if not self.model_path:
            raise SettingsError("model_path is empty: give facebook/sam3, or the folder or file of its weights")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise SettingsError(f"device is {self.device!r}: choose one of auto, cpu, mps, cuda, cuda:N")
        if self.image_size < 0 or self.image_size % 14:
            raise SettingsError(f"image_size is {self.image_size}: give a multiple of 14, or 0 for the model's own")
        for name in ("score_threshold", "new_object_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name):g}: give a number above 0, at most 1")
        if self.new_object_threshold < self.score_threshold:
            raise SettingsError(
                f"new_object_threshold is {self.new_object_threshold:g}, below score_threshold, which is "
                f"{self.score_threshold:g}: raise it, a new object has to be seen first"
            )
        if self.max_objects < 1:
            raise SettingsError(f"max_objects is {self.max_objects}: give 1 or more")

    def shown(self) -> dict[str, Any]:
        """As JSON for people to read, secrets masked and folders of this machine left out."""
        values = {
            key: "***" if key in SECRETS and value else value
            for key, value in _plain(self).items()
            if key not in PLACES
        }
        # A hub's id is short; of a longer path its name says enough.
        is_short = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", self.model_path)
        return values | {"model_path": self.model_path if is_short else Path(self.model_path).name}


def load(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        config: a YAML file; None: no file.
        flags: values from the command line by key; None stands for a flag that was not given.

    Raises:
        SettingsError: a key is unknown, a value does not fit, or the file cannot be read.
    """
    sources = [_file(config), _environment(), {key: value for key, value in (flags or {}).items() if value is not None}]
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _merged(merged, _translated(source))
    loaded: Settings = _applied(Settings(), merged)
    return loaded


def _file(config: Path | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the config file {config.name} cannot be read as YAML: {type(error).__name__}") from error
    if not isinstance(values or {}, Mapping):
        raise SettingsError(f"the config file {config.name} must hold key: value lines")
    return values or {}


def _environment() -> Mapping[str, Any]:
    values: dict[str, Any] = {key: os.environ[name] for name, key in ALIASES.items() if os.environ.get(name)}
    groups = [f.name for f in fields(Settings) if is_dataclass(getattr(Settings(), f.name))]
    for name, value in os.environ.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            group = next((group for group in groups if key.startswith(f"{group}_")), None)
            if group:
                values = _merged(values, {group: {key.removeprefix(f"{group}_"): value}})
            else:
                values[key] = value
    return values


def _translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of X-AnyLabeling's SAM3 config under our names.

    Raises:
        SettingsError: a key has no meaning here, or is given under both names.
    """
    ours: dict[str, Any] = {}
    for key, value in values.items():
        if key in _REFUSED:
            raise SettingsError(f"{key} {_REFUSED[key]}")
        name, value = _ours(key, value)
        if name != key and name in values:
            raise SettingsError(f"{key} and {name} are the same setting: give {name} alone")
        if name:
            ours[name] = value
    return ours


def _ours(key: str, value: Any) -> tuple[str, Any]:
    """One setting's name and value here; no name where it says what is so anyway."""
    if key == "conf_threshold":
        return "score_threshold", value
    if key == "devices":
        number = str(value).strip("[] ")
        if not number.isdecimal():
            raise SettingsError(f"devices is {value!r}, but one device runs the model: set device: cuda:0 or another")
        return "device", f"cuda:{number}"
    if key == "show_boxes":
        if not _fitted(key, bool, value):
            raise SettingsError("show_boxes cannot be switched off, tracks are boxes: set show_masks: true for masks")
        return "", None
    return key, value


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(low[key], high[key])
        for key in low.keys() & high.keys()
        if isinstance(low[key], Mapping) and isinstance(high[key], Mapping)
    }
    return {**low, **high, **both}


def _applied(base: Any, values: Mapping[str, Any], group: str = "") -> Any:
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            meant = f"did you mean {group}{near[0]}? " if near else ""
            raise SettingsError(f"there is no setting {group}{key}: {meant}The settings are {', '.join(sorted(hints))}")
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise SettingsError(f"{group}{key} holds several settings: write them below it, one a line")
            changes[key] = _applied(getattr(base, key), value, f"{key}.")
        else:
            changes[key] = _fitted(group + key, hints[key], value)
    return replace(base, **changes)


def _fitted(key: str, kind: Any, value: Any) -> Any:
    """`value` as the type of its setting; texts come from the environment, and sizes may be written "8 GiB"."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingsError(f"{key} is {value!r}: choose one of {', '.join(get_args(kind))}")
        return value
    if kind in (str, Path):
        if not isinstance(value, str | int | Path) or isinstance(value, bool):
            raise SettingsError(f"{key} must be a text")
        return kind(str(value))
    if kind is bool:
        if str(value).lower() not in _YES_NO:
            raise SettingsError(f"{key} is {value!r}: give true or false")
        return _YES_NO[str(value).lower()]
    size = re.fullmatch(r"(-?[\d.]+)\s*([KMGT]iB)?", str(value).strip(), re.IGNORECASE)
    try:
        number = float(size[1]) * _UNITS[(size[2] or "").upper()] if size and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or (kind is int and number != int(number)):
        raise SettingsError(f"{key} is {value!r}: give a {'whole ' if kind is int else ''}number")
    return kind(number)


def _plain(settings: Any) -> dict[str, Any]:
    return {
        f.name: _plain(value)
        if is_dataclass(value := getattr(settings, f.name))
        else str(value)
        if isinstance(value, Path)
        else value
        for f in fields(settings)
    }
