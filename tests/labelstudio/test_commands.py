"""The two lines that an annotator types."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.labelstudio.commands import (
    COMMANDS,
    TRACK,
    Command,
    TextQuery,
    parse_command,
    parse_text_query,
)
from backend.tracks.frame_range import ALL_FRAMES, LAST_FRAME, FrameRange

FRAMES = st.integers(1, LAST_FRAME)
OURS = "at from to redo back both stop frames frame , 0 7 ٣ ² ſtop bac\u212a 100000000000000000"
PIECES = st.sampled_from(OURS.split())
LINES = st.text() | st.lists(PIECES | st.text(max_size=3)).map(" ".join)
"""Anything, and what comes close to a line that means something."""


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("red car", TextQuery(("red car",))),
        ("  red \t car ", TextQuery(("red car",))),
        ("red car, person", TextQuery(("red car", "person"))),
        ("person,car ,person", TextQuery(("person", "car"))),
        ("all", TextQuery(("all",))),
        ("red car at 120", TextQuery(("red car",), at=120)),
        ("red car, person AT 120", TextQuery(("red car", "person"), at=120)),
        ("person from 1 to 300", TextQuery(("person",), within=FrameRange(1, 300))),
        ("person From 7 To 7", TextQuery(("person",), within=FrameRange(7, 7))),
        ("person redo", TextQuery(("person",), redo=True)),
        ("person at 5 redo", TextQuery(("person",), at=5, redo=True)),
        ("person, car from 5 to 9 Redo", TextQuery(("person", "car"), within=FrameRange(5, 9), redo=True)),
        # words of ours that stand where they mean nothing are the annotator's
        ("man at the wheel", TextQuery(("man at the wheel",))),
        ("man at wheel 5", TextQuery(("man at wheel 5",))),
        ("bus from 5", TextQuery(("bus from 5",))),
        ("bus from 5 to town", TextQuery(("bus from 5 to town",))),
        ("bus to 5", TextQuery(("bus to 5",))),
        ("redo me", TextQuery(("redo me",))),
        ("cat 22", TextQuery(("cat 22",))),
        ("hat 22", TextQuery(("hat 22",))),
        ("Größe at 3", TextQuery(("Größe",), at=3)),
    ],
)
def test_a_line_of_words_says_what_to_find_and_where(line: str, meant: TextQuery) -> None:
    assert parse_text_query(line) == meant


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "a phrase is empty: write what to find, as in: red car, person"),
        (" \n", "a phrase is empty"),
        (",", "a phrase is empty"),
        ("car,", "a phrase is empty"),
        ("car,, person", "a phrase is empty"),
        (", car at 5", "a phrase is empty"),
        ("car, at 5", "a phrase is empty"),
        ("at 5", "a phrase is empty"),
        ("from 1 to 9", "a phrase is empty"),
        ("redo", "a phrase is empty"),
        ("at 5 redo", "a phrase is empty"),
        ("car at 0", "there is no frame 0: Label Studio's frames start at 1"),
        ("car at 100000001", "there is no frame 100000001"),
        ("car at " + "9" * 5000, "there is no frame 999999999999:"),
        ("car from 0 to 9", "there is no frame 0"),
        ("car from 9 to 3", "from 9 to 3 contains no frame: write the smaller number first"),
    ],
)
def test_a_line_of_words_that_means_nothing_says_why(line: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_text_query(line)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("back", Command(direction="backward")),
        (" BACK ", Command(direction="backward")),
        ("both", Command(direction="both")),
        ("to 300", Command(within=FrameRange(1, 300))),
        ("To  300", Command(within=FrameRange(1, 300))),
        ("from 50 to 90", Command(within=FrameRange(50, 90))),
        ("from 7 to 7", Command(within=FrameRange(7, 7))),
        ("30 frames", Command(frames=30)),
        ("1 frame", Command(frames=1)),
        ("stop", Command(stop=True)),
        ("Redo", Command(redo=True)),
        ("like", Command(like="")),
        ("Like  red  car", Command(like="red car")),
        ("like to 300", Command(like="to 300")),
        ("unlike", Command(unlike=True)),
    ],
)
def test_a_regions_line_is_one_of_the_commands(line: str, meant: Command) -> None:
    assert parse_command(line) == meant


@pytest.mark.parametrize(
    "line",
    [
        "",
        "forward",
        "back 5",
        "to",
        "to -5",
        "to 5 6",
        "from 5",
        "from 5 to",
        "five frames",
        "frames",
        "30frames",
        "unlike car",
    ],
)
def test_what_is_no_command_is_told_which_there_are(line: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_command(line)
    assert str(error.value) == f'"{line}" is not a command; use one of: {COMMANDS}'


def test_a_long_line_is_told_by_its_beginning() -> None:
    with pytest.raises(BadRequest, match=f'^"{"x" * 40}" is not a command'):
        parse_command("x" * 1000)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("to 0", "there is no frame 0"),
        ("0 frames", "is not a command"),
        ("from 0 to 5", "there is no frame 0"),
        ("to 999999999999999", "there is no frame 999999999999:"),
        ("from 90 to 50", "from 90 to 50 contains no frame"),
    ],
)
def test_a_command_that_names_no_frames_says_so(line: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        parse_command(line)


@pytest.mark.parametrize("name", COMMANDS.replace("A", "5").replace("B", "9").replace("N", "30").split(" · "))
def test_every_command_that_is_named_is_one(name: str) -> None:
    assert parse_command(name) != TRACK


@pytest.mark.parametrize(
    ("line", "limited"),
    [("to 5", True), ("from 2 to 5", True), ("9 frames", True), ("back", False), ("stop", False), ("redo", False)],
)
def test_a_command_is_limited_where_it_names_frames(line: str, limited: bool) -> None:
    assert parse_command(line).is_limited is limited
    assert not TRACK.is_limited


@given(line=LINES)
@example("ſtop")  # of no letter case but one with s
@example("bac\u212a")
def test_any_text_is_understood_or_refused_with_a_sentence(line: str) -> None:
    with contextlib.suppress(BadRequest):
        found = parse_text_query(line)
        assert all(found.phrases)
        assert len(set(found.phrases)) == len(found.phrases) > 0
        assert found.at is None or 1 <= found.at <= LAST_FRAME
        assert 1 <= found.within.first <= found.within.last <= LAST_FRAME
    with contextlib.suppress(BadRequest):
        said = parse_command(line)
        assert said != TRACK or said.within == ALL_FRAMES
        assert 1 <= said.within.first <= said.within.last <= LAST_FRAME


@given(
    phrases=st.lists(st.sampled_from(["red car", "person", "man at sea", "bus from town"]), min_size=1, unique=True),
    frames=st.tuples(FRAMES, FRAMES).map(sorted),
    redo=st.booleans(),
)
def test_frames_and_phrases_come_back_as_they_were_written(phrases: list[str], frames: list[int], redo: bool) -> None:
    words, last = ", ".join(phrases), " redo" * redo
    first, stop = frames
    assert parse_text_query(f"{words} at {first}{last}") == TextQuery(tuple(phrases), at=first, redo=redo)
    within = parse_text_query(f"{words} from {first} to {stop}{last}")
    assert within == TextQuery(tuple(phrases), within=FrameRange(first, stop), redo=redo)
    assert parse_command(f"from {first} to {stop}") == Command(within=FrameRange(first, stop))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("frm 3 to 9", "from 3 to 9"),
        ("form 3 to 9", "from 3 to 9"),
        ("sotp", "stop"),
        ("rsume", "resume"),
        ("20 frmaes", "20 frames"),
        ("edn 62", "end 62"),
        ("unlkie", "unlike"),
        ("lik", "like"),
    ],
)
def test_a_misspelt_command_asks_what_was_meant(line: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=f'did you mean "{meant}"'):
        parse_command(line)
    assert parse_command(meant)


def test_what_is_like_no_command_suggests_none() -> None:
    with pytest.raises(BadRequest) as error:
        parse_command("AB 123")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("star frm 1 to 20", "star from 1 to 20"),
        ("red car 5 to 9", "red car from 5 to 9"),
        ("star from 1-20", "star from 1 to 20"),
        ("star on 30", "star at 30"),
        ("star @30", "star at 30"),
    ],
)
def test_misspelt_frames_of_a_phrase_ask_what_was_meant(line: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=f'did you mean "{meant}"'):
        parse_text_query(line)
    assert parse_text_query(meant)


@pytest.mark.parametrize("line", ["player 10", "bus 12, tram 3", "road to 12", "dog on sofa"])
def test_a_phrase_may_have_numbers(line: str) -> None:
    assert ", ".join(parse_text_query(line).phrases) == line
