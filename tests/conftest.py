"""Tests keep their caches to themselves: indices of trees in temporary folders must not pile up in the user's. They
receive Ctrl-C, which jobs in the background of a script ignore, with all of their processes. And their random numbers
do not depend on the tests before them."""

import atexit
import os
import random
import shutil
import signal
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import settings

_CACHE = tempfile.mkdtemp(prefix="utnet-cache-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["UTNET_CACHE"] = _CACHE
settings.register_profile("utnet", derandomize=True, database=None, deadline=None)
settings.load_profile("utnet")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    _seed(0)  # for fixtures


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    _seed(1)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # libraries use it
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.fixture(scope="module")
def nothing_ships(tmp_path_factory):
    """As where no weights come with the package, so that what holds then is tested whatever ships."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utnet.weights.SHIPPED_FOLDER", tmp_path_factory.mktemp("nothing_ships"))
        yield
