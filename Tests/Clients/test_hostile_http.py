"""Clients that are broken or mean no good: each gets an answer or a closed connection.

After every test the server must be alive and serve others as before, in bounded memory.
"""

import json
import os
import random
import re
import resource
import socket
import struct

import pytest

from harness import Background, error_of, md5, read_answer, request_bytes, wait_until

MEBIBYTE = 1024 * 1024
FRAMEWORK = "com.amazon.coral.service#"
MALFORMED = (400, FRAMEWORK + "SerializationException", "MalformedInput")
UNKNOWN = (400, FRAMEWORK + "UnknownOperationException", "InvalidAction")


@pytest.fixture(autouse=True)
def still_serving(server, raw, queue):
    """Checks after each test that the same process goes on as if nothing had happened."""
    pid = server.pid
    yield
    assert server.running and server.pid == pid, server.output
    fresh = server.raw()
    sent = fresh.ok("SendMessage", QueueUrl=queue, MessageBody="still here")
    while True:
        [message] = fresh.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
        fresh.ok("DeleteMessage", QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        if message["MessageId"] == sent["MessageId"]:
            break
    fresh.close()
    assert server.memory() < 512 * MEBIBYTE


def send_all(connection, data):
    """Sends as much as the server takes; returns whether it took everything."""
    try:
        connection.sendall(data)
        return True
    except (ConnectionError, socket.timeout):
        return False


def end_of_input(connection):
    """Tells the server that nothing more comes, so that it need not wait for the rest."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def outcome(connection):
    """The status of the next answer, or None if the connection was closed without one."""
    data = b""
    try:
        while b"\r\n" not in data:
            more = connection.recv(4096)
            if not more:
                return None
            data += more
    except ConnectionError:
        return None
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", data)
    assert found, data[:200]
    return int(found[1])


def exchange(server, data):
    with server.socket() as connection:
        send_all(connection, data)
        return outcome(connection)


def post(*headers, body=b""):
    """The bytes of a POST with exactly these headers besides Host."""
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", *headers]).encode() + b"\r\n\r\n" + body


# Sizes


def test_a_body_of_100_megabytes_is_refused_and_not_collected(server):
    before = server.memory("VmHWM")
    with server.socket() as connection:
        send_all(connection, post("Content-Type: application/x-amz-json-1.0",
                                  "X-Amz-Target: AmazonSQS.SendMessage",
                                  f"Content-Length: {100 * MEBIBYTE}"))
        chunk = b"a" * MEBIBYTE
        for _ in range(100):
            if not send_all(connection, chunk):
                break
        assert outcome(connection) in (None, 400, 413)
    assert server.memory("VmHWM") - before < 96 * MEBIBYTE


def test_a_chunked_body_without_end_is_refused_and_not_collected(server):
    before = server.memory("VmHWM")
    with server.socket() as connection:
        send_all(connection, post("Content-Type: application/x-amz-json-1.0",
                                  "X-Amz-Target: AmazonSQS.SendMessage",
                                  "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + b"a" * MEBIBYTE + b"\r\n"
        for _ in range(200):
            if not send_all(connection, chunk):
                break
        else:
            pytest.fail("200 MiB were taken from a body without end")
        assert outcome(connection) in (None, 400, 413)
    assert server.memory("VmHWM") - before < 96 * MEBIBYTE


def test_a_chunked_body_of_usual_size_is_fine(server, queue):
    body = json.dumps({"QueueUrl": queue, "MessageBody": "in pieces"}).encode()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[n:n + 7]), body[n:n + 7])
                      for n in range(0, len(body), 7))
    assert exchange(server, post("Content-Type: application/x-amz-json-1.0",
                                 "X-Amz-Target: AmazonSQS.SendMessage",
                                 "Transfer-Encoding: chunked", body=pieces + b"0\r\n\r\n")) == 200


@pytest.mark.parametrize("headers", [
    ["X-Big: " + "a" * 4 * MEBIBYTE], [f"X-{n}: {n}" for n in range(200_000)],
    ["X-" + "a" * MEBIBYTE + ": 1"],
], ids=["value", "count", "name"])
def test_huge_headers_are_refused(server, headers):
    assert exchange(server, post(*headers, "Content-Length: 0")) in (None, 400, 413, 431)


def test_a_huge_request_line_is_refused(server):
    data = b"GET /" + b"a" * 4 * MEBIBYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(server, data) in (None, 400, 413, 414, 431)


# Framing


def test_requests_that_break_off(server, queue):
    whole = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "never complete"})
    for length in range(0, len(whole), 7):
        with server.socket() as connection:
            connection.sendall(whole[:length])
    counts = server.raw().counts(queue)
    assert counts == (0, 0, 0)


def test_slow_clients_do_not_slow_down_others(server, raw, queue):
    whole = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "slow"})
    slow = [server.socket() for _ in range(200)]
    try:
        for n, connection in enumerate(slow):
            connection.sendall(whole[:n % len(whole)])
        for n in range(20):
            raw.ok("SendMessage", QueueUrl=queue, MessageBody="fast")
        # A slow request is complete at some time, and then it counts.
        last = slow[0]
        for n in range(len(whole)):
            last.sendall(whole[n:n + 1])
        assert json.loads(read_answer(last))["MD5OfMessageBody"] == md5("slow")
    finally:
        for connection in slow:
            connection.close()
    raw.ok("PurgeQueue", QueueUrl=queue)


@pytest.mark.parametrize("data", [
    b"\0" * 4096, random.Random(1).randbytes(65536), b"\r\n" * 5000, b"hello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 512,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"POST / HTTP/9.9\r\nHost: x\r\n\r\n", b"POST\r\n\r\n",
    post("Content-Length: -1"), post("Content-Length: x"), post("Content-Length: " + "9" * 20),
    post("Content-Length: 2", "Content-Length: 3", body=b"{}"),
    post("Content-Length: 2", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    post("Transfer-Encoding: chunked", body=b"zz\r\n"),
    post("Transfer-Encoding: chunked", body=b"ffffffffffffffffff\r\n"),
    post("Bad Header: 1", "Content-Length: 0"),
    post("Content-Length: 2", "Content-Length: 2", body=b"{}"),
    post("Transfer-Encoding: chunked", "Content-Length: 2", body=b"0\r\n\r\n"),
    post("Transfer-Encoding: gzip, chunked, identity", body=b"0\r\n\r\n"),
    post("X-Folded: a", " Content-Length: 2", body=b"{}"),
    post("X: a\0b", "Content-Length: 0"), post("X: a\rb", "Content-Length: 0"),
    post("Host: y", "Content-Length: 0"),
    b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"POST http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
], ids=lambda data: repr(data[-24:]))
def test_what_is_not_http(server, data):
    with server.socket() as connection:
        send_all(connection, data)
        end_of_input(connection)
        status = outcome(connection)
        assert status is None or 400 <= status < 500 or status in (501, 505), status


def test_http_1_0_gets_an_answer_and_a_closed_connection(server, queue):
    data = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "old"})
    with server.socket() as connection:
        connection.sendall(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = b""
        while more := connection.recv(65536):
            answer += more
    assert re.match(rb"HTTP/1\.[01] 200 ", answer)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["MD5OfMessageBody"] == md5("old")


def test_connection_close_is_honoured(server, queue):
    with server.socket() as connection:
        connection.sendall(request_bytes(
            "SendMessage", {"QueueUrl": queue, "MessageBody": "x"}, headers=["Connection: close"]))
        read_answer(connection)
        assert connection.recv(1) == b""


def test_a_hundred_requests_in_one_write_are_answered_in_order(server, raw, queue):
    with server.socket() as connection:
        sends = [request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": str(n)})
                 for n in range(100)]
        connection.sendall(b"".join(sends))
        for n in range(100):
            assert json.loads(read_answer(connection))["MD5OfMessageBody"] == md5(str(n))
    assert raw.counts(queue) == (100, 0, 0)
    raw.ok("PurgeQueue", QueueUrl=queue)


def test_requests_behind_a_long_poll_and_an_error_are_answered_in_order(server, queue):
    poll = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 1})
    wrong = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 99})
    send = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "last"})
    with server.socket() as connection:
        connection.sendall(poll + wrong + send)
        answers = [json.loads(read_answer(connection, status)) for status in (200, 400, 200)]
    # If requests of a connection run side by side, the poll may see the send behind it.
    if answers[0]:
        assert [m["Body"] for m in answers[0]["Messages"]] == ["last"]
    assert answers[1]["__type"] == FRAMEWORK + "InvalidParameterValueException"
    assert answers[2]["MD5OfMessageBody"] == md5("last")
    server.raw().ok("PurgeQueue", QueueUrl=queue)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed(raw, method):
    raw.connection.request(method, "/", headers={"Content-Type": "application/x-amz-json-1.0"})
    response = raw.connection.getresponse()
    response.read()
    assert response.status == 405


def test_expect_100_continue_is_answered_before_the_body(server, queue):
    data = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "x"},
                         headers=["Expect: 100-continue"])
    head, separator, body = data.partition(b"\r\n\r\n")
    with server.socket() as connection:
        connection.sendall(head + separator)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            assert byte, answer
            answer += byte
        assert answer.startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert json.loads(read_answer(connection))["MD5OfMessageBody"] == md5("x")


def connections_to(port):
    """Sockets of the server's side that are connected or half closed, accepted or not."""
    alive = {"01", "03", "08"}  # ESTABLISHED, SYN_RECV, CLOSE_WAIT
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] in alive for row in rows)


