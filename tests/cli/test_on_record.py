import pytest


@pytest.mark.parametrize("words", [["-f", "fleet.yaml"], ["--file", "fleet.yaml"], ["fleet.yaml"]], ids=" ".join)
@pytest.mark.parametrize("command", ["agent", "status", "drift"])
def test_a_manifest_is_not_taken(cli, world, command, words):
    done = cli(command, *words)
    assert done.code == 64
    assert f"`garrison {command}` takes no manifest; it works from what was applied" in done.err
    assert "--stack NAME" in done.err


WAYS = {
    "status": "Did you mean --stack lab?",
    "drift": "Did you mean --stack lab?",
    "history": "Did you mean --stack lab, --target lab, --name lab?",
    "extract": "Did you mean --stack lab, --query 'target:lab'?",
}


@pytest.mark.parametrize(("command", "way"), WAYS.items(), ids=WAYS)
def test_a_bare_name_gets_a_hint_naming_the_option(cli, world, command, way):
    done = cli(command, "lab")
    assert done.code == 64
    assert way in done.err


def test_other_usage_errors_are_the_usual_ones(cli, world):
    assert "--nonsense" in cli("status", "--nonsense").err
