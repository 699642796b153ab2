"""The process itself: signals, one owner per directory, and errors that say what to do."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness import COMMAND, DEADLINE, Raw, read_answer, request_bytes, wait_until


def run(*words):
    """Runs a command that must fail by itself; returns its exit code and all of its output."""
    done = subprocess.run([*COMMAND, *map(str, words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=DEADLINE)
    assert done.returncode > 0, (done.returncode, done.stdout)
    # A message for people: neither a crash report nor silence.
    assert done.stdout.strip()
    assert "Fatal error" not in done.stdout and "listening on" not in done.stdout
    return done.returncode, done.stdout


def serve(data_dir, host="127.0.0.1", port=0, *more):
    return run("serve", "--data-dir", data_dir, "--host", host, "--port", port, *more)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
def test_a_signal_answers_long_polls_and_ends_with_success(new_server, by):
    server = new_server().start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="polled")["QueueUrl"]
    polls = [server.socket() for _ in range(5)]
    for poll in polls:
        poll.sendall(request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20}))
    time.sleep(0.3)  # nothing tells when a poll has begun to wait
    started = time.monotonic()
    server.process.send_signal(by)
    for poll in polls:
        assert json.loads(read_answer(poll)) == {}
    assert server.process.wait(DEADLINE) == 0
    # Idle connections (`raw` is one) hold nothing up, and the polls did not run out by themselves.
    assert time.monotonic() - started < 15
    for poll in polls:
        poll.close()


def test_what_was_sent_before_the_signal_is_there_after_it(new_server):
    server = new_server().start()
    queue = server.raw().ok("CreateQueue", QueueName="kept")["QueueUrl"]
    connection = server.socket()
    count = 200
    connection.sendall(b"".join(
        request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": str(n)})
        for n in range(count)))
    read_answer(connection)
    server.process.send_signal(signal.SIGTERM)
    answered = 1
    try:
        while answered < count:
            read_answer(connection)
            answered += 1
    except (AssertionError, ConnectionError):
        pass  # what was not begun may be dropped, unanswered
    connection.close()
    server.stop()
    server.start()
    assert answered <= server.raw().counts(queue)[0] <= count
    server.stop()


def test_a_second_process_on_the_same_directory_is_refused(new_server):
    server = new_server().start()
    queue = server.raw().ok("CreateQueue", QueueName="owned")["QueueUrl"]
    _, text = serve(server.data_dir)
    assert str(server.data_dir) in text or "lock" in text.lower()
    server.raw().ok("SendMessage", QueueUrl=queue, MessageBody="undisturbed")
    # A lock does not outlive its process, however that ended.
    server.restart("kill")
    assert server.raw().counts(queue) == (1, 0, 0)
    server.stop()


def test_a_port_in_use_is_named(new_server, tmp_path):
    server = new_server().start()
    _, text = serve(tmp_path / "other", "127.0.0.1", server.port)
    assert str(server.port) in text or "in use" in text.lower()
    server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_address_needs_credentials(tmp_path, host):
    _, text = serve(tmp_path / "data", host)
    assert "--credentials" in text
    assert not (tmp_path / "data").exists()


def test_a_server_is_alive_before_its_store_is_open(tmp_path, new_server):
    """The store's file is a pipe, which can be opened when somebody writes: so long it opens."""
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "STORE")
    server = new_server().spawn()
    pattern = r"opens .*: http://127\.0\.0\.1:(\d+)/penstock/health/ready"
    found = wait_until(lambda: re.search(pattern, server.output), "it listens")
    raw = Raw(int(found[1]))
    for path, status, state in (("live", 200, "live"), ("ready", 503, "opening")):
        raw.connection.request("GET", f"/penstock/health/{path}")
        response = raw.connection.getresponse()
        assert (response.status, json.loads(response.read())["state"]) == (status, state)
    assert raw.error("ListQueues")[:3] == (
        503, "com.amazon.coral.service#ServiceUnavailable", "ServiceUnavailable")
    assert "listening on" not in server.output
    with open(data / "STORE", "wb"):
        code = server.process.wait(DEADLINE)
    assert code > 0
    wait_until(lambda: "cannot open the store in" in server.output, "it says why it ended")


def test_a_file_in_the_place_of_the_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        _, text = serve(place)
        assert str(file) in text
    assert file.read_text() == "mine"


def test_a_directory_that_cannot_be_made_or_written(tmp_path):
    # Not even root can make a directory there.
    _, text = serve("/proc/penstock")
    assert "/proc/penstock" in text


@pytest.mark.parametrize("words", [
    ["serve", "--no-such-flag"], ["no-such-command"], ["serve", "--port", "many"],
    ["serve", "--port", "65536"], ["serve", "--port", "-1"], ["serve", "--segment-size", "0"],
    ["serve", "--data-dir"], ["serve", "stray"],
], ids=" ".join)
def test_wrong_words_on_the_command_line(tmp_path, words):
    if words[0] == "serve" and words[1:] != ["--data-dir"]:
        words = words + ["--data-dir", tmp_path / "data"]
    _, text = run(*words)
    named = words[0] if words[0] != "serve" else words[1]
    assert "usage" in text.lower() or named in text
    assert not (tmp_path / "data").exists()


def test_the_startup_block_names_directory_and_address(new_server):
    server = new_server().start()
    assert re.search(r"listening on http://127\.0\.0\.1:\d+", server.output)
    assert str(server.data_dir) in server.output
    server.stop()
