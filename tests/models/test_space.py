from pathlib import Path

import pytest

from garrison.base.errors import DiskFullError
from garrison.models.files.space import require_space

MIB = 1024 * 1024


def test_what_is_missing_is_the_reserve(tmp_path: Path) -> None:
    """More is free than is needed, and still too little: the message has to say why."""
    with pytest.raises(DiskFullError) as caught:
        require_space(tmp_path, 10 * MIB, free=lambda _: 50 * MIB)
    assert "besides a reserve of 64.0 MiB" in caught.value.message
    assert caught.value.details["reserve_bytes"] == 64 * MIB
    require_space(tmp_path, 10 * MIB, free=lambda _: 74 * MIB)
