"""Fonts for text that is drawn into pictures, in any script that a font of this machine has."""

import unicodedata
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# The included font has little beyond ASCII. Pillow looks for the others in the system's folders.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)
_UNASSIGNED = "\uffff"


def choose_font(text: str, size: int) -> tuple[Font, str]:
    """The first font that has all characters of a text.

    Args:
        size: pixels.

    Returns:
        The font, and the text to draw with it: if no font has everything, without accents, and with "?" for what
        is missing.
    """
    included = _load_included(size)
    for font in (included, *(found for name in _SYSTEM_FONTS if (found := _load_system(name, size)))):
        if all(_has(font, character) for character in text):
            return font, text
    return included, "".join(_replace(included, character) for character in text)


@cache
def _load_included(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _load_system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _has(font: Font, character: str) -> bool:
    # A font draws one and the same sign for every character that it lacks.
    return bytes(font.getmask(character)) != bytes(font.getmask(_UNASSIGNED))


def _replace(font: Font, character: str) -> str:
    plain = "".join(one for one in unicodedata.normalize("NFKD", character) if not unicodedata.combining(one))
    return plain if plain and all(_has(font, one) for one in plain) else "?"
