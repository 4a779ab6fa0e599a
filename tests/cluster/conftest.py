"""A Ray of two nodes and an S3 server, both on this machine: `make test-cluster`."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

if not os.environ.get("UTNET_TEST_CLUSTER"):
    collect_ignore_glob = ["test_*.py"]


TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="session")
def s3():
    """The server; workers that are started later find it by their environment."""
    from support.s3_server import S3Server

    with S3Server().running() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield server


@pytest.fixture
def bucket(s3, request):
    """The URL of a new bucket."""
    import s3fs

    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-")
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def nodes(s3):
    """A cluster with a head and another node, one core each."""
    from ray.cluster_utils import Cluster

    from support.bulk_work import NODE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else 15: a busy machine gives its workers nothing
        patch.setenv("PYTHONPATH", os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")]))  # for `support`
        folder = tempfile.mkdtemp(prefix="ray-")  # not pytest's: paths of its sockets must be short
        patch.setenv("RAY_TMPDIR", folder)
        try:
            head = {**NODE, "include_dashboard": False}
            cluster = Cluster(initialize_head=True, head_node_args=head)
            cluster.add_node(**NODE)
            yield cluster
            cluster.shutdown()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
