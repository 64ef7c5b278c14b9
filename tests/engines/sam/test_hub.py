"""Downloads from a small hub of our own: what is fetched, what it reports, and what a hub that is in trouble does."""

import errno
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.cli import main
from backend.engines.base import WAITING_PREFIX
from backend.engines.sam import engine as sam_engine
from backend.engines.sam import hub, hub_process
from backend.engines.sam.hub import DownloadInterrupted
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.weights import FAMILY
from backend.errors import SettingsError
from backend.settings import Settings
from tests.engines.sam.small_hub import FILES, WEIGHTS, Hub

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    one = Hub()
    monkeypatch.setenv("HF_ENDPOINT", one.url)
    yield one
    one.close()


def download(folder: Path, revision: str = "") -> Path:
    return hub.download("facebook/sam3", revision, str(folder), FAMILY)


def test_the_files_are_fetched_and_progress_is_reported(server: Hub, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    folder = hub.download("facebook/sam3", "", str(tmp_path), FAMILY, lambda *counts: reports.append(counts))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "sam3.pt").exists()
    whole = len(WEIGHTS) + len(FILES["config.json"])
    assert reports[-1] == (whole, whole)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    server.ranges.clear()
    assert hub.download("facebook/sam3", "", str(tmp_path), FAMILY) == folder
    assert server.ranges == [], "the second time nothing is fetched"


