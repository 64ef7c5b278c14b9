"""Which frames a strip holds, and addresses that nobody else can make."""

import itertools
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.labelstudio.frame_strip import SignedTask, SignedVideo, Signer, strip_frames

VIDEO = SignedVideo("/data/upload/1/clip.mp4", 29.97)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("data") / "secret")


@given(length=st.integers(1, 10**6), most=st.integers(2, 1000))
def test_a_strip_goes_evenly_from_the_first_frame_to_the_last(length: int, most: int) -> None:
    strip = strip_frames(length, most)
    assert (strip[0], strip[-1]) == (1, length)
    assert len(strip) <= most
    steps = [after - before for before, after in itertools.pairwise(strip)]
    assert len(set(steps[:-1])) <= 1
    assert all(0 < step <= steps[0] for step in steps)
    # with steps of one frame less it would hold too many
    assert not steps or steps[0] == 1 or len(range(1, length, steps[0] - 1)) >= most


@pytest.mark.parametrize(
    ("length", "most", "strip"),
    [
        (1, 200, [1]),
        (2, 200, [1, 2]),
        (5, 5, [1, 2, 3, 4, 5]),
        (6, 5, [1, 3, 5, 6]),
        (100, 5, [1, 26, 51, 76, 100]),
        (100, 2, [1, 100]),
        (100, 1, [1, 100]),
        (100, 0, [1, 100]),
    ],
)
def test_some_strips(length: int, most: int, strip: list[int]) -> None:
    assert strip_frames(length, most) == strip


@given(url=st.text(), framerate=st.floats(allow_nan=False))
def test_a_key_names_its_video_and_fits_into_an_address(signer: Signer, url: str, framerate: float) -> None:
    key = signer.key(SignedVideo(url, framerate))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
    assert signer.video(key) == (url, framerate)


@given(project=st.text(), task=st.text())
def test_a_key_names_its_task_and_no_video(signer: Signer, project: str, task: str) -> None:
    key = signer.key(SignedTask(project, task))
    assert signer.task(key) == (project, task)
    with pytest.raises(BadRequest, match="no valid signature"):
        signer.video(key)
    with pytest.raises(BadRequest, match="no valid signature"):
        signer.task(signer.key(VIDEO))


def test_the_same_video_always_gets_the_same_key(signer: Signer) -> None:
    assert signer.key(VIDEO) == signer.key(SignedVideo(*VIDEO)) != signer.key(VIDEO._replace(framerate=25.0))


def test_a_key_that_was_changed_anywhere_is_refused(signer: Signer) -> None:
    key = signer.key(VIDEO)
    for place in range(len(key) - 1):  # bits of the last one may mean nothing
        changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        with pytest.raises(BadRequest, match="no valid signature: run sam3-backend project prepare again"):
            signer.video(changed)


def test_one_keys_signature_signs_no_other_video(signer: Signer) -> None:
    ours = signer.key(VIDEO)
    others = signer.key(VIDEO._replace(url="/data/upload/2/clip.mp4"))
    with pytest.raises(BadRequest, match="no valid signature"):
        signer.video(ours[:20] + others[20:])


@pytest.mark.parametrize("key", ["", "A", "AAAA", "ä", "\ud800", "%%%%", "=" * 40, "A" * 10_000])
def test_what_is_no_key_is_refused(signer: Signer, key: str) -> None:
    with pytest.raises(BadRequest, match="no valid signature"):
        signer.video(key)


@given(key=st.text())
def test_any_text_is_refused_and_breaks_nothing(signer: Signer, key: str) -> None:
    with pytest.raises(BadRequest):
        signer.video(key)


def test_a_new_secret_ends_all_keys_of_the_old_one(tmp_path: Path) -> None:
    signer = Signer(tmp_path / "secret")
    key = signer.key(VIDEO)
    (tmp_path / "secret").unlink()
    with pytest.raises(BadRequest):
        signer.video(key)
    assert signer.key(VIDEO) != key


def test_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    path, mask = tmp_path / "new" / "folder" / "secret", os.umask(0)
    try:
        Signer(path).key(VIDEO)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 32


def test_the_secret_stays_when_the_server_starts_again(tmp_path: Path) -> None:
    key = Signer(tmp_path / "secret").key(VIDEO)
    assert Signer(tmp_path / "secret").video(key) == VIDEO
    assert Signer(tmp_path / "other").key(VIDEO) != key


def test_signers_that_make_the_secret_at_once_agree(tmp_path: Path) -> None:
    signers = [Signer(tmp_path / "secret") for _ in range(16)]
    at_once, keys = threading.Barrier(len(signers)), []

    def sign(signer: Signer) -> None:
        at_once.wait()
        keys.append(signer.key(VIDEO))

    threads = [threading.Thread(target=sign, args=(signer,)) for signer in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == len(signers)
    assert set(keys) == {Signer(tmp_path / "secret").key(VIDEO)}
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_of_two_that_make_the_secret_at_once_the_first_counts(tmp_path: Path, monkeypatch) -> None:
    first, keys = Signer(tmp_path / "secret"), []

    def token_bytes(count: int) -> bytes:
        monkeypatch.undo()
        keys.append(first.key(VIDEO))
        return os.urandom(count)

    monkeypatch.setattr("backend.labelstudio.frame_strip.secrets.token_bytes", token_bytes)
    second = Signer(tmp_path / "secret").key(VIDEO)
    assert keys == [second]