def test_ten_thousand_connections_opened_and_dropped(server, raw, queue):
    total, slice_size = 10_000, 500
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 2 * slice_size, "raise ulimit -n"
    descriptors = f"/proc/{server.pid}/fd"
    raw.counts(queue)
    before = len(os.listdir(descriptors))
    memory = server.memory()
    request = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20})
    for start in range(0, total, slice_size):
        connections = [server.socket() for _ in range(slice_size)]
        for n, connection in enumerate(connections):
            # Some say nothing, some say half of something, some begin a long poll.
            connection.sendall((b"", request[:40], request)[n % 3])
            if n % 2:  # some say goodbye by a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    # Also those that still wait to be accepted: their requests are read before their end is seen.
    wait_until(lambda: connections_to(server.port) <= 2, "the kernel has handed over all of them")
    wait_until(lambda: len(os.listdir(descriptors)) <= before + 10, "the server closes them too")
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="not taken by a dead poll")
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    raw.ok("DeleteMessage", QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert server.memory() - memory < 128 * MEBIBYTE


# JSON


@pytest.mark.parametrize("body", [
    b"{", b"}", b"[]", b'"text"', b"5", b"true", b"nul", b"{'a':1}", b'{"a":}', b'{"a" 1}',
    b'{"a":1,}', b'{"a":01}', b'{"a":1} x', b'{"a":"\\q"}', b'{"a":"\\u12"}', b'{"a":"\n"}',
    b'{"a":"\0"}', b"\0", b"\xff\xfe{\0}\0", b'{"a":"\xff"}', b'{"a":"\xc0\x80"}',
    b'{"a":"\xed\xa0\x80"}', b"{\"a\":\"" + b"x" * 100_000,
], ids=lambda body: repr(body[:16]))
def test_malformed_json(raw, body):
    status, headers, answer = raw.post(body, "AmazonSQS.ListQueues")
    assert error_of(status, headers, json.loads(answer))[:3] == MALFORMED


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"QueueUrl":[', b'[{"a":'])
def test_deep_nesting(raw, queue, opening):
    depth = 100_000
    closing = b"".join({b"[": b"]", b"{": b"}"}[bytes([c])] for c in reversed(opening)
                       if c in b"[{")
    for body in (opening * depth, opening * depth + b"1" + closing * depth):
        status, headers, answer = raw.post(body, "AmazonSQS.SendMessage")
        assert error_of(status, headers, json.loads(answer))[0] == 400
    # Inside a member that is otherwise ignored.
    nested = b'{"QueueUrl":"%s","MessageBody":"x","other":%s1%s}' % (
        queue.encode(), opening * depth, closing * depth)
    status, _, _ = raw.post(nested, "AmazonSQS.SendMessage")
    assert status in (200, 400)
    raw.ok("PurgeQueue", QueueUrl=queue)


@pytest.mark.parametrize("body, codes", [
    (b'"\\ud800"', {"InvalidMessageContents", "MalformedInput"}),
    (b'"\\udc1d\\ud83d"', {"InvalidMessageContents", "MalformedInput"}),
    (b'"a\\ud83d b"', {"InvalidMessageContents", "MalformedInput"}),
    (b'"\\u0000"', {"InvalidMessageContents"}),
    (b'"a\\u0000b"', {"InvalidMessageContents"}),
    (b'"\xf0\x9f\x90"', {"InvalidMessageContents", "MalformedInput"}),
])
def test_text_that_is_not_unicode_or_not_allowed(raw, queue, body, codes):
    data = b'{"QueueUrl":"%s","MessageBody":%s}' % (queue.encode(), body)
    status, headers, answer = raw.post(data, "AmazonSQS.SendMessage")
    assert error_of(status, headers, json.loads(answer))[2] in codes
    assert raw.counts(queue) == (0, 0, 0)


STRING, INTEGER, LIST, MAP = "string", "integer", "list", "map"
WRONG = {STRING: [5, True, [], {}], INTEGER: ["5", True, [], {}],
         LIST: ["x", 5, True, {}], MAP: ["x", 5, True, []]}

ATTRIBUTE = {"DataType": STRING, "StringValue": STRING, "BinaryValue": STRING}
MEMBERS = {
    "CreateQueue": {"QueueName": STRING, "Attributes": MAP, "tags": MAP},
    "GetQueueUrl": {"QueueName": STRING, "QueueOwnerAWSAccountId": STRING},
    "ListQueues": {"QueueNamePrefix": STRING, "MaxResults": INTEGER, "NextToken": STRING},
    "DeleteQueue": {"QueueUrl": STRING},
    "GetQueueAttributes": {"QueueUrl": STRING, "AttributeNames": LIST},
    "SetQueueAttributes": {"QueueUrl": STRING, "Attributes": MAP},
    "PurgeQueue": {"QueueUrl": STRING},
    "SendMessage": {"QueueUrl": STRING, "MessageBody": STRING, "DelaySeconds": INTEGER,
                    "MessageAttributes": MAP, "MessageSystemAttributes": MAP,
                    "MessageDeduplicationId": STRING, "MessageGroupId": STRING},
    "SendMessageBatch": {"QueueUrl": STRING, "Entries": LIST},
    "ReceiveMessage": {"QueueUrl": STRING, "MaxNumberOfMessages": INTEGER,
                       "WaitTimeSeconds": INTEGER, "VisibilityTimeout": INTEGER,
                       "AttributeNames": LIST, "MessageSystemAttributeNames": LIST,
                       "MessageAttributeNames": LIST, "ReceiveRequestAttemptId": STRING},
    "DeleteMessage": {"QueueUrl": STRING, "ReceiptHandle": STRING},
    "DeleteMessageBatch": {"QueueUrl": STRING, "Entries": LIST},
    "ChangeMessageVisibility": {"QueueUrl": STRING, "ReceiptHandle": STRING,
                                "VisibilityTimeout": INTEGER},
    "ChangeMessageVisibilityBatch": {"QueueUrl": STRING, "Entries": LIST},
}
ENTRIES = {
    "SendMessageBatch": {"Id": STRING, "MessageBody": STRING, "DelaySeconds": INTEGER,
                         "MessageAttributes": MAP, "MessageGroupId": STRING},
    "DeleteMessageBatch": {"Id": STRING, "ReceiptHandle": STRING},
    "ChangeMessageVisibilityBatch": {"Id": STRING, "ReceiptHandle": STRING,
                                     "VisibilityTimeout": INTEGER},
}


@pytest.mark.parametrize("action", MEMBERS)
def test_wrong_types_of_every_member(raw, queue, name, action):
    for member, kind in MEMBERS[action].items():
        for value in WRONG[kind]:
            members = {"QueueUrl": queue, "QueueName": name, "MessageBody": "x", member: value}
            assert raw.error(action, members)[:3] == MALFORMED, (member, value)
    # The types are looked at before the queue is.
    member, kind = list(MEMBERS[action].items())[-1]
    missing = {"QueueUrl": "http://x/000000000000/missing", member: WRONG[kind][-1]}
    assert raw.error(action, missing)[:3] == MALFORMED
    for member, kind in ENTRIES.get(action, {}).items():
        for value in WRONG[kind]:
            entry = {"Id": "a", "MessageBody": "x", "ReceiptHandle": "x", member: value}
            got = raw.error(action, QueueUrl=queue, Entries=[entry])
            assert got[:3] == MALFORMED, (member, value)
    assert raw.counts(queue) == (0, 0, 0)


@pytest.mark.parametrize("action, member, values", [
    ("SetQueueAttributes", "Attributes", [{"DelaySeconds": 5}, {"DelaySeconds": True},
                                          {"DelaySeconds": ["5"]}]),
    ("GetQueueAttributes", "AttributeNames", [[5], [["All"]], [{}], [True]]),
    ("ReceiveMessage", "MessageAttributeNames", [[5], [["All"]], [{}]]),
    ("DeleteMessageBatch", "Entries", [["x"], [5], [[]]]),
    ("SendMessage", "MessageAttributes",
     [{"a": value} for value in ("x", 5, [])]
     + [{"a": {"DataType": "String", "StringValue": "x", member: value}}
        for member in ATTRIBUTE for value in WRONG[STRING]]),
])
def test_wrong_types_inside_members(raw, queue, action, member, values):
    for value in values:
        got = raw.error(action, {"QueueUrl": queue, "MessageBody": "x", member: value})
        assert got[:3] == MALFORMED, value
    assert raw.counts(queue) == (0, 0, 0)


def test_integers_beyond_all_ranges(raw, queue):
    for value in (2**31, 2**63, 2**64, -2**63 - 1, 10**100):
        status, _, code, _ = raw.error("ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=value)
        assert status == 400 and code in ("MalformedInput", "InvalidParameterValue")


def test_binary_that_is_not_base64(raw, queue):
    for value in ("%%%", "A", "AAAAA", "ä"):
        got = raw.error("SendMessage", QueueUrl=queue, MessageBody="x", MessageAttributes={
            "a": {"DataType": "Binary", "BinaryValue": value}})
        assert got[0] == 400
    assert raw.counts(queue) == (0, 0, 0)


# Addressing


@pytest.mark.parametrize("target", [
    "AmazonSQS.NoSuchAction", "AmazonSQS.", "AmazonSQS.sendmessage", "AmazonSNS.Publish",
    "SendMessage", "AmazonSQS.SendMessage.x", "x" * 4000, None,
])
def test_unknown_or_missing_target(raw, target):
    status, headers, answer = raw.post(b"{}", target)
    assert error_of(status, headers, json.loads(answer))[:3] == UNKNOWN


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "", "\xe4", "a" * 4000])
def test_content_types_that_are_none(server, content_type):
    status = exchange(server, post("Content-Length: 2", f"Content-Type: {content_type}",
                                   body=b"{}"))
    assert status is not None and 400 <= status < 500


def test_hostile_names_and_urls(raw, queue):
    for url in ("http://", "://", "/", "//", "http://x/../../etc/passwd", "http://x/%00/%00",
                "http://x/%zz/%", "\0", "x" * 100_000, "http://[::1/000000000000/q", "%2e%2e"):
        assert raw.error("SendMessage", QueueUrl=url, MessageBody="x")[2] == (
            "AWS.SimpleQueueService.NonExistentQueue")
    for name in ("../x", "a/b", "a\0b", "ü", "x" * 100_000, ".", "*"):
        assert raw.error("CreateQueue", QueueName=name)[2] == "InvalidParameterValue"


def test_many_clients_with_bad_and_good_requests_at_once(server, queue):
    def work(seed):
        dice = random.Random(seed)
        good = 0
        for _ in range(40):
            data = bytearray(request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "x"}))
            spoiled = dice.random() < 0.7
            if spoiled:
                for _ in range(dice.randint(1, 8)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
            with server.socket() as connection:
                send_all(connection, bytes(data))
                if spoiled:
                    end_of_input(connection)
                status = outcome(connection)
                assert status is None or status < 500 or status in (501, 505), bytes(data)
                if not spoiled:
                    assert status == 200
                    good += 1
        return good

    good = sum(worker.result() for worker in [Background(work, seed) for seed in range(8)])
    raw = server.raw()
    assert raw.counts(queue)[0] >= good
    raw.ok("PurgeQueue", QueueUrl=queue)


def test_a_client_that_closes_its_side_is_answered(server):
    """As `nc -N` does: all that it asked for is answered in order, then the server closes."""
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="half-closed")["QueueUrl"]
    with server.socket() as connection:
        connection.sendall(b"".join(
            request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": f"message {n}"})
            for n in range(20)))
        connection.shutdown(socket.SHUT_WR)
        for n in range(20):
            answer = json.loads(read_answer(connection))
            assert answer["MD5OfMessageBody"] == md5(f"message {n}")
        assert connection.recv(1) == b""
    assert raw.counts(queue) == (20, 0, 0)


def test_a_long_poll_of_a_client_that_closes_its_side_ends_with_nothing(server):
    """It may be gone: no message may go to it. If it is there it reads that there is none."""
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="half-closed-poll")["QueueUrl"]
    with server.socket() as connection:
        connection.sendall(
            request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20}))
        connection.shutdown(socket.SHUT_WR)
        assert "Messages" not in json.loads(read_answer(connection))
        assert connection.recv(1) == b""
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="for another")
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    assert message["Body"] == "for another"


