"""Writes the sample clip and its label config into a folder: `python -m backend.demo.sample FOLDER`."""

import sys
from pathlib import Path

from backend.demo import clip

LABEL_CONFIG = Path(__file__).with_name("label_config.xml")
"""The one that is shipped; in a checkout a link to the file at its top."""


def main(folder: Path) -> None:
    """Write `clip.mp4` and `label_config.xml`."""
    clip.make(folder / "clip.mp4")
    config = clip.label_config(LABEL_CONFIG.read_text(encoding="utf-8"))
    (folder / "label_config.xml").write_text(config, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
