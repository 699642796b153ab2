"""What a client saw before the server ended, by SIGTERM or by SIGKILL, it sees after a restart."""

import time

import pytest

from harness import ALL, ATTRIBUTES, BODY, LATE, counts, counts_of, drain, receive

ENDS = pytest.mark.parametrize("end", ["stop", "kill"])


def make_queue(server, **attributes):
    return server.sqs().create_queue(QueueName="kept", Attributes=attributes)["QueueUrl"]


@ENDS
def test_queues_messages_and_counts_are_kept(new_server, end):
    server = new_server().start()
    queue = make_queue(server, VisibilityTimeout="600", MessageRetentionPeriod="3600")
    sqs = server.sqs()
    gone = sqs.create_queue(QueueName="gone")["QueueUrl"]
    sqs.delete_queue(QueueUrl=gone)
    for n in range(30):
        sqs.send_message(QueueUrl=queue, MessageBody=f"{BODY}{n}", MessageAttributes=ATTRIBUTES)
    sqs.send_message(QueueUrl=queue, MessageBody="delayed", DelaySeconds=900)
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"MaximumMessageSize": "2048"})
    first = receive(sqs, queue, MaxNumberOfMessages=10)
    for message in first[:5]:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    before = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
    assert counts_of(before) == (20, 5, 1)

    server.restart(end)
    sqs = server.sqs()
    after = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
    assert after["Attributes"] == before["Attributes"]
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="gone")
    got = receive(sqs, queue, MaxNumberOfMessages=10, **ALL)
    got += receive(sqs, queue, MaxNumberOfMessages=10, **ALL)
    assert [m["Body"] for m in got] == [f"{BODY}{n}" for n in range(10, 30)]
    assert all(m["MessageAttributes"] == ATTRIBUTES for m in got)
    assert all(m["Attributes"]["ApproximateReceiveCount"] == "1" for m in got)
    assert receive(sqs, queue) == []
    # Messages that were never seen deleted can be asked back by their old handles.
    for message in first[5:]:
        sqs.change_message_visibility(
            QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    again = receive(sqs, queue, MaxNumberOfMessages=10, **ALL)
    assert [m["MessageId"] for m in again] == [m["MessageId"] for m in first[5:]]
    assert all(m["Attributes"]["ApproximateReceiveCount"] == "2" for m in again)
    server.stop()


@ENDS
def test_handles_from_before_delete_and_change_afterwards(new_server, end):
    server = new_server().start()
    queue = make_queue(server)
    sqs = server.sqs()
    for body in ("delete", "change", "deleted before"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    handles = {m["Body"]: m["ReceiptHandle"] for m in receive(
        sqs, queue, MaxNumberOfMessages=10, VisibilityTimeout=600)}
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=handles["deleted before"])

    server.restart(end)
    sqs = server.sqs()
    assert counts(sqs, queue) == (0, 2, 0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=handles["delete"])
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=handles["deleted before"])
    assert counts(sqs, queue) == (0, 1, 0)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=handles["change"], VisibilityTimeout=0)
    assert [m["Body"] for m in drain(sqs, queue, 1)] == ["change"]
    server.restart(end)
    assert counts(server.sqs(), queue) == (0, 0, 0)
    server.stop()


@ENDS
@pytest.mark.parametrize("kind", ["leased", "delayed"])
def test_timers_run_on_through_a_restart(new_server, end, kind):
    server = new_server().start()
    queue = make_queue(server)
    # Should a restart take longer than the time of the timer, then a longer time is used.
    for seconds in (3, 10, 40):
        sqs = server.sqs()
        if kind == "leased":
            sqs.send_message(QueueUrl=queue, MessageBody="x")
            started = time.time()
            [first] = receive(sqs, queue, VisibilityTimeout=seconds, **ALL)
        else:
            started = time.time()
            sqs.send_message(QueueUrl=queue, MessageBody="x", DelaySeconds=seconds)
        set_at = time.time()
        server.restart(end)
        sqs = server.sqs()
        early = receive(sqs, queue, WaitTimeSeconds=0)
        if time.time() - started < seconds:
            break
        sqs.purge_queue(QueueUrl=queue)
    else:
        pytest.fail("every restart took longer than 40 s")
    assert early == []
    [message] = receive(sqs, queue, WaitTimeSeconds=20, **ALL) or receive(
        sqs, queue, WaitTimeSeconds=20, **ALL)
    came = time.time()
    assert came - started >= seconds
    assert came - set_at <= seconds + LATE
    if kind == "leased":
        assert message["MessageId"] == first["MessageId"]
        stamps, old = message["Attributes"], first["Attributes"]
        assert stamps["ApproximateReceiveCount"] == "2"
        for stamp in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
            assert stamps[stamp] == old[stamp]
    server.stop()


def test_a_restart_without_any_change_keeps_everything_ten_times(new_server):
    server = new_server().start()
    queue = make_queue(server)
    sent = [server.sqs().send_message(QueueUrl=queue, MessageBody=str(n))["MessageId"]
            for n in range(5)]
    for round in range(10):
        server.restart("kill" if round % 2 else "stop")
        assert counts(server.sqs(), queue) == (5, 0, 0)
    assert [m["MessageId"] for m in drain(server.sqs(), queue, 5)] == sent
    server.stop()


def test_ending_before_the_start_is_complete_loses_nothing(new_server):
    server = new_server().start()
    queue = make_queue(server)
    for n in range(20):
        server.sqs().send_message(QueueUrl=queue, MessageBody=str(n) * 1000)
    server.kill()
    for n in range(10):
        server.spawn()
        time.sleep(n * 0.01)  # the moment of the kill is the subject, so there is no event
        server.kill()
    server.start()
    got = drain(server.sqs(), queue, 20)
    assert [m["Body"] for m in got] == [str(n) * 1000 for n in range(20)]
    server.stop()
