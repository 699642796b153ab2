"""Time: long polls and what wakes them, visibility timeouts, delays."""

import json
import time

import pytest

from harness import LATE, Background, counts, read_answer, receive, request_bytes

STAMPS = {"MessageSystemAttributeNames": ["All"]}


def send(sqs, queue, body="x", **more):
    return sqs.send_message(QueueUrl=queue, MessageBody=body, **more)


def waiting(call, *args, **kwargs):
    """Starts a long poll in the background and gives it time to reach the server.

    A server does not tell that a poll is waiting, so there is no event here to wait for. If the
    pause is too short the test still passes; it then tests the case without waiting.
    """
    poll = Background(call, *args, **kwargs)
    time.sleep(0.3)
    return poll


def test_a_poll_returns_at_once_with_what_is_there(sqs, queue):
    send(sqs, queue)
    send(sqs, queue)
    started = time.monotonic()
    assert len(receive(sqs, queue, MaxNumberOfMessages=3, WaitTimeSeconds=20)) == 2
    assert time.monotonic() - started < LATE


def test_a_poll_ends_empty_at_its_time(sqs, queue):
    started = time.monotonic()
    answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2)
    assert "Messages" not in answer
    assert 2 <= time.monotonic() - started < 2 + LATE


def test_the_wait_time_of_the_queue_counts_unless_one_is_given(sqs, queue):
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"ReceiveMessageWaitTimeSeconds": "3"})
    started = time.monotonic()
    assert receive(sqs, queue, WaitTimeSeconds=0) == []
    assert time.monotonic() - started < 3
    started = time.monotonic()
    assert receive(sqs, queue) == []
    assert 3 <= time.monotonic() - started < 3 + LATE


def test_a_send_wakes_a_poll(sqs, queue):
    poll = waiting(receive, sqs, queue, WaitTimeSeconds=20)
    sent = send(sqs, queue)
    answered = time.monotonic()
    [message] = poll.result()
    assert message["MessageId"] == sent["MessageId"]
    assert poll.ended - answered < LATE


def test_one_message_wakes_one_of_several_polls(server, sqs, queue):
    polls = [waiting(receive, server.sqs(), queue, WaitTimeSeconds=4) for _ in range(3)]
    send(sqs, queue)
    assert sorted(len(poll.result()) for poll in polls) == [0, 0, 1]


@pytest.mark.parametrize("per_message", [True, False], ids=["message", "queue"])
def test_a_delayed_message_wakes_a_poll_when_it_is_due(sqs, queue, per_message):
    if not per_message:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"DelaySeconds": "2"})
    poll = waiting(receive, sqs, queue, WaitTimeSeconds=20, **STAMPS)
    started = time.monotonic()
    send(sqs, queue, **({"DelaySeconds": 2} if per_message else {}))
    answered = time.monotonic()
    assert counts(sqs, queue) == (0, 0, 1)
    [message] = poll.result()
    assert poll.ended - started >= 2
    assert poll.ended - answered <= 2 + LATE
    stamps = message["Attributes"]
    assert int(stamps["ApproximateFirstReceiveTimestamp"]) - int(stamps["SentTimestamp"]) >= 2000


def test_a_delay_of_zero_overrides_the_delay_of_the_queue(sqs, name):
    queue = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "900"})["QueueUrl"]
    send(sqs, queue, "now", DelaySeconds=0)
    send(sqs, queue, "later")
    assert [m["Body"] for m in receive(sqs, queue, MaxNumberOfMessages=10)] == ["now"]


@pytest.mark.parametrize("where", ["queue", "receive", "change"])
def test_a_hidden_message_wakes_a_poll_when_its_timeout_ends(sqs, name, where):
    timeout = "2" if where == "queue" else "600"
    queue = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": timeout})["QueueUrl"]
    send(sqs, queue)
    started = time.monotonic()
    [first] = receive(sqs, queue, **({"VisibilityTimeout": 2} if where == "receive" else {}))
    if where == "change":
        started = time.monotonic()
        sqs.change_message_visibility(
            QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=2)
    answered = time.monotonic()
    [second] = receive(sqs, queue, WaitTimeSeconds=20, VisibilityTimeout=600)
    ended = time.monotonic()
    assert second["MessageId"] == first["MessageId"]
    assert ended - started >= 2
    assert ended - answered <= 2 + LATE


def test_a_changed_visibility_is_not_remembered(sqs, name):
    queue = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
    send(sqs, queue)
    [first] = receive(sqs, queue)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=600)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    assert len(receive(sqs, queue)) == 1
    assert len(receive(sqs, queue, WaitTimeSeconds=20)) == 1


def test_visibility_set_to_zero_wakes_a_poll(server, sqs, queue):
    send(sqs, queue)
    [first] = receive(sqs, queue, VisibilityTimeout=600)
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    answered = time.monotonic()
    [second] = poll.result()
    assert second["MessageId"] == first["MessageId"]
    assert poll.ended - answered < LATE


def test_twelve_hours_in_all_is_the_limit_of_one_receive(sqs, queue):
    send(sqs, queue)
    # The receive itself may use the full twelve hours; a change afterwards cannot.
    started = time.monotonic()
    [message] = receive(sqs, queue, VisibilityTimeout=43200)
    handle = message["ReceiptHandle"]
    while time.monotonic() - started < 0.05:
        time.sleep(0.01)
    with pytest.raises(sqs.exceptions.ClientError) as e:
        sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=43200)
    assert e.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert e.value.response["Error"]["Message"].endswith(
        "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=43000)
    # A new receive starts the twelve hours again.
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=0)
    assert len(receive(sqs, queue, VisibilityTimeout=43200)) == 1


def test_deleting_a_queue_ends_its_polls_empty(server, sqs, queue):
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    sqs.delete_queue(QueueUrl=queue)
    answered = time.monotonic()
    assert poll.result() == []
    assert poll.ended - answered < LATE


def test_a_poll_whose_client_has_gone_takes_no_message(server, sqs, queue):
    members = {"QueueUrl": queue, "WaitTimeSeconds": 20, "VisibilityTimeout": 600}
    for _ in range(5):
        with server.socket() as connection:
            connection.sendall(request_bytes("ReceiveMessage", members))
            time.sleep(0.2)  # as in `waiting`
    time.sleep(0.5)  # nothing tells when the server has noticed that a connection is closed
    send(sqs, queue)
    [message] = receive(sqs, queue, WaitTimeSeconds=5, **STAMPS)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_many_polls_wait_at_the_same_time(server, sqs, queue):
    polls = []
    try:
        for _ in range(200):
            polls.append(server.socket())
            polls[-1].sendall(request_bytes(
                "ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20}))
        for n in range(200):
            send(sqs, queue, str(n))
        bodies = set()
        for poll in polls:
            bodies.add(json.loads(read_answer(poll))["Messages"][0]["Body"])
        assert bodies == {str(n) for n in range(200)}
    finally:
        for poll in polls:
            poll.close()
