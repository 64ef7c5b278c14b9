"""The examples in the line for words."""

from backend.labelstudio.placeholder import fit_placeholder
from tests.labelstudio.test_label_config import SHIPPED


def test_the_examples_of_the_line_for_words_are_the_projects_own_labels() -> None:
    assert fit_placeholder(SHIPPED) == SHIPPED
    fitting = fit_placeholder(SHIPPED.replace('value="Car"', 'value="Rock &amp; &quot;roll&quot;"'))
    example = "rock &amp; &quot;roll&quot;"
    assert f'Enter: {example}, person · all · {example} at 120 · ball from 1 to 300"' in fitting
    assert fit_placeholder(fitting) == fitting
    other = SHIPPED.replace("find by words + Enter", "say what")
    assert fit_placeholder(other) == other
