"""`sam3-backend serve`: run the ML backend as an HTTP server."""

import argparse
import logging
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

from waitress.server import create_server

from backend import __version__
from backend.commands.arguments import (
    Subparsers,
    add_command,
    add_model_options,
    add_settings_options,
    add_workers_option,
    load_settings,
)
from backend.engines import advise_size
from backend.engines.base import DOWNLOADING_PREFIX, FAILED_PREFIX, watch_status
from backend.errors import BackendError, SettingsError
from backend.http.app import create_app
from backend.http.streams import Streams
from backend.http.waitress_channel import customize_channels
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.client import LabelStudioClient
from backend.logs import set_up_logging
from backend.memory_limit import explain_memory_limit, memory_limit
from backend.service import Service
from backend.settings import Settings

_THREADS = 96
"""A waiting request occupies a thread, and /health must always find a free one."""
_CONNECTIONS = 1000
_OPEN_FILES = 2 * _CONNECTIONS
_ANSWER_SECONDS = 3.0
"""How long requests that wait when the server is told to stop may take to be answered."""
_POLL_SECONDS = 0.5
"""Interval at which the status of a loading model is checked."""
_RETRY_SECONDS = 60.0
"""Interval at which a Label Studio that does not answer is tried again."""

log = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "serve",
        _run,
        summary="run the server for Label Studio",
        description="Run the HTTP server that Label Studio connects to, until Ctrl+C or SIGTERM.",
        examples=(
            "sam3-backend serve --engine opencv",
            "sam3-backend serve --config configs/default.yaml --device cuda:0 --host 0.0.0.0",
        ),
    )
    add_model_options(parser)
    add_workers_option(parser)
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="P", help="port to listen on (default: 9090)")
    add_settings_options(parser, "folder for videos and jobs; only one server may use it at a time")


def _run(options: argparse.Namespace) -> None:
    run(load_settings(options, "engine", "model_path", "device", "workers", "host", "port", "data_dir"))


def run(settings: Settings, pool: WorkerPool | None = None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        pool: runs the jobs; None: workers with the engine and the devices of the settings.

    Raises:
        SettingsError: the engine cannot run on this machine.
    """
    if settings.is_open and not settings.insecure:
        raise SettingsError(
            f"host {settings.host} lets other machines in: set BASIC_AUTH_USER and BASIC_AUTH_PASS, or insecure: true "
            "if everybody who reaches the port may use it"
        )
    os.umask(0o077)  # what is stored is for this user alone
    _allow_open_files()
    set_up_logging(settings.log_level)
    if warning := explain_memory_limit(settings, memory_limit()):
        log.warning("%s", warning)
    if advice := advise_size(settings):
        log.warning("%s", advice)
    service = Service(settings, pool)
    threading.Thread(target=log_status, args=(service,), name="status", daemon=True).start()
    if settings.label_studio_url:
        client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key, settings.use_proxy)
        threading.Thread(target=log_connection, args=(client,), name="connection", daemon=True).start()
    streams, sockets = Streams(), dict[int, Any]()
    server = create_server(
        create_app(service, streams),
        map=sockets,
        host=settings.host,
        port=settings.port,
        threads=_THREADS,
        max_request_body_size=settings.max_body,
        ident=None,
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,
        channel_timeout=30,
    )
    customize_channels(sockets.values())
    closing = _end_on_signals(service, streams, partial(_is_answering, server, sockets))
    # A host name with several addresses has several sockets and no effective port.
    port = getattr(server, "effective_port", settings.port)
    print(f"sam3-backend {__version__}: {service.model_version} on {settings.host}:{port}", flush=True)
    try:
        server.run()
    finally:
        if not closing.ident:
            closing.start()
        closing.join()


def _allow_open_files() -> None:
    """Allow as many open files as connections and videos need, where the system's default is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _is_answering(server: Any, sockets: Mapping[int, Any]) -> bool:
    """Whether a request is being answered, or a response being sent."""
    unsent = any(getattr(channel, "total_outbufs_len", 0) for channel in list(sockets.values()))
    return bool(server.task_dispatcher.active_count or unsent)


def _end_on_signals(service: Service, streams: Streams, is_answering: Callable[[], bool]) -> threading.Thread:
    """On SIGINT or SIGTERM, end the streams, answer who waits, then end the server and the service.

    Returns:
        The thread that closes the service.
    """

    def close() -> None:
        if threading.main_thread().is_alive() and is_signalled.is_set():
            streams.close()  # while the server still writes
            service.answer_waiters()
            until = time.monotonic() + _ANSWER_SECONDS
            while is_answering() and time.monotonic() < until:
                time.sleep(_POLL_SECONDS / 10)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        service.close()  # now, because the server takes some seconds to end waiting requests

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if closing.ident:
            raise KeyboardInterrupt
        is_signalled.set()
        closing.start()

    is_signalled = threading.Event()
    closing = threading.Thread(target=close, name="closing")
    # A process started in the background by a shell ignores SIGINT unless a handler is set.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return closing


def log_status(service: Service, seconds: float = _POLL_SECONDS) -> None:
    """Log every change of the model's status until it is ready or has failed."""
    shown = ""
    for status in watch_status(service, seconds):
        if status.startswith(DOWNLOADING_PREFIX):  # each tenth, not each hundredth
            tenth = re.sub(r"\d %.*", "", status)
            if tenth == shown:
                continue
            shown = tenth
        level = logging.ERROR if status.startswith(FAILED_PREFIX) else logging.INFO
        log.log(level, "%s: %s", service.model_version, status)


def log_connection(client: LabelStudioClient, seconds: float = _RETRY_SECONDS) -> None:
    """Log why Label Studio does not answer or accept the key, each reason once, until it does."""
    logged = ""
    while True:
        try:
            release = client.release()
            client.check_key()
        except BackendError as error:
            if str(error) != logged:
                log.warning("%s; trying again every %.0f s", error, seconds)
                logged = str(error)
            time.sleep(seconds)
        else:
            log.info("Label Studio %s answers and accepts the key", release)
            return
