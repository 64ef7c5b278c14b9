"""The examples in a label config: what to type into the line for words."""

import re
from xml.sax.saxutils import escape

from backend.labelstudio.label_config import parse_label_config

_PLACEHOLDER = re.compile(r"""(placeholder\s*=\s*"find by words \+ Enter: )[^"]*(")""")
_HEADER = re.compile(r"""(value\s*=\s*"Box: [^"]*blue line \()[^"]*?(\), Enter)""")


def fit_examples(xml: str) -> str:
    """A label config whose examples are its own labels, in the Header and in the line for words; other texts stay.

    Raises:
        BadRequest: as `parse_label_config`.
    """
    config = parse_label_config(xml)
    phrases = [escape(config.phrases[label], {'"': "&quot;"}) for label in config.labels.get(config.video.name, ())]
    if not phrases:
        return xml
    some = ", ".join(phrases[:2])
    line = f"{some} · all · {phrases[0]} at 120 · {phrases[-1]} from 1 to 300"
    fitting = _PLACEHOLDER.sub(lambda match: f"{match[1]}{line}{match[2]}", xml)
    return _HEADER.sub(lambda match: f"{match[1]}{some}{match[2]}", fitting)
