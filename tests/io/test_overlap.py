"""Threads that read ahead and write behind: the same items in the same order, and no error lost."""

import threading

import pytest

from utnet.io.overlap import read_ahead, write_behind


def test_items_come_in_order_and_few_are_read_too_early():
    made = []

    def items():
        for i in range(20):
            made.append((i, threading.current_thread() is threading.main_thread()))
            yield i

    with read_ahead(items(), depth=3) as ahead:
        for i, item in enumerate(ahead):
            assert item == i
            assert len(made) <= i + 4
    assert made == [(i, False) for i in range(20)]


def test_errors_of_an_item_come_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("two")

    with read_ahead(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(KeyError, match="two"):
            next(ahead)


def test_a_block_that_is_left_early_leaves_no_thread():
    with read_ahead(range(1000)) as ahead:
        assert next(ahead) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("utnet-ahead")]


def test_calls_run_in_order_and_are_done_at_the_end():
    done = []
    with write_behind(lambda a, b: done.append((a, b))) as write:
        for i in range(50):
            write(i, -i)
    assert done == [(i, -i) for i in range(50)]


def test_an_error_of_a_call_is_raised_once_and_hides_none_of_the_block():
    def fails(error):
        raise error

    def block(own):
        with write_behind(fails) as write:
            write(OSError("call"))
            if own:
                raise KeyError("own")

    with pytest.raises(OSError, match="call"):
        block(own=False)
    with pytest.raises(KeyError, match="own"):
        block(own=True)
