"""A video in an S3 bucket, behind Label Studio's own cloud storage."""

import importlib.util
from pathlib import Path

import pytest

from backend.demo.labelstudio import LabelStudio
from backend.demo.processes import free_port
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from tests.clips import write_clip
from tests.e2e.conftest import ROOT
from tests.needs import need

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("presign", [True, False], ids=["signed", "served"])
def test_a_video_in_a_bucket_is_fetched_through_label_studio(
    studio: LabelStudio, tmp_path: Path, presign: bool
) -> None:
    need(importlib.util.find_spec("moto") is not None, "moto")
    from moto.server import ThreadedMotoServer

    video = write_clip(tmp_path / "clip.mp4", frames=30).path
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(0), verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        _fill_bucket(endpoint, "clips", "a day/größe.mp4", video)
        xml = (ROOT / "label_config.xml").read_text()
        project = studio.create_project("bucket", xml)
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        storage = {"project": project, "bucket": "clips", "s3_endpoint": endpoint, "presign": presign, **keys}
        studio.call("POST", "/api/storages/s3", json=storage)
        number = studio.create_task(project, {"video": "s3://clips/a day/größe.mp4", "fps": 25})
        client = LabelStudioClient(studio.url, studio.token)
        task = client.task(number)
        assert task["data"]["video"] == "s3://clips/a day/größe.mp4"
        url = parse_label_config(xml).video.url(task)
        # With presign, Label Studio redirects to the bucket, which is on a private address here.
        settings = Settings(data_dir=tmp_path / "data", media_allow=("127.0.0.1",) if presign else ())
        with TaskVideos(settings).open(url, client) as opened:
            assert len(opened) == 30
    finally:
        server.stop()


def _fill_bucket(endpoint: str, bucket: str, name: str, file: Path) -> None:
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket=bucket)
    client.upload_file(str(file), bucket, name)
