"""All settings, with their meanings and defaults."""

import math
import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from backend.errors import SettingsError
from backend.tracks.prompts import Direction
from backend.worker_settings import RaySettings, parse_devices

SECRETS = frozenset({"label_studio_api_key", "basic_auth_pass"})
HIDDEN = SECRETS | {"runtime_env"}
"""Settings whose values are never shown; what Ray prepares on nodes may hold tokens."""
PLACES = frozenset({"data_dir", "model_dir", "bpe_path", "ca_bundle"})
"""Settings with paths of this machine: they are never shown."""


X_ANYLABELING = "x-anylabeling"
_HOST = r"[\w.-]+"


@dataclass(frozen=True, slots=True)
class KeyframeSettings:
    """How keyframes are chosen from a track."""

    mode: Annotated[
        Literal["exact", "iou", "budget"],
        "`iou`: as few keyframes as `keyframes.iou` and `keyframes.px` allow; `budget`: the closest fit with at most "
        "`keyframes.budget`; `exact`: one on every frame",
    ] = "iou"
    iou: Annotated[float, "lowest IoU of the interpolated box with the tracked box, on every frame"] = 0.95
    px: Annotated[float, "a box whose four edges are all this close, in pixels, is accepted, too"] = 1.0
    budget: Annotated[int, "with `keyframes.mode: budget`: most keyframes of a track, a person's included"] = 0
    smooth: Annotated[
        int,
        "frames on either side over which boxes are averaged first, as far as `keyframes.iou` allows; 0: none",
    ] = 0

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise SettingsError(f"keyframes.iou is {self.iou:g}: give a number above 0, at most 1")
        for name in ("px", "budget", "smooth"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"keyframes.{name} is {getattr(self, name):g}: give 0 or more")
        if (self.mode == "budget") != (self.budget > 0):
            raise SettingsError("keyframes.budget and keyframes.mode: budget go together: set both or neither")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what a request may use, and of what is stored."""

    bytes: Annotated[int, "largest video to download, in bytes"] = 8 * 2**30
    seconds: Annotated[float, "longest download, in seconds"] = 600.0
    media: Annotated[int, "most bytes of downloaded videos; those unused for longest are deleted first"] = 64 * 2**30
    reserve: Annotated[int, "bytes of the disk that downloads leave free"] = 2**30
    pixels: Annotated[int, "most pixels of a frame: 8192 x 8192"] = 8192**2
    frames: Annotated[int, "most frames of a video"] = 1_000_000
    queue: Annotated[int, "most tracks that wait for the device; further requests are told to try again later"] = 64
    body: Annotated[int, "largest request, in bytes"] = 64 * 2**20
    upload: Annotated[int, "with `doors: [x-anylabeling]`: most bytes of a folder of pictures that is sent"] = 2 * 2**30
    worker_timeout: Annotated[
        float,
        "seconds without a new frame after which the engine's process is restarted",
    ] = 600.0
    loading_timeout: Annotated[
        float, "seconds until a model must be ready, besides its download; then its process is restarted"
    ] = 3600.0
    store: Annotated[
        int, "most bytes of stored jobs and tracks; the oldest that somebody has got are deleted first"
    ] = 4 * 2**30
    retention_days: Annotated[float, "days after which stored jobs and tracks are deleted"] = 30.0


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How much memory keeps what the model made of frames: those that are kept cost later tracks no vision pass."""

    device: Annotated[
        int | Literal["auto"],
        "most bytes on the device for what the vision model made of frames, so that a second object, a correction and "
        "the way back need not run it again; `auto`: half of what a GPU has free once the model is loaded, a quarter "
        "of what a CPU has",
    ] = "auto"
    host: Annotated[
        int | Literal["auto"],
        "with a GPU: most bytes of the machine's memory to which those frames move before they are dropped; `auto`: a "
        "quarter of what is free",
    ] = "auto"

    def __post_init__(self) -> None:
        for name in ("device", "host"):
            size = getattr(self, name)
            if size != "auto" and size < 0:
                raise SettingsError(f"cache.{name} is negative: give auto, 0 or more bytes, such as 8 GiB")


