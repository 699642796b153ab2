"""Encryption at rest: no file has what was sent, keys may be added while the server runs, and
without the right keys nothing is taken, nothing given out and nothing lost.
"""

import base64
import os

import pytest

from harness import drain, receive, replace_file, wait_until
from test_rules_access import encryption
from test_rules_queues import change

MARK = "a-text-that-is-nowhere-else-"
ATTRIBUTES = {"secretName7163": {"DataType": "String", "StringValue": MARK + "attribute"},
              "blob": {"DataType": "Binary.secretType8812",
                       "BinaryValue": (MARK + "blob").encode()}}
# Texts as they are, and as the wire and JSON might have left them.
SEALED = [MARK, "secretName7163", "secretType8812",
          base64.b64encode((MARK + "blob").encode()).decode()[:24]]
NOT_FOUND, OTHER_KEY = "KMS.NotFoundException", "KMS.InvalidKeyUsageException"


def line(name, version=1):
    return f"{name} {version} {base64.b64encode(os.urandom(32)).decode()}\n"


@pytest.fixture
def ring(tmp_path):
    """A key ring whose lines can be changed; the file is written by `write`."""
    class Ring:
        path = tmp_path / "ring"
        managed, orders = line("sqs-managed"), line("orders")

        def write(self, *lines):
            replace_file(self.path, "# keys of a test\n" + "".join(lines))
            return self.path

    ring = Ring()
    ring.write(ring.managed, ring.orders)
    return ring


@pytest.fixture
def server(new_server, ring):
    return new_server("--key-ring", ring.path).start()


def send(sqs, queue, number=0, **more):
    return sqs.send_message(QueueUrl=queue, MessageBody=f"{MARK}{number}",
                            MessageAttributes=ATTRIBUTES, **more)


def files_with(server, text):
    """The files of the data directory in which a text is."""
    return [path.name for path in server.data_dir.rglob("*")
            if path.is_file() and text.encode() in path.read_bytes()]


def code(client, call, **arguments):
    with pytest.raises(client.exceptions.ClientError) as refusal:
        call(**arguments)
    answer = refusal.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    return answer["Error"]["Code"]


def test_no_file_has_what_was_sent(server):
    sqs = server.sqs()
    kms = {"KmsMasterKeyId": "orders"}
    queues = [sqs.create_queue(QueueName="managed")["QueueUrl"],
              sqs.create_queue(QueueName="kms", Attributes=kms)["QueueUrl"],
              sqs.create_queue(QueueName="f.fifo", Attributes={
                  "FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]]
    for queue in queues:
        more = {"MessageGroupId": "visibleGroup"} if queue.endswith("fifo") else {}
        for number in range(20):
            send(sqs, queue, number, **more)
        sqs.send_message_batch(QueueUrl=queue, Entries=[
            {"Id": "a", "MessageBody": MARK + "batch", "MessageAttributes": ATTRIBUTES, **more}])
    # The look is at the right files: what is not sealed is there.
    assert files_with(server, "visibleGroup")
    for text in SEALED:
        assert files_with(server, text) == []
    server.restart()
    server.restart("kill")
    sqs = server.sqs()
    for queue in queues:
        path = queue.rsplit("/", 2)[1:]
        url = f"{server.url}/{path[0]}/{path[1]}"
        got = drain(sqs, url, 21)
        assert all(m["Body"].startswith(MARK) for m in got)
        assert all(m["MessageAttributes"] == ATTRIBUTES for m in got)
    for text in SEALED:
        assert files_with(server, text) == [] and text not in server.output


def test_without_a_ring_files_have_it_all(new_server):
    server = new_server().start()
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"SqsManagedSseEnabled": "true"})["QueueUrl"]
    send(sqs, queue)
    assert files_with(server, MARK)
    server.restart()
    assert "none" in encryption_line(server)
    assert "said to be encrypted and not: q" in server.output


def encryption_line(server):
    return next(each for each in server.lines if each.startswith("  encryption"))


def test_new_queues_are_encrypted_when_there_is_a_key_for_it(server, new_server, ring, tmp_path):
    sqs = server.sqs()
    assert str(ring.path) in encryption_line(server)
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    assert encryption(sqs, queue) == ("true", None, None)
    off = sqs.create_queue(
        QueueName="off", Attributes={"SqsManagedSseEnabled": "false"})["QueueUrl"]
    assert encryption(sqs, off) == ("false", None, None)
    send(sqs, off)
    assert files_with(server, MARK)
    # A ring without that key changes nothing by itself.
    ring.write(ring.orders)
    other = new_server("--key-ring", ring.path, data_dir=tmp_path / "other").start()
    sqs = other.sqs()
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    assert encryption(sqs, queue) == ("false", None, None)


def test_a_key_of_the_ring_by_its_name(server):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={
        "KmsMasterKeyId": "orders", "KmsDataKeyReusePeriodSeconds": "60"})["QueueUrl"]
    assert encryption(sqs, queue) == ("false", "orders", "60")
    send(sqs, queue)
    change(sqs, queue, SqsManagedSseEnabled="true")
    send(sqs, queue)
    change(sqs, queue, KmsMasterKeyId="orders")
    send(sqs, queue)
    assert files_with(server, MARK) == []
    # What is sent from now on is in the clear; what was sealed stays so.
    change(sqs, queue, KmsMasterKeyId="")
    assert encryption(sqs, queue) == ("false", None, None)
    sqs.send_message(QueueUrl=queue, MessageBody="in-the-clear-5521")
    assert files_with(server, MARK) == [] and files_with(server, "in-the-clear-5521")
    assert len(drain(sqs, queue, 4)) == 4


