"""The command line as a whole: examples in the help, and suggestions for unknown words."""

import shlex

import pytest

from backend import cli
from backend.commands.arguments import suggest
from tests import generated_docs


@pytest.mark.parametrize("parser", list(generated_docs.parsers()), ids=lambda parser: parser.prog)
def test_the_help_of_each_command_ends_with_two_examples_that_can_be_parsed(parser) -> None:
    before, heading, examples = parser.format_help().partition("\nexamples:\n")
    assert heading
    assert before
    lines = examples.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"  {parser.prog} ")
        assert cli.build_parser().parse_args(shlex.split(line)[1:]).run
        assert len(line) <= 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("track clip.mp4 --boxx 1,2,3,4@0", "sam3-backend track: error: unknown option --boxx: did you mean --box?"),
        ("track clip.mp4 --boxx=1,2,3,4@0", "unknown option --boxx: did you mean --box?"),
        ("project prepare --projct 1", "unknown option --projct: did you mean --project?"),
        ("project export --formt csv", "unknown option --formt: did you mean --format?"),
        ("--versoin", "sam3-backend: error: unknown option --versoin: did you mean --version?"),
        ("track clip.mp4 --zebra", "unknown option --zebra: see sam3-backend track --help"),
        ("trak clip.mp4", "sam3-backend: error: unknown command trak: did you mean track?"),
        ("project exprt", "sam3-backend project: error: unknown command exprt: did you mean export?"),
        ("paint", "unknown command paint: see sam3-backend --help"),
    ],
)
def test_an_unknown_option_or_command_names_the_nearest_one(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(message)


def test_values_and_shortened_options_are_not_taken_for_unknown_options() -> None:
    parse = cli.build_parser().parse_args
    options = parse(["project", "annotate", "--project=7", "--text", "-- a dash", "--dry"])
    assert (options.project, options.text, options.dry_run) == (7, "-- a dash", True)
    assert parse(["project", "create", "--label-config", "a.xml", "--", "--title"]).title == "--title"
    assert parse(["track", "clip.mp4", "-otasks.json", "--text", "car"]).output.name == "tasks.json"


def test_a_suggestion_ignores_dashes() -> None:
    assert suggest("-box", ["--box", "--not"]) == "did you mean --box?"
    assert suggest("--at", ["--box", "--not"]) == ""