SAM3_HUB_ID = "facebook/sam3"
SHAPES_MODEL = "shapes"
"""The `model_path` of a tiny SAM3 in the package, which knows only coloured shapes."""
OPEN_HUB_IDS = {"sam2": "facebook/sam2.1-hiera-tiny", "edgetam": "yonigozlan/EdgeTAM-hf"}
"""Weights of the engines unless `model_path` names others."""
SIZE_STEPS = {"sam2": 32, "edgetam": 256}
"""What `image_size` is a multiple of; with other engines of 14."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its meaning and default; `make docs` writes the table of docs/settings.md."""

    engine: Annotated[
        Literal["auto", "sam3", "sam2", "edgetam", "opencv"],
        "`sam3`, `sam2`, `edgetam` or `opencv`; `auto`: SAM3, or an error that names the choices if it cannot be "
        "loaded",
    ] = "auto"
    model_path: Annotated[
        str,
        "weights: a hub id, a folder in the hub's layout, `sam3.pt`, or `shapes`, the included demo model; with "
        "`engine: sam2` those of SAM 2, by default `facebook/sam2.1-hiera-tiny`; with `engine: edgetam` EdgeTAM's, by "
        "default `yonigozlan/EdgeTAM-hf`",
    ] = SAM3_HUB_ID
    revision: Annotated[
        str, "with a hub id: the branch, tag or commit of its repository to use; empty: its newest files"
    ] = ""
    bpe_path: Annotated[str, "with `sam3.pt`: its `bpe_simple_vocab_16e6.txt.gz`"] = ""
    model_dir: Annotated[str, "folder of downloaded weights; empty: the hub's own cache; also as `MODEL_DIR`"] = ""
    device: Annotated[
        str,
        "`cpu`, `mps`, `cuda`, `cuda:N`, or several, such as `[cuda:0, cuda:1]`, with a worker for each; `cpu:2`: two "
        "workers on the CPU; `auto`: every CUDA device that is there; also as `DEVICE`",
    ] = "auto"
    workers: Annotated[
        Literal["local", "ray"],
        "`local`: processes of this machine, one for each device; `ray`: actors of a Ray cluster, see `ray.address`",
    ] = "local"
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], "`float32`, `bfloat16`"] = "auto"
    attention: Annotated[
        Literal["auto", "cudnn", "flash", "flash3", "efficient"],
        "on a GPU, the implementation of attention to prefer: `cudnn`, `efficient`, `flash`, or `flash3`, which needs "
        "its package; with the last two, objects that were prompted on different frames share one call; `auto`: "
        "PyTorch's choice; `sam3-backend selftest` compares them",
    ] = "auto"
    compile: Annotated[
        bool,
        "true: compile the model with `torch.compile`, which takes minutes when it is loaded; "
        "`sam3-backend selftest` says whether it pays",
    ] = False
    image_size: Annotated[
        int,
        "width and height of the model's input in pixels, a multiple of 14 (SAM 2: of 32, EdgeTAM: "
        "of 256); 0: the model's own",
    ] = 0
    reference: Annotated[
        Literal["published", "transformers"],
        "with `engine: sam3`, what to follow where the two differ in resizing pictures and in corrections: "
        "`published`, the authors' code, or `transformers`",
    ] = "published"
    score_threshold: Annotated[float, "lowest score of an object found by words"] = 0.5
    new_object_threshold: Annotated[
        float,
        "lowest score at which words start a new track beside others; at least `score_threshold`, which counts while "
        "nothing is tracked",
    ] = 0.7
    max_objects: Annotated[
        int,
        "most tracks at a time; a track found by words ends after 300 frames without its object",
    ] = 64
    hotstart_frames: Annotated[int, "frames for which a new track found by words is held back, to drop false ones"] = 15
    show_masks: Annotated[
        bool,
        "store masks, draw them on the status page and with the command line's `--overlay`, and export them",
    ] = False
    direction: Annotated[Direction, "where to track from prompted frames: `forward`, `backward`, `both`"] = "forward"
    max_frames: Annotated[int, "most frames to track beyond the last prompted one; 0: to the end"] = 0
    response_timeout: Annotated[float, "seconds after which Label Studio gets the frames that are ready"] = 10.0
    preserve: Annotated[
        bool,
        "false: the same words again may replace finished tracks that nobody has edited",
    ] = True
    pre_annotate: Annotated[
        str,
        "`labels`: find all of a project's labels before a task is opened; or the task's field with words such as "
        "`car, dog`",
    ] = "off"
    frames_per_strip: Annotated[int, "most pictures of a video to click on; up to 1,000"] = 200
    public_url: Annotated[
        str,
        "this server's address for browsers: it then serves those pictures and the live panel; if empty, the pictures "
        "are stored in Label Studio, and the panel is shown only if the server listens on this machine alone",
    ] = ""
    panel_frame: Annotated[
        Literal["closed", "open", "off"],
        "the newest frame with its boxes (and masks, with `show_masks`), below the live panel: `closed` until somebody "
        "opens it, `open`, or `off`; `project prepare` writes it into tasks",
    ] = "closed"
    keyframes: KeyframeSettings = field(default_factory=KeyframeSettings)
    bridge_frames: Annotated[
        int,
        "an object that is not seen for at most so many frames keeps its box, except next to a person's keyframe or "
        "click",
    ] = 2
    min_track_frames: Annotated[
        int,
        "fewest frames of a track found by words; above 1, a single box between empty frames is left out of any track, "
        "unless a person has drawn it",
    ] = 3
    limits: Limits = field(default_factory=Limits)
    ray: RaySettings = field(default_factory=RaySettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    data_dir: Annotated[
        Path,
        "folder of downloaded videos and jobs (`jobs.sqlite3`); used by one server at a time",
    ] = Path("~/.local/share/sam3-backend")
    host: Annotated[str, "address to listen on; `0.0.0.0`: also for other machines"] = "127.0.0.1"
    insecure: Annotated[
        bool, "true: also listen for other machines without a password, which lets everybody who reaches the port in"
    ] = False
    allowed_hosts: Annotated[
        tuple[str, ...],
        "names in addresses that the server answers to without a password, beside localhost, `host` and that of "
        "`public_url`",
    ] = ()
    port: Annotated[int, "port to listen on; also as `PORT`"] = 9090
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        "`debug`, `info`, `warning`, `error`; also as `LOG_LEVEL`",
    ] = "info"
    doors: Annotated[
        tuple[str, ...],
        "clients that are answered beside Label Studio: `[x-anylabeling]`; masks are then kept as with `show_masks`",
    ] = ()
    label_studio_url: Annotated[
        str,
        "Label Studio's address, such as `http://localhost:8080`; also as `LABEL_STUDIO_URL`, also as "
        "`LABEL_STUDIO_HOST`",
    ] = ""
    label_studio_api_key: Annotated[
        str,
        "a personal or legacy token, sent to that address only; also as `LABEL_STUDIO_API_KEY`, also as "
        "`LABEL_STUDIO_ACCESS_TOKEN`",
    ] = ""
    ca_bundle: Annotated[
        str,
        "PEM file with certificates of your own authority, trusted beside the public ones for every https address",
    ] = ""
    media_allow: Annotated[
        tuple[str, ...],
        "hosts and networks on private addresses that videos may come from, beside Label Studio: `[nas, 10.1.0.0/16]`",
    ] = ()
    use_proxy: Annotated[
        bool, "fetch through the proxy that the environment names; the proxy then decides what can be reached"
    ] = False
    basic_auth_user: Annotated[str, "user name that clients must send; also as `BASIC_AUTH_USER`"] = ""
    basic_auth_pass: Annotated[str, "password of that user; also as `BASIC_AUTH_PASS`"] = ""

    def __post_init__(self) -> None:
        if self.model_path in (SAM3_HUB_ID, SHAPES_MODEL):
            # The defaults, here and of docker-compose.yml, are SAM3's: with `engine: sam2` alone they mean its own.
            object.__setattr__(self, "model_path", OPEN_HUB_IDS.get(self.engine, self.model_path))
        self._check_model()
        for entry in self.media_allow:
            if not re.fullmatch(rf"{_HOST}|[0-9a-fA-F.:]+(/\d{{1,3}})?", entry):
                raise SettingsError(f"media_allow has {entry!r}: give a host name or network, without scheme and port")
        for entry in self.allowed_hosts:
            if not re.fullmatch(rf"{_HOST}|[0-9a-fA-F:]+|\*", entry):
                raise SettingsError(f"allowed_hosts has {entry!r}: give a host name, without scheme and port")
        for entry in self.doors:
            if entry != X_ANYLABELING:
                raise SettingsError(f"doors has {entry!r}: the only one is {X_ANYLABELING}")
        for name in ("response_timeout", "max_frames", "hotstart_frames", "bridge_frames", "min_track_frames"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is negative: give 0 or more")
        if not 2 <= self.frames_per_strip <= 1000:
            raise SettingsError(f"frames_per_strip is {self.frames_per_strip}: give 2 to 1000; more make the page slow")
        if self.public_url and not re.fullmatch(r"https?://[^\s/]+.*", self.public_url):
            raise SettingsError(
                "public_url must begin with http:// or https://: it is this server's address for browsers"
            )
        if not 0 <= self.port < 65536:
            raise SettingsError(f"port is {self.port}: give 0 to 65535")
        for limit in fields(self.limits):
            if getattr(self.limits, limit.name) <= 0 and limit.name != "reserve":
                raise SettingsError(f"limits.{limit.name} must be above 0")
        for name in ("label_studio_url", "public_url"):
            if "@" in getattr(self, name).partition("://")[2].partition("/")[0]:
                raise SettingsError(f"{name} contains a user or a password: remove them, they would be shown to others")
        if self.label_studio_api_key and not self.label_studio_url:
            raise SettingsError(
                "label_studio_api_key is set without label_studio_url: set both; the key goes only there"
            )
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass):
            raise SettingsError("basic_auth_user and basic_auth_pass go together: set both or neither")

    @property
    def keeps_masks(self) -> bool:
        """Whether tracks are kept with their masks."""
        return self.show_masks or X_ANYLABELING in self.doors

    @property
    def max_body(self) -> int:
        """Bytes of the largest request of all."""
        return max(self.limits.body, self.limits.upload) if X_ANYLABELING in self.doors else self.limits.body

    @property
    def browser_url(self) -> str:
        """The server's address for browsers on this machine or elsewhere; empty if it is not known."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return f"http://{self.host}:{self.port}" if self.host in ("127.0.0.1", "localhost") else ""

    @property
    def is_open(self) -> bool:
        """Whether other machines reach the server without a password."""
        is_local = self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")
        return not is_local and not self.basic_auth_user

    def _check_model(self) -> None:
        if not self.model_path:
            raise SettingsError("model_path is empty: give facebook/sam3, or the folder or file of its weights")
        if len(self.devices) > 1 and self.workers == "ray":
            raise SettingsError("device names several, but with workers: ray each worker has its own: set ray.max")
        step = SIZE_STEPS.get(self.engine, 14)
        if self.image_size < 0 or self.image_size % step:
            raise SettingsError(f"image_size is {self.image_size}: give a multiple of {step}, or 0 for the model's own")
        for name in ("score_threshold", "new_object_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name):g}: give a number above 0, at most 1")
        if self.new_object_threshold < self.score_threshold:
            raise SettingsError(
                f"new_object_threshold is {self.new_object_threshold:g}, below score_threshold, which is "
                f"{self.score_threshold:g}: raise it to at least that"
            )
        if self.max_objects < 1:
            raise SettingsError(f"max_objects is {self.max_objects}: give 1 or more")

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that `device` names, one for each worker; "auto" stays so."""
        return parse_devices(self.device)

    def shown(self) -> dict[str, Any]:
        """The settings as JSON to show, without secrets and paths."""
        values = {key: value for key, value in _plain(self).items() if key not in PLACES}
        is_short = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", self.model_path)  # like a hub id
        return values | {"model_path": self.model_path if is_short else Path(self.model_path).name}


def _plain(settings: Any) -> dict[str, Any]:
    return {
        f.name: "***"
        if f.name in HIDDEN and getattr(settings, f.name)
        else _plain(value)
        if is_dataclass(value := getattr(settings, f.name))
        else str(value)
        if isinstance(value, Path)
        else value
        for f in fields(settings)
    }
