"""Whether the backend of this container answers; 401 counts, since a password may be needed."""

import sys
from urllib.error import HTTPError
from urllib.request import urlopen

try:
    urlopen(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9090/health", timeout=4)  # noqa: S310
except HTTPError as error:
    sys.exit(error.code != 401)
except OSError:
    sys.exit(1)
