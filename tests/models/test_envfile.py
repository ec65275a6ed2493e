import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.models.envfile import encode_value, parse, read_env_file, render, write_env_file

CARRIED = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=40)
NASTY = st.text(alphabet="'\"\\$`!#~ \t=;&|<>(){}*?[]\r\x01\x0b\x0c\x1b\x7f\u0085\u2028é€nt", max_size=24)
BYTES = st.binary(max_size=24).map(lambda raw: os.fsdecode(raw.replace(b"\n", b"").replace(b"\0", b"")))
VALUES = st.one_of(CARRIED, NASTY, BYTES)


def shell_reads(content: str) -> dict[str, str]:
    """What the documented one-liner sees, with no code of Garrison in between."""
    with tempfile.NamedTemporaryFile("wb", suffix=".env") as file:
        file.write(os.fsencode(content))
        file.flush()
        done = subprocess.run(
            ["bash", "-c", 'set -a; . "$1"; /usr/bin/env -0', "bash", file.name],
            env={"PATH": os.environ["PATH"]}, capture_output=True, check=True, timeout=30,
        )  # fmt: skip
    return dict(os.fsdecode(entry).split("=", 1) for entry in done.stdout.split(b"\0") if entry)


@given(VALUES)
@settings(max_examples=500)
def test_our_parser_reads_back_any_value_we_write(value: str) -> None:
    assert parse(render({"VLLM_MODEL": value})) == {"VLLM_MODEL": value}


@given(st.lists(VALUES, min_size=20, max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_shell_reads_back_any_value_we_write(values: list[str]) -> None:
    written = {f"VLLM_V{number}": value for number, value in enumerate(values)}
    seen = shell_reads(render(written))
    assert {key: seen.get(key) for key in written} == written


LINES = st.text(alphabet="ab1'\"\\$`# \t=;&~.-/n", max_size=16)


@given(st.lists(LINES, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_the_parser_accepts_a_shell_reads_alike(rests: list[str]) -> None:
    accepted: dict[str, str] = {}
    lines = []
    for number, rest in enumerate(rests):
        key = f"VLLM_V{number}"
        try:
            value = parse(f"{key}={rest}")
        except InvalidError:
            continue
        if '"' in rest and ("\\n" in rest or "\\t" in rest):
            continue  # the documented difference
        accepted |= value
        lines.append(f"{key}={rest}")
    seen = shell_reads("\n".join(lines) + "\n")
    assert {key: seen.get(key) for key in accepted} == accepted


@given(st.text())
def test_the_parser_ends_in_values_or_a_refusal(text: str) -> None:
    with contextlib.suppress(InvalidError):
        parse(text)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param("VLLM_X=1", "1", id="KEY=VALUE"),
        pytest.param("export VLLM_X=1", "1", id="export KEY=VALUE"),
        pytest.param("  export \t VLLM_X='1'", "1", id="leading white space"),
        pytest.param("VLLM_X='a b $HOME `x` \\n \"'", 'a b $HOME `x` \\n "', id="single-quoted"),
        pytest.param('VLLM_X="a \\\\ \\" \\n \\t b"', 'a \\ " \n \t b', id="double-quoted with the four escapes"),
        pytest.param("VLLM_X=/a/b-c_d.e:f@g,h+i%j", "/a/b-c_d.e:f@g,h+i%j", id="unquoted"),
        pytest.param("VLLM_X='a' # note", "a", id="comment after a quoted value"),
        pytest.param("VLLM_X=a # note 'x", "a", id="comment after an unquoted value"),
        pytest.param("VLLM_X='a # b'", "a # b", id="a hash inside quotes"),
        pytest.param("VLLM_X=a#b", "a#b", id="a hash inside a word"),
        pytest.param("VLLM_X=", "", id="empty"),
        pytest.param("VLLM_X=''", "", id="empty quotes"),
        pytest.param("VLLM_X='it'\\''s'", "it's", id="the shell's quote between quotes"),
        pytest.param("\n# note\n\nVLLM_X=1\n\n", "1", id="blank lines and comments"),
        pytest.param("VLLM_X=1\nVLLM_X=2", "2", id="the last one wins"),
    ],
)
def test_grammar_accepted(line: str, value: str) -> None:
    assert parse(line) == {"VLLM_X": value}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('VLLM_X="${HOME}"', id="no ${VAR} interpolation"),
        pytest.param('VLLM_X="$(id)"', id="no command substitution"),
        pytest.param('VLLM_X="`id`"', id="no backticks"),
        pytest.param("VLLM_X=$HOME", id="no interpolation unquoted"),
        pytest.param("VLLM_X='a\nb'", id="no multiline values"),
        pytest.param('VLLM_X="a\nb"', id="no multiline values in double quotes"),
        pytest.param('VLLM_X="a\\$b"', id="unknown escape"),
        pytest.param("VLLM_X=a b", id="a second word"),
        pytest.param("VLLM_X='a'b", id="quotes that go on"),
        pytest.param("VLLM_X='a'#b", id="a comment without white space"),
        pytest.param("VLLM_X=a;id", id="a second command"),
        pytest.param("VLLM_X=~/x", id="a tilde"),
        pytest.param("VLLM_X='a", id="an open single quote"),
        pytest.param('VLLM_X="a', id="an open double quote"),
        pytest.param("VLLM_X='a'\r", id="Windows line ends"),
        pytest.param("VLLM X=1", id="a key with white space"),
        pytest.param("VLLM-X=1", id="a key with a dash"),
        pytest.param("id", id="a command"),
        pytest.param("unset VLLM_X", id="another builtin"),
    ],
)
def test_grammar_refused(line: str) -> None:
    with pytest.raises(InvalidError, match="line 1"):
        parse(line)


