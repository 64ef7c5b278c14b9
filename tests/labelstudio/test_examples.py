"""The examples in a label config."""

from backend.labelstudio.examples import fit_examples
from tests.labelstudio.test_label_config import SHIPPED


def test_the_examples_are_the_projects_own_labels() -> None:
    assert fit_examples(SHIPPED) == SHIPPED
    fitting = fit_examples(SHIPPED.replace('value="Car"', 'value="Rock &amp; &quot;roll&quot; (live)"'))
    example = "rock &amp; &quot;roll&quot; (live)"
    assert f'Enter: {example}, person · all · {example} at 120 · ball from 1 to 300"' in fitting
    assert f"blue line ({example}, person), Enter. Clicks" in fitting
    assert fit_examples(fitting) == fitting


def test_texts_of_the_projects_own_stay() -> None:
    other = SHIPPED.replace("find by words + Enter", "say what").replace("blue line (car, person)", "blue line (any)")
    other = other.replace("Box: ", "A box: ").replace('value="Car"', 'value="Bus"')
    assert fit_examples(other) == other
