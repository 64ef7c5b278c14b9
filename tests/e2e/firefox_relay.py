"""Starts Firefox for Playwright: `python -m tests.e2e.firefox_relay /usr/bin/firefox-esr ARGUMENTS`.

Playwright drives Firefox by WebDriver BiDi and needs one command that Debian's release does not know. It starts this
program instead, which passes all messages on and answers that command itself.
"""

import json
import re
import subprocess
import sys
import threading

from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

_UNKNOWN = "emulation.setMediaFeaturesOverride"
"""What Firefox 153 does not know: light or dark, which no test needs."""
_LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


def main() -> None:
    """Stand between Firefox and Playwright until Firefox ends."""
    firefox = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True)
    assert firefox.stderr
    address = next(f"{found[1]}/session" for line in firefox.stderr if (found := _LISTENING.search(line)))
    with serve(lambda playwright: _pass_on(playwright, address), "127.0.0.1", 0, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ours = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        print("WebDriver BiDi listening on", ours, file=sys.stderr, flush=True)  # Playwright reads this line
        for line in firefox.stderr:
            print(line, end="", file=sys.stderr)
    sys.exit(firefox.wait())


def _pass_on(playwright: ServerConnection, address: str) -> None:
    with connect(address, max_size=None, compression=None) as firefox:

        def answer() -> None:
            for message in firefox:
                playwright.send(message)

        threading.Thread(target=answer, daemon=True).start()
        for message in playwright:
            request = json.loads(message)
            if request["method"] == _UNKNOWN:
                playwright.send(json.dumps({"type": "success", "id": request["id"], "result": {}}))
            else:
                firefox.send(message)


if __name__ == "__main__":
    main()
