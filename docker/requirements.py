"""What the package depends on, a line each, out of pyproject.toml: `python requirements.py pyproject.toml sam3`."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
wanted = [*project["dependencies"], *(one for extra in sys.argv[2:] for one in project["optional-dependencies"][extra])]
print("\n".join(wanted))
