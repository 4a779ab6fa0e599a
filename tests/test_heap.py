"""Freed memory: returned while networks are loaded, kept afterwards."""

import subprocess
import sys

import pytest

RESIDENT = """
import mmap
import numpy as np
from utnet.heap import begin_loading, end_loading, return_free_pages

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE

{setting}()
before = resident()
blocks = [np.ones(200_000) for _ in range(64)]  # 1.6 MB each
last = np.ones(20_000)  # above them: what lies below cannot be trimmed
del blocks
{then}
print((resident() - before) // 2**20)
"""


def test_a_process_that_is_not_ours_keeps_its_garbage_collection():
    script = """
import gc
from utnet.heap import begin_loading, end_loading
gc.set_threshold(123, 4, 5)
end_loading()
assert gc.get_threshold() == (123, 4, 5) and not gc.get_freeze_count()
begin_loading()
begin_loading()
assert gc.get_threshold()[0] > 10_000
end_loading()
assert gc.get_threshold() == (123, 4, 5) and gc.get_freeze_count()
gc.unfreeze()
end_loading()
assert not gc.get_freeze_count()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and the heap is glibc's")
@pytest.mark.parametrize(
    ("setting", "then", "low", "high"),
    [
        ("begin_loading", "", -10, 10),
        ("end_loading", "", 5, 110),
        ("end_loading", "return_free_pages()", 5, 110),  # another program's process
        ("begin_loading(); end_loading", "return_free_pages()", -10, 10),
    ],
)
def test_large_blocks_are_returned_or_kept(setting, then, low, high):
    script = RESIDENT.format(setting=setting, then=then)
    left = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert low <= int(left) <= high
