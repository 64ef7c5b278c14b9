"""Debian's Firefox for the browser tests; Playwright's own build of it cannot be had everywhere."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser

from tests.e2e.browser import start_playwright
from tests.needs import missing, need

FIREFOX = Path("/usr/bin/firefox-esr")


@contextmanager
def firefox() -> Iterator[Browser]:
    """Debian's Firefox; the test is skipped without it, or without the package that `firefox_relay` needs."""
    missing(FIREFOX, "Firefox (apt-get install firefox-esr)")
    need(find_spec("websockets") is not None, "websockets (make test THOROUGH=1 brings it)")
    with TemporaryDirectory() as folder:
        program = Path(folder) / "firefox"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.e2e.firefox_relay {FIREFOX} "$@"\n')
        program.chmod(0o700)
        browser = start_playwright().firefox.launch(executable_path=str(program), channel="moz-firefox")
        yield browser
        browser.close()