def test_a_key_that_is_not_in_the_ring(server):
    sqs = server.sqs()
    # As on the real service the name is not looked at before it is needed.
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "unknown"})["QueueUrl"]
    assert code(sqs, sqs.send_message, QueueUrl=queue, MessageBody=MARK) == NOT_FOUND
    assert receive(sqs, queue) == [] and files_with(server, MARK) == []
    change(sqs, queue, KmsMasterKeyId="orders")
    send(sqs, queue)
    assert len(drain(sqs, queue, 1)) == 1


def test_a_batch_without_its_key_writes_nothing(server):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "unknown"})["QueueUrl"]
    entries = [{"Id": str(n), "MessageBody": MARK} for n in range(3)]
    assert code(sqs, sqs.send_message_batch, QueueUrl=queue, Entries=entries) == NOT_FOUND
    assert receive(sqs, queue) == [] and files_with(server, MARK) == []


def test_a_key_is_rotated_while_the_server_runs(server, ring):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "orders"})["QueueUrl"]
    late = sqs.create_queue(QueueName="late", Attributes={"KmsMasterKeyId": "late"})["QueueUrl"]
    send(sqs, queue, 1)
    newer = line("orders", 2)
    ring.write(ring.managed, ring.orders, newer, line("late"))

    def taken():
        try:
            return send(sqs, late)
        except sqs.exceptions.ClientError as refusal:
            assert refusal.response["Error"]["Code"] == NOT_FOUND

    wait_until(taken, "a key that was added")
    send(sqs, queue, 2)
    bodies = {m["Body"] for m in drain(sqs, queue, 2)}
    assert bodies == {MARK + "1", MARK + "2"} and len(drain(sqs, late, 1)) == 1
    # What was sealed before the change needs the old version, what came after it the new one.
    send(sqs, queue, 3)
    server.stop()
    ring.write(ring.managed, newer)
    server.start()
    [message] = drain(server.sqs(), queue_url(server, "q"), 1)
    assert message["Body"] == MARK + "3"


def queue_url(server, name):
    return f"{server.url}/000000000000/{name}"


def test_a_ring_that_lost_a_key_is_not_taken(server, ring):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "orders"})["QueueUrl"]
    send(sqs, queue)
    for lines in ([ring.managed], [ring.managed, line("orders")], ["nonsense\n"], []):
        seen = server.output.count("was not taken")
        ring.write(*lines)
        wait_until(lambda: server.output.count("was not taken") > seen, "a word about the ring")
    assert "orders 1 is gone or is another" in server.output
    for text in (ring.orders, ring.managed):
        assert text.split()[2] not in server.output
    send(sqs, queue)
    assert len(drain(sqs, queue, 2)) == 2


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("loss, expected", [
    ("no ring", NOT_FOUND), ("without the key", NOT_FOUND), ("another key", OTHER_KEY)])
