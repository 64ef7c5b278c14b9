import base64
from typing import Any

import pytest

from backend.labelstudio.task_data import file_address, read_field, write_field


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("$clip", "a.mp4"),
        ("https://host/$clip?t=$n", "https://host/a.mp4?t=3"),
        ("$none", None),
        ("https://host/$none", "https://host/"),
        ("$deep.list[1].name", "second"),
        ("$deep.list[7].name", None),
        ("$clip.name", None),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_field_is_found_as_the_page_finds_it(value: str, found: Any) -> None:
    data = {"clip": "a.mp4", "n": 3, "deep": {"list": [{"name": "first"}, {"name": "second"}]}}
    assert read_field(value, data) == found


@pytest.mark.parametrize("value", ["$clip", "$deep.list[1].name", "$deep.new.name", "$new.name"])
def test_a_field_that_is_written_is_read_again_and_nothing_else_changes(value: str) -> None:
    data = {"clip": "a.mp4", "deep": {"list": [{"name": "first"}, {"name": "second"}]}}
    written = write_field(value, data, "b.mp4")
    assert read_field(value, written) == "b.mp4"
    others = {"$clip", "$deep.list[0].name", "$deep.list[1].name"} - {value}
    assert [read_field(other, written) for other in others] == [read_field(other, data) for other in others]
    assert data["clip"] == "a.mp4"


@pytest.mark.parametrize("address", ["s3://clips/a b/größe.mp4", "gs://clips/a.mp4", "azure-blob://box/a.mp4"])
def test_a_file_in_cloud_storage_is_fetched_through_label_studio(address: str) -> None:
    path, _, encoded = file_address(address, 7).partition("?fileuri=")
    assert path == "/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(encoded).decode() == address
    assert file_address(address, None) == address


@pytest.mark.parametrize("address", ["/data/upload/1/a.mp4", "https://host/s3://a.mp4", "a.mp4", ""])
def test_other_files_are_fetched_where_they_are(address: str) -> None:
    assert file_address(address, 7) == address