def test_what_is_no_request_is_refused_behind_the_answers_before_it(server):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="broken-behind")["QueueUrl"]
    send = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "good"})
    with server.socket() as connection:
        connection.sendall(send + send + b"no request at all\r\n\r\n" + send)
        for _ in range(2):
            assert json.loads(read_answer(connection))["MD5OfMessageBody"] == md5("good")
        read_answer(connection, status=400)
        assert connection.recv(1) == b""
    assert raw.counts(queue) == (2, 0, 0)


def test_a_request_cut_short_by_a_client_that_closes_its_side_is_refused(server):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="cut-short")["QueueUrl"]
    send = request_bytes("SendMessage", {"QueueUrl": queue, "MessageBody": "whole"})
    for length in (10, 60, len(send) - 1):
        with server.socket() as connection:
            connection.sendall(send + send[:length])
            connection.shutdown(socket.SHUT_WR)
            read_answer(connection)
            assert outcome(connection) in (400, None)
    assert raw.counts(queue) == (3, 0, 0)


def test_long_polls_behind_one_another_end_when_their_client_closes_its_side(server):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="half-closed-polls")["QueueUrl"]
    poll = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20})
    with server.socket(timeout=10) as connection:
        connection.sendall(poll * 3)
        connection.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert "Messages" not in json.loads(read_answer(connection))
        assert connection.recv(1) == b""