def test_without_the_key_nothing_is_taken_given_out_or_lost(
        server, new_server, ring, loss, expected, end):
    sqs = server.sqs()
    for name in ("q", "gone"):
        sqs.create_queue(QueueName=name, Attributes={
            "KmsMasterKeyId": "orders", "VisibilityTimeout": "0"})
    plain = sqs.create_queue(QueueName="plain", Attributes={"SqsManagedSseEnabled": "false"})
    fifo = {"FifoQueue": "true", "KmsMasterKeyId": "orders", "ContentBasedDeduplication": "true",
            "VisibilityTimeout": "0"}
    sqs.create_queue(QueueName="f.fifo", Attributes=fifo)
    sent = {send(sqs, queue_url(server, "q"), number)["MessageId"] for number in range(5)}
    for number in range(3):
        send(sqs, queue_url(server, "f.fifo"), number, MessageGroupId="g")
    send(sqs, plain["QueueUrl"])
    getattr(server, end)()

    lines = {"no ring": [], "without the key": [ring.managed],
             "another key": [ring.managed, line("orders")]}[loss]
    options = ("--key-ring", ring.write(*lines)) if lines else ()
    locked = new_server(*options).start()
    sqs = locked.sqs()
    if loss != "another key":
        assert "no key, so no sends and receives: " in locked.output
        assert "q (orders)" in locked.output and "f.fifo (orders)" in locked.output
        assert "plain (" not in locked.output
        assert code(sqs, sqs.send_message, QueueUrl=queue_url(locked, "q"),
                    MessageBody="m") == NOT_FOUND
    assert ("none" in encryption_line(locked)) == (loss == "no ring")
    for name in ("q", "f.fifo"):
        for wait in (0, 1):
            assert code(sqs, sqs.receive_message, QueueUrl=queue_url(locked, name),
                        MaxNumberOfMessages=10, WaitTimeSeconds=wait) == expected
    assert len(drain(sqs, queue_url(locked, "plain"), 1)) == 1
    assert MARK not in locked.output
    locked.stop()

    ring.write(ring.managed, ring.orders)
    server.start()
    assert "no key" not in server.output
    sqs = server.sqs()
    got = drain(sqs, queue_url(server, "q"), 5)
    assert {m["MessageId"] for m in got} == sent
    assert sorted(m["Body"] for m in got) == [f"{MARK}{number}" for number in range(5)]
    assert all(m["MessageAttributes"] == ATTRIBUTES for m in got)
    bodies = [m["Body"] for m in drain(sqs, queue_url(server, "f.fifo"), 3)]
    assert bodies == [f"{MARK}{number}" for number in range(3)]


def test_messages_that_open_come_past_those_that_do_not(server, new_server, ring):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "orders"})["QueueUrl"]
    send(sqs, queue)
    change(sqs, queue, KmsMasterKeyId="")
    sqs.send_message(QueueUrl=queue, MessageBody="clear")
    server.stop()
    other = new_server("--key-ring", ring.write(ring.managed)).start()
    sqs = other.sqs()
    got = receive(sqs, queue_url(other, "q"), MaxNumberOfMessages=10)
    assert [m["Body"] for m in got] == ["clear"]


@pytest.mark.parametrize("text", [
    "", "orders 1\n", "orders 0 " + "A" * 43 + "=\n", "orders 1 c2VjcmV0S2V5Tm90MzI=\n"])
def test_a_ring_that_cannot_be_read_is_an_error_at_the_start(new_server, ring, text):
    replace_file(ring.path, text)
    server = new_server("--key-ring", ring.path).spawn()
    assert server.process.wait(60) != 0
    server.reader.join(60)
    assert "key ring" in server.output and str(ring.path) in server.output
    assert "c2VjcmV0S2V5" not in server.output


def test_the_keys_are_in_no_file_and_in_no_word(server, ring):
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="q", Attributes={"KmsMasterKeyId": "orders"})["QueueUrl"]
    send(sqs, queue)
    server.restart()
    for text in (ring.managed, ring.orders):
        key = text.split()[2]
        raw = base64.b64decode(key)
        assert key not in server.output and files_with(server, key) == []
        assert not any(raw in path.read_bytes()
                       for path in server.data_dir.rglob("*") if path.is_file())
