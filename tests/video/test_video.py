"""Every frame of every kind of file, known by the number drawn into it."""

import random
import struct
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import BadVideo
from backend.video import Video, VideoLimits, index, reader, write_video
from backend.video.decoder import Decoder
from backend.video.frame_clock import FrameClock
from tests.clips import CLIPS, Clip, Misread, code_picture, read_code, write_clip, write_clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest, clips: dict[str, Clip]) -> Clip:
    return clips[request.param]


def threads() -> set[str]:
    """Of the whole process, those of the decoders included."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def wait_for_end_of_others(known: set[str]) -> None:
    """Python's join returns a moment before the system has let the thread go.

    Some that are known may end meanwhile: the process runs other tests' threads, too.
    """
    deadline = time.monotonic() + 2
    while threads() - known and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() - known == set()


def wrong(clip: Clip, numbered) -> list[tuple[int, int]]:
    return [(index, code) for index, picture in numbered if (code := read_code(picture)) != clip.first + index]


@pytest.mark.slow
def test_random_reads_bring_the_right_frame(clip: Clip) -> None:
    order = random.Random(str(clip.path.name)).choices(range(len(clip)), k=20)
    with Video(clip.path) as video:
        assert wrong(clip, ((index, video.read(index)) for index in order)) == []


@pytest.mark.slow
def test_sequential_and_reverse_reading(clip: Clip) -> None:
    everything = range(len(clip))
    with Video(clip.path) as video:
        forward, backward = list(video.frames(everything)), list(video.frames(everything, reverse=True))
        assert [index for index, _ in forward] == list(everything)
        assert [index for index, _ in backward] == list(everything)[::-1]
        assert wrong(clip, forward) == wrong(clip, backward) == []
        part = range(len(clip) // 3, len(clip) - 7)
        assert [index for index, _ in video.frames(part, reverse=True)] == list(part)[::-1]
        assert wrong(clip, video.frames(part)) == []


def test_times_size_and_length(clip: Clip) -> None:
    with Video(clip.path) as video:
        assert len(video) == len(clip) == len(video.times)
        assert (np.diff(video.times) > 0).all()
        late = clip.times[0] if clip.path.suffix in (".mp4", ".mkv", ".webm") else 0.0
        np.testing.assert_allclose(np.diff(video.times), np.diff(clip.times), atol=0.0011)
        # MPEG-TS counts from its audio, AVI from the first frame decoded: both a little before the first frame shown
        assert late <= video.times[0] + 1e-6 <= late + 0.041
        assert (video.width, video.height) == (clip.width, clip.height)
        assert video.read(0).shape == (clip.height, clip.width, 3)
        assert video.read(0).dtype == np.uint8
        assert video.read(0).flags.c_contiguous
        assert video.times[-1] < video.end <= video.duration


@pytest.mark.parametrize(("name", "rate"), [("constant", 25), ("ntsc", 30000 / 1001), ("vp9", 25), ("mpegts", 25)])
def test_rate_end_and_duration(clips: dict[str, Clip], name: str, rate: float) -> None:
    with Video(clips[name].path) as video:
        assert video.rate == pytest.approx(rate, rel=1e-9)
        assert video.end == pytest.approx(60 / rate, abs=0.0011)
        assert video.duration == pytest.approx(60 / rate, abs=0.0011)


@pytest.mark.parametrize(
    ("steps", "rate"),
    [
        ([1] * 20 + [11] + [1] * 19, 25),  # ten pictures in a row were dropped
        ([1, 1, 2] * 13, 25),  # every fourth picture was dropped
        ([1, 2, 1.5, 2, 2] * 8, 25),  # the rate varies: it is the highest
    ],
)
def test_at_the_rate_of_a_video_every_picture_is_shown(tmp_path: Path, steps: list[float], rate: float) -> None:
    times = np.cumsum([0, *steps]) / 25
    clip = write_clip(tmp_path / "gaps.mp4", times=times.tolist())
    with Video(clip.path) as video:
        assert video.rate == pytest.approx(rate)
        clock = FrameClock(video.times, video.end, video.rate)
        assert (clock.hidden_pictures().size, clock.describe_hidden()) == (0, None)


def test_pictures_that_no_rate_shows_are_named(tmp_path: Path) -> None:
    times = [*np.arange(0, 1, 0.04), 0.968, *np.arange(1, 2, 0.04)]
    clip = write_clip(tmp_path / "burst.mp4", times=times)
    with Video(clip.path) as video:
        assert video.rate == pytest.approx(25)
        said = FrameClock(video.times, video.end, video.rate).describe_hidden()
        assert said
        assert said.startswith("at 25 frames/s, Label Studio never shows 1 of 51 pictures (25)")


def test_audio_may_be_longer_than_the_pictures(clips: dict[str, Clip]) -> None:
    with Video(clips["long_audio"].path) as video:
        assert (video.end, video.duration) == (pytest.approx(2.4), pytest.approx(4.0, abs=0.03))


def test_only_useless_time_stamps_cost_a_full_decode(clip: Clip) -> None:
    with Video(clip.path) as video:
        assert video._index.is_counted == (clip.path.name == "avi_h264.avi")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 59), min_size=1, max_size=12), name=st.sampled_from(["variable", "mpegts_open"]))
def test_any_order(clips: dict[str, Clip], order: list[int], name: str) -> None:
    with Video(clips[name].path) as video:
        assert wrong(clips[name], ((index, video.read(index)) for index in order)) == []


def test_hidden_packets_of_vp8_are_no_frames(clips: dict[str, Clip], tmp_path: Path) -> None:
    """A reference that is never shown, before the second key frame."""
    with av.open(str(clips["vp8"].path)) as source, av.open(str(tmp_path / "hidden.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets: list[Any] = [packet for packet in source.demux(video=0) if packet.size]
        data = bytearray(bytes(packets[11]))
        data[0] &= ~0x10
        hidden = av.Packet(bytes(data))
        hidden.pts = hidden.dts = packets[11].pts + 20
        hidden.time_base = packets[11].time_base
        for packet in [*packets[:12], hidden, *packets[12:]]:
            packet.stream = stream
            target.mux(packet)
    with Video(tmp_path / "hidden.webm") as video:
        assert len(video) == 60
        assert wrong(clips["vp8"], video.frames(range(60))) == []


def test_reverse_reading_in_windows_smaller_than_a_group(clips, monkeypatch) -> None:
    monkeypatch.setattr(reader, "_WINDOW_BYTES", 17 * 192 * 128 * 3 // 2)
    for name in ("long_group", "mpegts", "avi_h264"):
        with Video(clips[name].path) as video:
            backward = list(video.frames(range(5, len(video)), reverse=True))
            assert [index for index, _ in backward] == list(range(5, len(video)))[::-1]
            assert wrong(clips[name], backward) == []


def test_two_iterators_and_reads_at_once(clips: dict[str, Clip]) -> None:
    clip = clips["matroska"]
    with Video(clip.path) as video:
        both = zip(video.frames(range(60)), video.frames(range(60), reverse=True), strict=True)
        for forward, backward in both:
            assert wrong(clip, [forward, backward, (7, video.read(7))]) == []


def test_reading_from_several_threads(clips: dict[str, Clip]) -> None:
    clip, errors = clips["long_group"], []
    with Video(clip.path) as video:

        def work(seed: int) -> None:
            order = random.Random(seed).choices(range(len(video)), k=15)
            errors.extend(wrong(clip, ((index, video.read(index)) for index in order)))
            errors.extend(wrong(clip, video.frames(range(seed, 40))))

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert errors == []


def test_closing_half_way_leaves_no_thread(clips: dict[str, Clip], monkeypatch) -> None:
    monkeypatch.setattr(reader, "_QUEUE_BYTES", 3 * 192 * 128 * 3)
    before = threads()
    with Video(clips["long_group"].path) as video:
        opened = threads()
        frames = video.frames(range(len(video)))
        assert [index for index, _ in islice(frames, 3)] == [0, 1, 2]
        assert threads() - opened
        time.sleep(0.2)  # the thread waits for room
        frames.close()
        wait_for_end_of_others(opened)
        with pytest.raises(Misread):  # noqa: PT012
            for _, picture in video.frames(range(len(video)), reverse=True):
                read_code(picture * 0)
        wait_for_end_of_others(opened)
        left = video.frames(range(len(video)))
        next(left)
    wait_for_end_of_others(before)
    with pytest.raises(ValueError, match="closed"):
        list(left)
    with pytest.raises(ValueError, match="closed"):
        video.read(0)
    video.close()


def test_no_more_is_decoded_ahead_than_the_queue_holds(clips, monkeypatch) -> None:
    monkeypatch.setattr(reader, "_QUEUE_BYTES", 3 * 192 * 128 * 3)
    made = []
    convert = Decoder._convert
    monkeypatch.setattr(Decoder, "_convert", lambda self, frame: made.append(1) or convert(self, frame))
    with Video(clips["long_group"].path) as video:
        frames = video.frames(range(len(video)))
        next(frames)
        time.sleep(0.3)
        assert 1 < len(made) <= 1 + 3 + 1 + 1  # given out, its place taken again, ready, in the hand of the thread
        frames.close()


def test_an_error_in_the_thread_reaches_the_consumer(clips: dict[str, Clip], monkeypatch) -> None:
    with Video(clips["constant"].path) as video:
        before = threads()
        monkeypatch.setattr(Decoder, "_decode", lambda self, number: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(video.frames(range(10)))
        wait_for_end_of_others(before)


def test_frames_outside_are_refused_at_once(clips: dict[str, Clip]) -> None:
    with Video(clips["constant"].path) as video:
        for index in (-1, 60):
            with pytest.raises(IndexError, match="0 to 59"):
                video.read(index)
        for span in (range(61), range(-1, 5)):
            with pytest.raises(IndexError, match="0 to 59"):
                video.frames(span)
        with pytest.raises(ValueError, match="step"):
            video.frames(range(0, 10, 2))
        assert list(video.frames(range(5, 5))) == []


@pytest.mark.parametrize("name", ["constant", "long_group", "matroska", "mpegts", "vp9", "avi", "flv"])
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_a_cut_file_gives_the_frames_that_are_there(clips, tmp_path: Path, name: str, part: float) -> None:
    clip = clips[name]
    data = clip.path.read_bytes()
    path = tmp_path / clip.path.name
    path.write_bytes(data[: int(len(data) * part)])
    with Video(path) as video:
        assert 0.1 * len(clip) < len(video) < len(clip)
        numbers = np.rint((video.times - video.times[0]) * 25).astype(int)  # B-frames may lack before the last one
        whole = range(len(video) - (name == "mpegts"))  # there, nothing tells that the last picture is cut
        assert [read_code(picture) for _, picture in video.frames(whole)] == numbers[whole].tolist()
        assert read_code(video.read(whole[-1])) == numbers[whole[-1]]


def test_a_frame_that_damage_took_reads_as_the_one_before_it(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "damaged.mp4", gop=1, frames=30)
    with av.open(str(clip.path)) as source:
        places = [packet.pos for packet in source.demux(video=0) if packet.size]
    data = bytearray(clip.path.read_bytes())
    for frame in (12, 13, 15):
        data[places[frame] : places[frame] + 40] = b"\xff" * 40
    clip.path.write_bytes(data)
    expected = [{12: 11, 13: 11, 15: 14}.get(index, index) for index in range(30)]
    with Video(clip.path) as video:
        assert [read_code(picture) for _, picture in video.frames(range(30))] == expected
        assert [read_code(picture) for _, picture in video.frames(range(30), reverse=True)] == expected[::-1]
        order = [13, 12, 14, 15, 29, 15, 12, 0, 16]
        assert [read_code(video.read(index)) for index in order] == [expected[index] for index in order]


def test_an_edit_list_may_end_early(clips: dict[str, Clip], tmp_path: Path) -> None:
    """Frames behind the end of the edit list are not shown, in browsers either."""
    data = bytearray(clips["constant"].path.read_bytes())
    place = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, place) == (2400,)  # milliseconds
    struct.pack_into(">I", data, place, 1600)
    (tmp_path / "short.mp4").write_bytes(data)
    with Video(tmp_path / "short.mp4") as video:
        assert len(video) == 40
        assert video.end == pytest.approx(1.6)
        assert [read_code(picture) for _, picture in video.frames(range(40))] == list(range(40))


def test_a_read_seeks_at_most_once_and_decodes_at_most_a_group(clips: dict[str, Clip], monkeypatch) -> None:
    seeks, decoded = [], []
    begin, following = Decoder._begin, Decoder._next
    monkeypatch.setattr(Decoder, "_begin", lambda self, key: seeks.append(key) or begin(self, key))
    monkeypatch.setattr(Decoder, "_next", lambda self: decoded.append(1) or following(self))
    with Video(clips["constant"].path) as video:
        for index in (59, 0, 35, 36, 24, 47, 11):
            seeks.clear(), decoded.clear()
            assert read_code(video.read(index)) == index
            assert len(seeks) <= 1
            assert len(decoded) <= 12 + 1
        seeks.clear()
        for index in range(12, 60):
            assert read_code(video.read(index)) == index
        assert len(seeks) <= 1


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("name", ["evil.mp4", "evil.m3u8", "evil.ts"])
def test_a_playlist_is_refused(clips: dict[str, Clip], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(PLAYLIST.format(clips["mpegts"].path))
    if name == "evil.m3u8":  # the danger is real
        with av.open(str(path)) as opened:
            assert opened.streams.video
    with pytest.raises(BadVideo):
        Video(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"not a video\n" * 100, b"ffconcat version 1.0\nfile constant.mp4\n", bytes(range(256)) * 40],
    ids=["empty", "text", "concat", "noise"],
)
def test_what_is_no_video_is_refused_in_words_without_a_path(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(data)
    with pytest.raises(BadVideo, match=r"^this file holds no video that can be decoded: .* save it as MP4") as caught:
        Video(path)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(BadVideo):
        Video(tmp_path / "missing.mp4")


def test_audio_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "tone.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(BadVideo, match="no moving picture"):
        Video(tmp_path / "tone.mp4")


def test_limits_hold_before_decoding(clips: dict[str, Clip], monkeypatch) -> None:
    monkeypatch.setattr(index, "decode_frames", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadVideo, match="192 x 128 have more than 24575 pixels"):
        Video(clips["constant"].path, VideoLimits(pixels=192 * 128 - 1))
    with pytest.raises(BadVideo, match="more than 59 frames"):
        Video(clips["constant"].path, VideoLimits(frames=59))


def test_limits_let_pass_what_just_fits(clips: dict[str, Clip]) -> None:
    with Video(clips["constant"].path, VideoLimits(pixels=192 * 128, frames=60)) as video:
        assert read_code(video.read(59)) == 59


@pytest.mark.parametrize("size", [(192, 128), (191, 127)])
def test_write_video(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "written.mp4"
    write_video(path, (code_picture(number, *size) for number in range(40)), 29.97)
    with Video(path) as video:
        assert len(video) == 40
        assert (video.width, video.height) == (192, 128)
        assert video.rate == pytest.approx(29.97, rel=1e-4)
        assert [read_code(picture) for _, picture in video.frames(range(40))] == list(range(40))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_write_video_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "written.mp4"
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(path, [], 25)
    with pytest.raises(ValueError, match="frame 1 is 64 x 32"):
        write_video(path, [code_picture(0, 32, 32), code_picture(0, 64, 32)], 25)
    assert not path.exists()


def test_a_code_is_refused_when_turned_mirrored_or_blended() -> None:
    picture = code_picture(1234, 192, 128)
    assert read_code(picture) == 1234
    for turned in (np.rot90(picture), np.rot90(picture, 2), np.rot90(picture, 3), picture[::-1], picture[:, ::-1]):
        with pytest.raises(Misread):
            read_code(turned)
    with pytest.raises(Misread):
        read_code(((picture.astype(int) + code_picture(1235, 192, 128)) // 2).astype(np.uint8))
    assert [read_code(code_picture(number, 191, 127)) for number in range(0, 4096, 97)] == list(range(0, 4096, 97))


def test_a_clip_larger_than_the_group_is_written_as_asked(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", frames=10, gop=5, size=(64, 48))
    with av.open(str(clip.path)) as source:
        assert sum(packet.is_keyframe for packet in source.demux(video=0)) == 2
