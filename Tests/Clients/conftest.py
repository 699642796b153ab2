"""Fixtures: servers in fresh directories, clients for them, the AWS command line."""

import itertools
import json
import os
import shutil
import subprocess

import pytest

pytest.register_assert_rewrite("harness")

from harness import COMMAND, DEADLINE, Server  # noqa: E402 (after the line above)

_queue_numbers = itertools.count(1)


def pytest_sessionstart(session):
    # Nothing of the caller's account, region, profile or proxy may leak into the clients.
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true", AWS_PAGER="", NO_PROXY="*")
    if not session.config.option.collectonly and shutil.which(COMMAND[0]) is None:
        pytest.exit(f"no server at {COMMAND[0]}: build it, or set PENSTOCK", returncode=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for the tests of a module that only talk to it."""
    server = Server(tmp_path_factory.mktemp("data")).start()
    yield server
    assert server.running, f"the server ended by itself:\n{server.output}"
    server.stop()


@pytest.fixture
def new_server(tmp_path):
    """Makes servers for tests that stop, kill or starve them; ends what still runs."""
    servers = []

    def make(*options, data_dir=tmp_path / "data", **settings):
        servers.append(Server(data_dir, *options, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def sqs(server):
    return server.sqs()


@pytest.fixture
def raw(server):
    raw = server.raw()
    yield raw
    raw.close()


@pytest.fixture
def name():
    """A queue name that no other test uses."""
    return f"queue-{next(_queue_numbers)}"


@pytest.fixture
def queue(sqs, name):
    """The URL of a fresh queue with default attributes."""
    return sqs.create_queue(QueueName=name)["QueueUrl"]


@pytest.fixture
def aws(server):
    """Runs `aws sqs …`: returns the parsed answer, or (exit code, error text) if it must fail."""
    return command_line("--endpoint-url", server.url)


def command_line(*options, **env):
    """An `aws` as the fixture, with other options and variables."""
    def run(*words, fails=False):
        result = start(*words)
        out, err = result.communicate(timeout=DEADLINE)
        if fails:
            assert result.returncode != 0, out
            return result.returncode, err
        assert result.returncode == 0, err
        return json.loads(out) if out.strip() else {}

    def start(*words):
        command = ["aws", *options, "--output", "json", "sqs", *words]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", **env})

    run.start = start
    return run
