"""The README's table of settings says what the code says: `python -m tests.test_readme_settings` writes it there."""

from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from backend.settings import ALIASES, Settings
from tests.readme import README, TABLE, _settings, _shown


def meanings(kind: Any = Settings, group: str = "") -> Iterator[tuple[str, str]]:
    """What each setting means, by its key; of those without a word, nothing."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if hasattr(hint, "__metadata__"):
            yield group + name, hint.__metadata__[0]
        elif hasattr(hint, "__dataclass_fields__"):
            yield from meanings(hint, f"{name}.")


def with_table(text: str) -> str:
    """The README with its table of settings made anew."""
    meant = dict(meanings())
    rows = [f"| `{key}` | {_shown(key, value)} | {meant[key]} |\n" for key, value in _settings(Settings())]
    before, heading, rest = text.partition(TABLE)
    assert heading, "the README has lost its table of settings"
    return before + heading + "".join(rows) + "\n" + rest.partition("\n\n")[2]


def test_the_table_is_what_the_code_says() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run python -m tests.test_readme_settings"


def test_every_setting_has_a_meaning_of_a_line() -> None:
    meant = dict(meanings())
    assert meant.keys() == {key for key, _ in _settings(Settings())}
    assert [key for key, meaning in meant.items() if not meaning or set("|\n") & set(meaning)] == []


@pytest.mark.parametrize(("name", "key"), ALIASES.items())
def test_a_name_of_the_environment_that_is_special_is_told(name: str, key: str) -> None:
    assert f"also as `{name}`" in dict(meanings())[key]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
