"""The generated parts of the documentation are what the code says: `make docs` writes them."""

import pytest

from backend.settings import Settings
from backend.settings_loader import ALIASES
from tests.generated_docs import SETTINGS, _settings, meanings, with_table


def test_the_table_is_what_the_code_says() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    assert with_table(text) == text, "make docs"


def test_every_setting_has_a_meaning_of_a_line() -> None:
    meant = dict(meanings())
    assert meant.keys() == {key for key, _ in _settings(Settings())}
    assert [key for key, meaning in meant.items() if not meaning or set("|\n") & set(meaning)] == []


@pytest.mark.parametrize(("name", "key"), ALIASES.items())
def test_a_name_of_the_environment_that_is_special_is_told(name: str, key: str) -> None:
    assert f"also as `{name}`" in dict(meanings())[key]
