"""Output that is made to be slow to read: each of these took minutes, or for ever."""

import pytest

from garrison.engines.diagnose import LOG_LINES, diagnose
from garrison.engines.help.describe import catalogue_from_help
from garrison.engines.phases import phase_of
from garrison.engines.version import parse_version

PIECES = [
    "lib.so.so",
    "liblib",
    "[METAL]",
    "failed to allocate ",
    "Model architectures ['a'",
    "Insufficient space in x for ",
    "error: argument x",
    "version `GLIBC_",
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", PIECES)
def test_the_log_of_an_engine_that_died(piece: str) -> None:
    assert diagnose([(piece * 9000)[:64_000]] * LOG_LINES, 1) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["1", " ", "Capturing CUDA graphs", "Compiling a graph for compile range "])
def test_a_line_of_a_start(piece: str) -> None:
    line = "Capturing CUDA graphs" + (piece * 64_000)[:64_000]
    assert phase_of("vllm", line) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("output", ["1" + "a" * 60_000 + "!", "1" + "a.-+" * 10_000 + "!"])
def test_a_version_that_is_none(output: str) -> None:
    assert parse_version(output) is None


@pytest.mark.timeout(10)
def test_a_build_with_more_digits_than_python_reads() -> None:
    assert parse_version("version: " + "7" * 60_000 + " (") == "7" * 18


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu", "1.0rc1", "0.1.dev5+gabc.d2025", "0.32.0.post1-beta"])
def test_versions_are_read_as_before(version: str) -> None:
    assert parse_version(f"INFO: starting\n{version}\n") == version


@pytest.mark.timeout(10)
@pytest.mark.parametrize("help", [" " * 60_000 + "x", "(default: (" * 6000])
def test_a_help_text(help: str) -> None:
    (option,) = catalogue_from_help("vllm", "1", f"options:\n  --flag X  {help}").options
    assert option.flag == "--flag"


NO_NUMBERS = [
    "Free memory on device cuda (1.0/0.00 GiB) on startup is less than desired GPU memory utilization (0.9",
    "Free memory on device cuda (1.0.0/2 GiB) on startup is less than desired GPU memory utilization (0.9",
    "User-specified max_model_len (1) is greater than the derived max_model_len (x=" + "9" * 1800 + ")",
]


@pytest.mark.parametrize("line", NO_NUMBERS)
def test_a_figure_that_is_none_spoils_no_diagnosis(line: str) -> None:
    found = diagnose([line, "CUDA out of memory"], 1)
    assert found is not None
    assert found.cause == "gpu-memory"