@pytest.mark.parametrize(
    "key",
    [
        "PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "BASH_ENV",
        "ENV",
        "IFS",
        "HOME",
        "SHELLOPTS",
    ],
)
def test_safe_mode_refuses_keys_that_change_which_code_runs(key: str) -> None:
    with pytest.raises(InvalidError, match=f"sets {key}, which safe mode refuses"):
        parse(f"VLLM_MODEL='x'\nexport {key}='/tmp/x'")


@pytest.mark.parametrize(
    "key", ["HF_HOME", "HF_HUB_OFFLINE", "VLLM_MODEL", "_VLLM_RESOLVED_MODEL", "CUDA_VISIBLE_DEVICES"]
)
def test_safe_mode_takes_the_keys_that_are_needed(key: str) -> None:
    assert parse(f"export {key}='1'") == {key: "1"}


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\ud800"], ids=["newline", "NUL", "lone surrogate"])
def test_a_value_that_cannot_be_carried_is_refused(value: str) -> None:
    with pytest.raises(InvalidError, match="VLLM_MODEL"):
        encode_value("VLLM_MODEL", value)


def test_single_quotes_are_the_first_choice() -> None:
    assert encode_value("K", 'a$b"c\\') == "'a$b\"c\\'"
    assert encode_value("K", "it's\\") == '"it\'s\\\\"'
    assert encode_value("K", "it's $5") == "'it'\\''s $5'"


def test_mode_600_and_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.env"
    old_umask = os.umask(0)
    try:
        write_env_file(path, {"VLLM_MODEL": "a"})
    finally:
        os.umask(old_umask)
    assert path.stat().st_mode & 0o777 == 0o600
    inode = path.stat().st_ino
    write_env_file(path, {"VLLM_MODEL": "b"})
    assert path.stat().st_ino != inode
    assert [entry.name for entry in path.parent.iterdir()] == ["m.env"]


def test_an_unwritable_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidError, match="cannot be written"):
        write_env_file(tmp_path / "file" / "m.env", {})


@given(VALUES)
@settings(max_examples=25, deadline=None)
def test_trusted_and_safe_agree_on_what_we_wrote(value: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m.env"
        written = {"VLLM_MODEL": value, "_VLLM_RESOLVED_VIA": "local"}
        write_env_file(path, written)
        assert read_env_file(path) == read_env_file(path, trusted=True, environ={"PATH": "/usr/bin:/bin"}) == written


@pytest.mark.system
class TestTrusted:
    def read(self, tmp_path: Path, content: str) -> dict[str, str]:
        path = tmp_path / "t.env"
        path.write_text(content)
        path.chmod(0o600)
        return read_env_file(path, trusted=True, environ={"PATH": "/usr/bin:/bin", "KEEP": "1"})

    def test_shell_code_runs(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, 'A=1\nB="$((A + 1))"\nPATH=/nowhere\necho noise\n') == {
            "A": "1",
            "B": "2",
            "PATH": "/nowhere",
        }

    def test_failure_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidError, match="failed as shell code"):
            self.read(tmp_path, "false\n")

    def test_world_writable_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "t.env"
        path.write_text("A=1\n")
        path.chmod(0o666)
        with pytest.raises(InvalidError, match="writable by everybody"):
            read_env_file(path, trusted=True)


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="cannot be read") as caught:
        read_env_file(tmp_path / "none.env")
    assert "vllm-resolve-model" in str(caught.value.hint)
