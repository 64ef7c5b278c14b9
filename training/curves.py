"""Plots the stages' logs."""

import json
from collections.abc import Sequence
from pathlib import Path

HIDDEN = {"step", "minutes", "norm"}


def draw(folder: Path, names: Sequence[str]) -> None:
    """Plot each metric of each stage over its steps into curves.png: losses on the left, shares on the right."""
    from matplotlib import pyplot  # half a second, which only the end of a training needs

    pyplot.switch_backend("Agg")
    figure, rows = pyplot.subplots(len(names), 2, figsize=(14, 4 * len(names)), squeeze=False)
    for name, (left, right) in zip(names, rows, strict=True):
        log = folder / f"{name}.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        for key in sorted({key for line in lines for key in line} - HIDDEN):
            steps, values = zip(*((line["step"], line[key]) for line in lines if key in line), strict=True)
            is_share = max(values) <= 1 and values[-1] > values[0]
            (right if is_share else left).plot(steps, values, label=key, linewidth=1)
        for axes, title in ((left, f"{name}: losses"), (right, f"{name}: shares correct")):
            axes.set_title(title)
            axes.set_xlabel("steps")
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(fontsize=7)
        if left.lines:
            left.set_yscale("log")
    figure.tight_layout()
    figure.savefig(folder / "curves.png", dpi=80)
    pyplot.close(figure)