@pytest.mark.parametrize("ends", [False, True])
def test_much_that_is_no_request_does_not_take_the_answers_before_it_along(server, ends):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName=f"much-garbage-{ends}")["QueueUrl"]
    poll = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 1})
    with server.socket() as connection:
        send_all(connection, poll + b"no request at all\r\n\r\n" + b"x" * 200_000)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        assert "Messages" not in json.loads(read_answer(connection))
        read_answer(connection, status=400)


def test_what_follows_a_request_to_upgrade_is_not_kept(server):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="upgrade")["QueueUrl"]
    poll = request_bytes("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 3},
                         headers=["Connection: upgrade", "Upgrade: websocket"])
    before = server.memory()
    with server.socket(timeout=1) as connection:
        connection.sendall(poll)
        send_all(connection, b"x" * 64 * MEBIBYTE)
        assert server.memory() - before < 16 * MEBIBYTE
        connection.settimeout(20)
        assert "Messages" not in json.loads(read_answer(connection))


def test_a_large_answer_arrives_whole_though_its_client_closes_its_side_meanwhile(server):
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="large-half-closed")["QueueUrl"]
    bodies = ["a" * 1_000_000, "b" * 1_000_000, "c" * 1_000_000]
    for body in bodies:
        raw.ok("SendMessage", QueueUrl=queue, MessageBody=body)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(
            request_bytes("ReceiveMessage", {"QueueUrl": queue, "MaxNumberOfMessages": 10}))
        # It has begun to come, and does not fit between the two.
        assert connection.recv(1, socket.MSG_PEEK)
        connection.shutdown(socket.SHUT_WR)
        received = json.loads(read_answer(connection))["Messages"]
    assert sorted(message["Body"] for message in received) == bodies
