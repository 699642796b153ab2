"""Very many connections at a time: what each takes, and what is beyond the limit."""

import json
import os
import resource
import socket

import pytest

from harness import md5, read_answer, request_bytes, wait_until

WANTED = 10_000
# What an idle connection may take of the server's memory, generously.
BYTES_PER_CONNECTION = 24 * 1024
LIVE = b"GET /penstock/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def permitted():
    """How many connections the limit of open files lets this process and the server have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(WANTED, hard - 512)


def test_ten_thousand_idle_connections(new_server, record_property):
    total = permitted()
    server = new_server("--maximum-connections", total + 100).start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="q")["QueueUrl"]
    before = server.memory()
    connections = []
    try:
        for _ in range(total):
            connection = server.socket()
            connections.append(connection)
            connection.sendall(LIVE)
        for connection in connections:
            read_answer(connection)
        each = (server.memory() - before) / total
        record_property("connections", total)
        record_property("bytes per connection", round(each))
        print(f"{total} connections, {each:.0f} bytes each")
        assert each < BYTES_PER_CONNECTION
        # Over some of them, in order on each, while all are there.
        some = connections[::97]
        for n, connection in enumerate(some):
            connection.sendall(b"".join(
                request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": f"{n} {m}"})
                for m in range(5)))
        for n, connection in enumerate(some):
            for m in range(5):
                answer = json.loads(read_answer(connection))
                assert answer["MD5OfMessageBody"] == md5(f"{n} {m}")
        assert raw.counts(queue) == (5 * len(some), 0, 0)
        # All are still there.
        for connection in connections:
            connection.sendall(LIVE)
        for connection in connections:
            read_answer(connection)
    finally:
        for connection in connections:
            connection.close()
    descriptors = f"/proc/{server.pid}/fd"
    wait_until(lambda: len(os.listdir(descriptors)) < 100, "the server closes them too")
    raw.ok("ListQueues")
    server.stop()


def test_those_beyond_the_limit_are_closed_at_once(new_server):
    server = new_server("--maximum-connections", 50).start()
    connections = [server.socket() for _ in range(50)]
    for connection in connections:
        connection.sendall(LIVE)
        read_answer(connection)
    for _ in range(20):
        with server.socket() as extra:
            try:
                assert extra.recv(1) == b""
            except ConnectionError:
                pass
    for connection in connections:
        connection.sendall(LIVE)
        read_answer(connection)
    connections.pop().close()

    def is_served():
        try:
            with server.socket() as connection:
                connection.sendall(LIVE)
                return read_answer(connection)
        except (AssertionError, ConnectionError):
            return None

    wait_until(is_served, "the place of one that went is free")
    for connection in connections:
        connection.close()
    server.stop()


@pytest.mark.parametrize("option", [
    ["--idle-timeout-seconds", 1], ["--request-timeout-seconds", 1]], ids=lambda o: o[0])
def test_timeouts_are_set_by_options(new_server, option):
    server = new_server(*option).start()
    with server.socket() as connection:
        if "idle" in option[0]:
            connection.sendall(LIVE)
            read_answer(connection)
        else:
            connection.sendall(b"GET / HT")
        assert connection.recv(1) == b""
    server.stop()


def test_the_largest_body_is_set_by_an_option(new_server):
    server = new_server("--maximum-body-bytes", 2048).start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="q")["QueueUrl"]
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x" * 1024)
    assert raw.call("SendMessage", QueueUrl=queue, MessageBody="x" * 2048)[0] == 413
    server.stop()


def test_a_server_is_alive_before_it_is_ready(new_server, tmp_path):
    """Asks for health from the moment that there is a port, over a start with a log to read."""
    server = new_server("--segment-size", 65536).start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="q")["QueueUrl"]
    for _ in range(100):
        raw.ok("SendMessage", QueueUrl=queue, MessageBody="x" * 5000)
    server.kill()
    server.start()
    assert f"/penstock/health/ready\npenstock is listening on {server.url}\n" in server.output
    with server.socket() as connection:
        connection.sendall(LIVE.replace(b"live", b"ready"))
        assert json.loads(read_answer(connection))["state"] == "ready"
    assert server.raw().counts(queue) == (100, 0, 0)
    server.stop()