def test_the_token_is_for_the_hub_alone(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.redirects, server.cut_after = True, len(WEIGHTS) // 2
    assert (download(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    asked = {path: token for path, token in server.tokens.items() if "/facebook/sam3/" in path}
    assert {*asked.values()} == {"Bearer hf_secret"}
    assert server.tokens["/cdn/model.safetensors"] is None
    assert (server.ranges[1] or "").startswith("bytes=")


def test_a_download_goes_on_after_a_cut(server: Hub, tmp_path: Path) -> None:
    server.cut_after = len(WEIGHTS) // 2
    for _ in range(2):  # the hub's library may go on by itself
        try:
            folder = download(tmp_path)
        except DownloadInterrupted:
            continue
        break
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert len(server.ranges) == 2
    assert server.ranges[0] is None
    assert (server.ranges[1] or "").startswith("bytes="), "what was there is kept"


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_too_little_room_is_told_before_anything_is_written(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(WEIGHTS) // 2))
    with pytest.raises(SettingsError, match=r"GB more, but the disk of model_dir has .* set model_dir"):
        download(tmp_path / "models")


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "the disk of model_dir is full after 50 % of facebook/sam3: free some space, or set model_dir"),
        (errno.EACCES, "model_dir is not writable: it belongs to user"),
    ],
)
def test_a_disk_that_takes_nothing_is_not_the_hubs_fault(number: int, mend: str, tmp_path: Path) -> None:
    try:
        try:
            raise OSError(number, "secret path")
        except OSError as error:
            raise RuntimeError("as the library wraps it") from error
    except RuntimeError as error:
        told = hub._Download(**{**hub_process.describe_error(error), "done": 5, "total": 10})
    sentence = str(hub._explain(told, "facebook/sam3", "", tmp_path, FAMILY))
    assert sentence.startswith(mend)
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("status", "mend", "kind"),
    [
        (401, r"request it at huggingface\.co/facebook/sam3, then set HF_TOKEN", SettingsError),
        (403, r"request it at huggingface\.co/facebook/sam3, then set HF_TOKEN", SettingsError),
        (404, "the hub has no facebook/sam3: set model_path to facebook/sam3", SettingsError),
        (501, r"could not be fetched \(\w+\): connect to huggingface\.co once", SettingsError),
        (503, r"127\.0\.0\.1 answers with the error 503; what has come is kept: try again later", DownloadInterrupted),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_mend(
    server: Hub, tmp_path: Path, status: int, mend: str, kind: type[SettingsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.status = status
    with pytest.raises(SettingsError, match=mend) as caught:
        download(tmp_path)
    assert type(caught.value) is kind
    assert "hf_secret" not in str(caught.value)


def test_a_revision_that_the_hub_does_not_have_is_named(server: Hub, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(SettingsError, match="no revision v9 of it: correct model_path or revision"):
        download(tmp_path, "v9")


def test_a_hub_in_trouble_does_not_matter_where_the_files_are_kept(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = download(tmp_path)
    server.status = 401
    assert download(tmp_path) == folder
    server.status, server.hangs_at = 0, "revision"
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 1.0)
    assert download(tmp_path) == folder
    assert "the hub cannot be reached (it is silent): loading the copy of facebook/sam3 on disk" in caplog.text


@pytest.mark.parametrize("where", ["revision", "tree"])
def test_a_hub_that_hangs_is_a_sentence_and_keeps_no_process(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 1.0)
    server.hangs_at = where
    with pytest.raises(DownloadInterrupted, match=r"^127\.0\.0\.1 has sent nothing for 1 s; what has come is kept"):
        download(tmp_path)
    assert server.asked.is_set()
    server.go_on.set()
    server.hangs_at = ""
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 30.0)
    assert (download(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_stops_in_its_middle_goes_on_with_the_next_try(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 2.0)
    server.hangs_after = len(WEIGHTS) // 2
    with pytest.raises(DownloadInterrupted):
        download(tmp_path)
    assert server.asked.is_set()
    server.hangs_after = 0
    server.go_on.set()
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 30.0)
    server.ranges.clear()
    assert (download(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert (server.ranges[0] or "").startswith("bytes="), "what was there is kept"


@pytest.mark.slow
def test_a_slow_hub_is_not_taken_for_one_that_hangs(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 4.0)
    server.trickle = 0.8  # nearly five seconds in all
    assert (download(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.ranges == [None], "it came at once"


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "..", "a/b"])
def test_a_hub_names_no_file_outside_the_cache(server: Hub, tmp_path: Path, name: str) -> None:
    server.etag = name
    with pytest.raises(SettingsError, match=r"^127\.0\.0\.1 gives a file of facebook/sam3 a name that is none"):
        download(tmp_path / "models")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_damaged_on_its_way_is_fetched_anew(server: Hub, tmp_path: Path) -> None:
    server.is_damaged = True
    with pytest.raises(DownloadInterrupted, match=r"the download from 127\.0\.0\.1 broke off \(Damaged\)"):
        download(tmp_path)
    server.is_damaged = False
    assert (download(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.ranges == [None, None]


def test_two_processes_share_one_download(server: Hub, tmp_path: Path) -> None:
    server.hangs_after = len(WEIGHTS) // 2
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(download, tmp_path) for _ in range(2)]
        assert server.asked.wait(60)
        server.go_on.set()
        folders = {one.result(60) for one in both}
    assert len(folders) == 1
    assert (folders.pop() / "model.safetensors").read_bytes() == WEIGHTS
    assert server.ranges == [None], "it came once"


def test_a_network_that_is_away_in_the_middle_of_a_download_is_no_end(tmp_path: Path) -> None:
    away = hub._Download(error="ConnectError", host="hub")
    assert type(hub._explain(away, "facebook/sam3", "", tmp_path, FAMILY)) is SettingsError
    blobs = tmp_path / "models--facebook--sam3" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0123.part").write_bytes(b"half")
    assert type(hub._explain(away, "facebook/sam3", "", tmp_path, FAMILY)) is DownloadInterrupted


def test_the_engine_tries_again_by_itself_and_says_so(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(sam_engine, "RETRY_SECONDS", 0.05)
    server.hangs_at = "revision"
    seen: list[str] = []

    class Engine(Sam3Engine):
        @property
        def _status(self) -> str:
            return seen[-1]

        @_status.setter
        def _status(self, status: str) -> None:
            seen.append(status)
            if status.startswith(WAITING_PREFIX):
                server.hangs_at = ""
                monkeypatch.setattr(hub, "SILENCE_SECONDS", 30.0)
                server.go_on.set()

    engine = Engine(Settings(engine="sam3", model_path="facebook/sam3", model_dir=str(tmp_path), device="cpu"))
    engine._loading.join(60)
    assert seen[1] == (
        "waiting for its weights: 127.0.0.1 has sent nothing for 1 s; what has come is kept, and the next try is "
        "within 0 s"
    )
    assert any(re.match(r"downloading its weights: \d+ % of 0\.0 GB", status) for status in seen)
    assert seen[-1].startswith("failed: config.json"), "all was fetched, and is no model"


def test_the_command_downloads_and_says_where_they_lie(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    assert main(["weights", "facebook/sam3"]) == 0
    folder = Path(capsys.readouterr().err.rstrip().rpartition(": in ")[2])
    assert folder.is_relative_to(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert main(["weights", "--engine", "opencv"]) == 2
    assert "engine opencv has no weights" in capsys.readouterr().err


def test_the_status_tells_how_far_a_download_is() -> None:
    engine = object.__new__(Sam3Engine)
    engine._percent = None
    told = []
    for done in (0, 10**9, 10**9 + 1, 17 * 10**8, 34 * 10**8):
        engine._show_download(done, 34 * 10**8)
        told.append(engine.status)
    assert told[0] == "downloading its weights: 0 % of 3.4 GB"
    assert told[1] == told[2]
    assert told[1].startswith("downloading its weights: 29 % of 3.4 GB, ")
    assert told[1].endswith(" left")
    assert told[4] == "downloading its weights: 100 % of 3.4 GB, 0 s left"
