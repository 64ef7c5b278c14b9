"""All settings, one frozen dataclass: flag > environment > YAML > default. The only reader of the environment."""

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml

from backend.errors import SettingsError
from backend.tracks.prompts import Direction

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
    "concurrency": "is X-AnyLabeling's: leave it out, limits.queue says how many tracks may wait",
    "display_name": _MENU,
    "enabled_models": _MENU,
    "epsilon_factor": "smooths X-AnyLabeling's polygons, and tracks here are boxes: leave it out",
    "logging": "is X-AnyLabeling's group: write log_level instead",
    "model_id": _MENU,
    "name": _MENU,
    "params": "is X-AnyLabeling's group: write the settings below it without it, at the start of the line",
    "performance": "is X-AnyLabeling's: leave it out, limits say what a request may cost",
    "provider": _MENU,
    "security": "is X-AnyLabeling's group: write basic_auth_user and basic_auth_pass instead",
    "server": "is X-AnyLabeling's group: write host and port without it, at the start of the line",
    "type": "is X-AnyLabeling's: leave it out, engine: sam3 is what it means",
    "widgets": "belongs to X-AnyLabeling's client: leave it out, the label config says what Label Studio shows",
}
"""X-AnyLabeling's keys that mean nothing here, and what to do about each."""
_RENAMED = {
    "answer_within": "response_timeout",
    "limits.stall": "limits.worker_timeout",
    "limits.days": "limits.retention_days",
}
"""Former names of settings, and what they are called now."""
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class KeyframeSettings:
    """How a track becomes keyframes."""

    mode: Annotated[
        Literal["exact", "iou", "budget"],
        "`iou`: the fewest that keep the next two; `budget`: the best bound with so many; `exact`: one on every frame",
    ] = "iou"
    iou: Annotated[float, "the least IoU of an interpolated box with the tracked one, on every frame"] = 0.95
    px: Annotated[float, "pixels; a box whose four edges are all within passes, too"] = 1.0
    budget: Annotated[int, "with `keyframes.mode: budget`: how many a track may have, a person's included"] = 0
    smooth: Annotated[
        int,
        "frames to either side over which jitter is averaged first, as far as `keyframes.iou` allows; 0: not at all",
    ] = 0

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise SettingsError(f"keyframes.iou is {self.iou:g}: give a number above 0, at most 1")
        for name in ("px", "budget", "smooth"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"keyframes.{name} is {getattr(self, name):g}: give 0 or more")
        if (self.mode == "budget") != (self.budget > 0):
            raise SettingsError("keyframes.budget goes with keyframes.mode: budget: set both or none")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost, and what is kept of it."""

    bytes: Annotated[int, "bytes of a downloaded video"] = 8 * 2**30
    seconds: Annotated[float, "seconds for its download"] = 600.0
    pixels: Annotated[int, "of a frame: 8192 x 8192"] = 8192**2
    frames: Annotated[int, "of a video"] = 1_000_000
    queue: Annotated[int, "tracks that wait for the device; beyond that Label Studio is told to ask again"] = 64
    body: Annotated[int, "bytes of a request"] = 64 * 2**20
    worker_timeout: Annotated[
        float,
        "seconds without a frame after which the engine's process counts as hung, and is started again",
    ] = 600.0
    store: Annotated[int, "bytes of jobs and what came of them; beyond that the oldest go"] = 4 * 2**30
    retention_days: Annotated[float, "for which they are kept"] = 30.0


SAM3_HUB_ID, SAM2_HUB_ID = "facebook/sam3", "facebook/sam2.1-hiera-tiny"
"""The weights of the engines unless `model_path` names others."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, what it means and its default; `make readme` writes README.md's table."""

    engine: Annotated[
        Literal["auto", "sam3", "sam2", "opencv"],
        "`sam3`, `sam2` or `opencv`; `auto`: SAM3, or an error that names the choices where it cannot be loaded",
    ] = "auto"
    model_path: Annotated[
        str,
        "SAM3's weights: a hub id, a folder in the hub's layout, `sam3.pt`, or `shapes`, the toy that comes along; "
        "with `engine: sam2` the same of SAM 2, `facebook/sam2.1-hiera-tiny` unless set",
    ] = SAM3_HUB_ID
    bpe_path: Annotated[str, "with `sam3.pt`: its `bpe_simple_vocab_16e6.txt.gz`"] = ""
    model_dir: Annotated[str, "where downloaded weights are kept; empty: the hub's own cache; also as `MODEL_DIR`"] = ""
    device: Annotated[str, "`cpu`, `mps`, `cuda`, `cuda:N`; also as `DEVICE`"] = "auto"
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], "`float32`, `bfloat16`"] = "auto"
    image_size: Annotated[
        int, "pixels along a side of what the model sees, a multiple of 14 (SAM 2: of 32); 0: the model's own"
    ] = 0
    score_threshold: Annotated[float, "what words find counts from this score on"] = 0.5
    new_object_threshold: Annotated[
        float,
        "what words find beside other tracks becomes one from this score on; not below the one above, which does "
        "while nothing is tracked",
    ] = 0.7
    max_objects: Annotated[
        int,
        "tracks at a time; of those that words found, one ends when it has not been seen for 300 frames",
    ] = 64
    hotstart_frames: Annotated[int, "how long new tracks of words are held back to drop false ones"] = 15
    show_masks: Annotated[
        bool,
        "masks are kept, drawn on the status page and by the command line's `--overlay`, and exported",
    ] = False
    direction: Annotated[Direction, "beyond the last prompted frame: `forward`, `backward`, `both`"] = "forward"
    max_frames: Annotated[int, "how many frames to go beyond the last prompted one; 0: to the end"] = 0
    response_timeout: Annotated[float, "seconds until Label Studio is answered with what is there"] = 10.0
    preserve: Annotated[
        bool,
        "false: asking again by words may also replace finished tracks of ours that nobody touched",
    ] = True
    pre_annotate: Annotated[
        str,
        "`labels`: find all of a project's labels ahead; or the task's field that holds words: `car, dog`",
    ] = "off"
    frames_per_strip: Annotated[int, "pictures of a video to click on, at most; up to 1,000"] = 200
    public_url: Annotated[
        str,
        "how browsers reach this server: it then serves those pictures itself, and the live panel; if empty, Label "
        "Studio keeps them, and the panel is shown if the server listens on this machine alone",
    ] = ""
    keyframes: KeyframeSettings = field(default_factory=KeyframeSettings)
    bridge_frames: Annotated[
        int,
        "where an object is not seen for so few frames its box stays, but not beside a keyframe or a click of a "
        "person's",
    ] = 2
    min_track_frames: Annotated[
        int,
        "what words find counts from so many frames on; above 1, a box that stands alone between empty frames is left "
        "out of any track, unless a person has set it",
    ] = 3
    limits: Limits = field(default_factory=Limits)
    data_dir: Annotated[
        Path,
        "downloaded videos, and jobs (`jobs.sqlite3`); one server at a time",
    ] = Path("~/.local/share/sam3-backend")
    host: Annotated[str, "where it listens; `0.0.0.0`: for other machines, too"] = "127.0.0.1"
    port: Annotated[int, "and on which port; also as `PORT`"] = 9090
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        "`debug`, `info`, `warning`, `error`; also as `LOG_LEVEL`",
    ] = "info"
    label_studio_url: Annotated[
        str,
        "where videos come from, as `http://localhost:8080`; also as `LABEL_STUDIO_URL`",
    ] = ""
    label_studio_api_key: Annotated[
        str,
        "a token of either kind, sent to that address alone; also as `LABEL_STUDIO_API_KEY`",
    ] = ""
    basic_auth_user: Annotated[str, "what Label Studio has to send; also as `BASIC_AUTH_USER`"] = ""
    basic_auth_pass: Annotated[str, "its password; also as `BASIC_AUTH_PASS`"] = ""

    def __post_init__(self) -> None:
        if self.engine == "sam2" and self.model_path == SAM3_HUB_ID:
            # The default is SAM3's; a config that names it can be used with `--engine sam2` too.
            object.__setattr__(self, "model_path", SAM2_HUB_ID)
        self._check_model()
        for name in ("response_timeout", "max_frames", "hotstart_frames", "bridge_frames", "min_track_frames"):
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

    @property
    def browser_url(self) -> str:
        """The server's address for browsers on this machine or elsewhere; empty if it is not known."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return f"http://{self.host}:{self.port}" if self.host in ("127.0.0.1", "localhost") else ""

    def _check_model(self) -> None:
        if not self.model_path:
            raise SettingsError("model_path is empty: give facebook/sam3, or the folder or file of its weights")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise SettingsError(f"device is {self.device!r}: choose one of auto, cpu, mps, cuda, cuda:N")
        step = 32 if self.engine == "sam2" else 14
        if self.image_size < 0 or self.image_size % step:
            raise SettingsError(f"image_size is {self.image_size}: give a multiple of {step}, or 0 for the model's own")
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
        is_short = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", self.model_path)  # as a hub's id is
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
        if new_name := _RENAMED.get(group + key):
            variable = PREFIX + new_name.replace(".", "_").upper()
            raise SettingsError(f"{group}{key} is now called {new_name} ({variable} in the environment): rename it")
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
