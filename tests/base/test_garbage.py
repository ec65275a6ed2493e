import gc

from garrison.base.garbage import keep_out_of_collections


def test_what_is_alive_is_visited_no_more_and_still_freed():
    kept = [[] for _ in range(1000)]
    try:
        keep_out_of_collections()
        assert gc.get_freeze_count() > 1000
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(one is kept for one in gc.get_objects())
