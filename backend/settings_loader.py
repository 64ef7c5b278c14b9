"""Reads settings. A command-line option beats the environment, which beats the YAML file, which beats the default."""

import difflib
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import certifi
import yaml

from backend.errors import SettingsError
from backend.settings import SECRETS, Settings

PREFIX = "SAM3_BACKEND_"
ALIASES = {
    # Names of Label Studio's own backends, which the others override.
    "LABEL_STUDIO_HOST": "label_studio_url",
    "LABEL_STUDIO_ACCESS_TOKEN": "label_studio_api_key",
} | {
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
"""Environment variables that users of Label Studio backends expect, and the settings that they set."""

_MENU = "belongs to X-AnyLabeling's menu: leave it out; model_path names the model"
_REFUSED = {
    "auto_clear_cache_label_and_gid": "belongs to X-AnyLabeling's client: leave it out",
    "batch_processing_mode": "belongs to X-AnyLabeling's client: leave it out; every task is a video here",
    "concurrency": "is X-AnyLabeling's: leave it out; limits.queue says how many tracks may wait",
    "display_name": _MENU,
    "enabled_models": _MENU,
    "epsilon_factor": "smooths X-AnyLabeling's polygons, and tracks here are boxes: leave it out",
    "logging": "is X-AnyLabeling's group: write log_level instead",
    "model_id": _MENU,
    "name": _MENU,
    "params": "is X-AnyLabeling's group: write its settings at the top level instead",
    "performance": "is X-AnyLabeling's: leave it out; limits bound what a request may use",
    "provider": _MENU,
    "security": "is X-AnyLabeling's group: write basic_auth_user and basic_auth_pass instead",
    "server": "is X-AnyLabeling's group: write host and port at the top level instead",
    "type": "is X-AnyLabeling's: leave it out; engine: sam3 has the same meaning",
    "widgets": "belongs to X-AnyLabeling's client: leave it out; the label config says what Label Studio shows",
}
"""X-AnyLabeling's keys that have no meaning here, and what to write instead."""
_RENAMED = {
    "answer_within": "response_timeout",
    "limits.stall": "limits.worker_timeout",
    "limits.days": "limits.retention_days",
}
"""Former names of settings, and their new names."""
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def read_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        config: a YAML file; None: no file.
        flags: values of command-line options by key; None: the option was not given.

    Raises:
        SettingsError: a key is unknown, a value is invalid, or a file cannot be read.
    """
    sources = [_file(config), _environment(), {key: value for key, value in (flags or {}).items() if value is not None}]
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _merged(merged, _translated(source))
    loaded: Settings = _applied(Settings(), merged)
    if loaded.ca_bundle:
        _trust(Path(loaded.ca_bundle).expanduser(), loaded.data_dir.expanduser())
    return loaded


def program_environment(without: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment for another program, but for variables whose names begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


def worker_environment() -> dict[str, str]:
    """The environment without the secrets that a process which decodes videos has no use for."""
    hidden = hidden_variables()
    return {name: value for name, value in os.environ.items() if name not in hidden}


def hidden_variables() -> set[str]:
    """The variables of the environment that hold secrets."""
    hidden = {name.upper() for name in SECRETS} | {f"{PREFIX}{name.upper()}" for name in SECRETS}
    return {name for name in os.environ if name.upper() in hidden}


def _trust(bundle: Path, data_dir: Path) -> None:
    """Make all libraries of this process, and its worker, trust these certificates beside the public ones.

    Raises:
        SettingsError: the file has no certificates in PEM format.
    """
    try:
        ssl.create_default_context(cafile=str(bundle))
        own = bundle.read_text(encoding="ascii")
        data_dir.mkdir(parents=True, exist_ok=True)
        combined = data_dir / "ca-bundle.pem"
        combined.write_text(f"{Path(certifi.where()).read_text(encoding='utf-8')}\n{own}", encoding="utf-8")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"ca_bundle cannot be used ({type(error).__name__}): give a PEM file with your authority's certificate"
        ) from error
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # requests; httpx, which loads weights
        os.environ[name] = str(combined)


def _file(config: Path | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the config file {config.name} cannot be read as YAML: {type(error).__name__}") from error
    if not isinstance(values or {}, Mapping):
        raise SettingsError(f"the config file {config.name} must consist of key: value lines")
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
    """Rename the keys of X-AnyLabeling's SAM3 config to ours.

    Raises:
        SettingsError: a key has no meaning here, or is given under both names.
    """
    ours: dict[str, Any] = {}
    for key, value in values.items():
        if key in _REFUSED:
            raise SettingsError(f"{key} {_REFUSED[key]}")
        name, value = _ours(key, value)
        if name != key and name in values:
            raise SettingsError(f"{key} and {name} are the same setting: give only {name}")
        if name:
            ours[name] = value
    return ours


def _ours(key: str, value: Any) -> tuple[str, Any]:
    """A setting's name and value here; no name if it needs no setting."""
    if key == "conf_threshold":
        return "score_threshold", value
    if key == "devices":
        numbers = [number.strip() for number in str(value).strip("[] ").split(",")]
        if not all(number.isdecimal() for number in numbers):
            raise SettingsError(f"devices is {value!r}: give numbers of GPUs, such as [0, 1], or set device")
        return "device", ",".join(f"cuda:{number}" for number in numbers)
    if key == "device" and isinstance(value, list):
        return key, ",".join(map(str, value))
    if key == "show_boxes":
        if not _fitted(key, bool, value):
            raise SettingsError("show_boxes cannot be switched off: tracks are boxes; set show_masks: true for masks")
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
                raise SettingsError(f"{group}{key} is a group of settings: write them below it, one on each line")
            changes[key] = _applied(getattr(base, key), value, f"{key}.")
        else:
            changes[key] = _fitted(group + key, hints[key], value)
    return replace(base, **changes)


def _fitted(key: str, kind: Any, value: Any) -> Any:
    """Convert a value to its setting's type; those of the environment are text, and sizes may be written as "8 GiB"."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingsError(f"{key} is {value!r}: choose one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is Union:  # a number or one word
        number, words = get_args(kind)
        return value if value in get_args(words) else _fitted(key, number, value)
    if get_origin(kind) is tuple:
        entries = value.split(",") if isinstance(value, str) else value
        if not isinstance(entries, list | tuple) or any(not isinstance(entry, str) for entry in entries):
            raise SettingsError(f"{key} must be a list of texts: write [one, two]")
        return tuple(text for entry in entries if (text := entry.strip()))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{key} must be a group of lines, each with a key: value")
        return dict(value)
    if kind in (str, Path):
        if not isinstance(value, str | int | Path) or isinstance(value, bool):
            raise SettingsError(f"{key} must be text")
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
