"""The examples that the line for words shows while it is empty."""

import re
from xml.sax.saxutils import escape

from backend.labelstudio.label_config import parse_label_config

_EXAMPLES = re.compile(r"""(placeholder\s*=\s*"find by words \+ Enter: )[^"]*(")""")


def fit_placeholder(xml: str) -> str:
    """A label config with its own labels in the examples of the line for words; other placeholders stay.

    Raises:
        BadRequest: as `parse_label_config`.
    """
    config = parse_label_config(xml)
    phrases = [escape(config.phrases[label], {'"': "&quot;"}) for label in config.labels.get(config.video.name, ())]
    if not phrases:
        return xml
    examples = f"{', '.join(phrases[:2])} · all · {phrases[0]} at 120 · {phrases[-1]} from 1 to 300"
    return _EXAMPLES.sub(lambda match: f"{match[1]}{examples}{match[2]}", xml)
