"""A disk that is full: sends are refused in plain words, everything else goes on.

The data directory lies on a small file system of its own, and a filler file takes what the
server has left of it.
"""

import os
import subprocess

import pytest

from harness import error_of, wait_until

SIZE = 24 * 1024 * 1024
SEGMENT = 1_048_576
BODY = 10_000


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request, tmp_path):
    """An empty mounted file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        commands = [["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place]]
    else:
        image = tmp_path / "image"
        with open(image, "wb") as file:
            file.truncate(SIZE)
        commands = [["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, place]]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not installed")
        if done.returncode != 0:
            pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    yield place
    # The server has ended by now: `new_server` depends on nothing that ends later.
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def full(disk, new_server):
    server = new_server("--segment-size", SEGMENT, data_dir=disk / "data").start()
    yield Full(disk, server)
    server.kill()


class Full:
    def __init__(self, disk, server):
        self.disk = disk
        self.server = server
        self.queue = server.raw().ok(
            "CreateQueue", QueueName="full", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
        self.acknowledged = {}  # body by message id
        self.unknown = set()

    def fill(self, name, limit=None):
        """Writes a filler file of `limit` bytes, or until nothing at all is left."""
        written = 0
        with open(self.disk / name, "ab", buffering=0) as file:
            for chunk in (65536, 4096, 512, 1):
                try:
                    while limit is None or written < limit:
                        written += file.write(b"f" * chunk)
                except OSError as error:
                    assert error.errno == 28, error

    def fill_up(self):
        """Leaves neither the file system nor the server any room."""
        self.fill("filler")
        self.send_until_refused()  # what was refused before may just fit now
        self.fill("filler")

    def send(self, raw):
        """Sends one message; returns the status, and checks what a refusal says."""
        body = f"{len(self.acknowledged):08}".ljust(BODY, ".")
        status, headers, answer = raw.call("SendMessage", QueueUrl=self.queue, MessageBody=body)
        if status == 200:
            self.acknowledged[answer["MessageId"]] = body
        else:
            status, kind, code, text = error_of(status, headers, answer)
            assert status == 503, (status, kind, code, text)
            assert code and len(text) > 20, text
        return status

    def send_until_refused(self):
        raw = self.server.raw()
        for _ in range(2 * SIZE // BODY):
            if self.send(raw) != 200:
                return
        pytest.fail("more was accepted than the disk can hold")

    def receive_and_delete_everything(self):
        """Every acknowledged message comes exactly once, whole, and can be deleted."""
        raw = self.server.raw()
        assert raw.counts(self.queue) == (len(self.acknowledged), 0, 0)
        seen = {}
        while len(seen) < len(self.acknowledged):
            messages = raw.ok("ReceiveMessage", QueueUrl=self.queue,
                              MaxNumberOfMessages=10).get("Messages", [])
            assert messages, f"{len(seen)} of {len(self.acknowledged)} messages came"
            for message in messages:
                assert message["MessageId"] not in seen
                seen[message["MessageId"]] = message["Body"]
            answer = raw.ok("DeleteMessageBatch", QueueUrl=self.queue, Entries=[
                {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]}
                for n, m in enumerate(messages)])
            assert len(answer["Successful"]) == len(messages), answer
        assert seen == self.acknowledged
        assert raw.counts(self.queue) == (0, 0, 0)
        self.acknowledged.clear()


def test_sends_are_refused_while_the_disk_is_full_and_work_again_after(full):
    full.fill("filler", SIZE // 2)
    full.send_until_refused()
    assert len(full.acknowledged) > 100
    full.fill_up()
    raw = full.server.raw()
    assert raw.ok("ListQueues")["QueueUrls"] == [full.queue]
    assert raw.counts(full.queue) == (len(full.acknowledged), 0, 0)
    (full.disk / "filler").unlink()
    wait_until(lambda: full.send(raw) == 200, "sends work again with half of the disk free")
    for _ in range(50):
        assert full.send(raw) == 200
    full.receive_and_delete_everything()
    full.server.stop()


@pytest.mark.parametrize("end", [None, "stop", "kill"])
def test_a_full_disk_can_be_drained(full, end):
    full.fill("filler", SIZE // 3)
    full.send_until_refused()
    assert len(full.acknowledged) > 100
    full.fill_up()
    if end:
        full.server.restart(end)
        full.fill_up()
    full.receive_and_delete_everything()
    if end:
        full.fill("filler")
        full.server.restart(end)
    raw = full.server.raw()
    assert raw.counts(full.queue) == (0, 0, 0)
    (full.disk / "filler").unlink()
    # The server looks for space once a second, so a refusal in between is no error.
    for _ in range(200):
        wait_until(lambda: full.send(raw) == 200, "sends work again")
    full.receive_and_delete_everything()
    full.server.stop()


def test_a_full_disk_can_be_drained_one_message_at_a_time(full):
    full.fill("filler", SIZE // 3)
    full.send_until_refused()
    full.fill_up()
    raw = full.server.raw()
    for _ in range(len(full.acknowledged)):
        [message] = raw.ok("ReceiveMessage", QueueUrl=full.queue)["Messages"]
        assert full.acknowledged.pop(message["MessageId"]) == message["Body"]
        raw.ok("DeleteMessage", QueueUrl=full.queue, ReceiptHandle=message["ReceiptHandle"])
    assert raw.counts(full.queue) == (0, 0, 0)
    full.server.stop()
