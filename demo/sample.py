"""Writes the sample clip and its label config into a folder: `python -m demo.sample FOLDER`."""

import sys
from pathlib import Path

from demo import clip

SHIPPED = Path(__file__).resolve().parent.parent / "label_config.xml"


def main(folder: Path) -> None:
    """Write `clip.mp4` and `label_config.xml`."""
    clip.make(folder / "clip.mp4")
    (folder / "label_config.xml").write_text(clip.label_config(SHIPPED.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
