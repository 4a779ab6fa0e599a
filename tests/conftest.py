"""Tests keep their caches to themselves: indices of trees in temporary folders must not pile up in the user's."""

import atexit
import os
import shutil
import tempfile

_CACHE = tempfile.mkdtemp(prefix="utnet-cache-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["UTNET_CACHE"] = _CACHE
