import pytest

from garrison.engines.system_libraries import MISSING, remedy


@pytest.mark.parametrize(
    ("library", "step"),
    [
        ("libnuma.so.1", "apt-get install libnuma1"),
        ("libcuda.so.1", "--device cpu"),
        ("libfrob-2.1.so.7", "apt-file search libfrob-2.1.so.7"),
    ],
)
def test_each_missing_library_has_a_next_step(library: str, step: str) -> None:
    found = MISSING.search(f"ImportError: {library}: cannot open shared object file: No such file or directory")
    assert found is not None
    assert step in remedy(found[1])
