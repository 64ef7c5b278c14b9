"""The backend's lines and a person's."""

import pytest

from backend.labelstudio.notes import MARK, person_lines, typed_lines


@pytest.mark.parametrize(
    ("lines", "asks", "theirs"),
    [
        (["red car"], "red car", ["red car"]),
        (["person", "red car"], "red car", ["person", "red car"]),
        (["red car", f"{MARK}2 found"], None, ["red car"]),
        ([f"{MARK}2 found"], None, []),
        ([f"{MARK}2 found", "person"], "person", ["person"]),
        (["person", f"{MARK}2 found", "red car"], "red car", ["person", "red car"]),
        (["the ▶ sign"], "the ▶ sign", ["the ▶ sign"]),
        ("red car", "red car", ["red car"]),
        (f"{MARK}2 found", None, []),
        ([], None, []),
        ([3, None], None, []),
        (["red car", 3], "red car", ["red car"]),
        (None, None, []),
        ({"text": "red car"}, None, []),
    ],
)
def test_the_last_line_asks_unless_it_is_ours_and_all_others_stay(
    lines: object, asks: str | None, theirs: list[str]
) -> None:
    assert typed_lines(lines) == asks
    assert person_lines(lines) == theirs
