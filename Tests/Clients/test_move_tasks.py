"""Move tasks through boto3: redrive to where messages came from and elsewhere, rates, cancelling,
what is refused, a restart in the middle."""

import base64
import json
import time

import pytest

from harness import receive, wait_until
from test_dead_letters import ALL, arn, counts, policy, refused


@pytest.fixture
def dead(sqs, name):
    """A dead-letter queue of two queues: (its URL, theirs)."""
    return make(sqs, name)


def make(sqs, name):
    queue = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    sources = [sqs.create_queue(QueueName=f"{name}-{each}", Attributes={
        "RedrivePolicy": policy(arn(sqs, queue), 1)})["QueueUrl"] for each in "ab"]
    return queue, sources


def kill_messages(sqs, source, bodies):
    """Sends messages and receives them until they are dead letters."""
    for body in bodies:
        sqs.send_message(QueueUrl=source, MessageBody=body)
    for _ in range(2):
        while receive(sqs, source, MaxNumberOfMessages=10, VisibilityTimeout=0):
            pass


def task(sqs, queue):
    return sqs.list_message_move_tasks(SourceArn=arn(sqs, queue))["Results"][0]


def done(sqs, queue):
    wait_until(lambda: task(sqs, queue)["Status"] not in ("RUNNING", "CANCELLING"), "the task")
    return task(sqs, queue)


def drain(sqs, queue, **more):
    found = []
    while messages := receive(sqs, queue, MaxNumberOfMessages=10, **ALL, **more):
        found += messages
    return found


def test_messages_go_back_to_where_they_came_from(sqs, dead):
    queue, (a, b) = dead
    kill_messages(sqs, a, ["1", "2"])
    kill_messages(sqs, b, ["3"])
    before = {m["Body"]: m for m in drain(sqs, queue, VisibilityTimeout=1)}
    assert sorted(before) == ["1", "2", "3"]
    wait_until(lambda: counts(sqs, queue) == [3, 0], "the end of the leases")
    started = time.time()
    handle = sqs.start_message_move_task(SourceArn=arn(sqs, queue))["TaskHandle"]
    decoded = base64.b64decode(handle).decode()
    assert json.loads(decoded)["sourceArn"] == arn(sqs, queue)
    assert decoded.startswith('{"taskId":"') and " " not in decoded
    ended = done(sqs, queue)
    assert ended["Status"] == "COMPLETED" and "TaskHandle" not in ended
    assert "DestinationArn" not in ended and "MaxNumberOfMessagesPerSecond" not in ended
    assert ended["ApproximateNumberOfMessagesMoved"] == 3
    assert ended["ApproximateNumberOfMessagesToMove"] == 3
    assert abs(ended["StartedTimestamp"] / 1000 - started) < 60
    assert counts(sqs, queue) == [0, 0]
    for source, bodies in ((a, ["1", "2"]), (b, ["3"])):
        found = drain(sqs, source)
        assert sorted(m["Body"] for m in found) == bodies
        for message in found:
            old = before[message["Body"]]
            assert message["MessageId"] != old["MessageId"]
            assert message["Attributes"]["ApproximateReceiveCount"] == "1"
            assert "DeadLetterQueueSourceArn" not in message["Attributes"]
            sent = "SentTimestamp"
            assert message["Attributes"][sent] > old["Attributes"][sent]


def test_a_destination_takes_all_of_them_and_keeps_their_content(sqs, dead, name):
    queue, (a, _) = dead
    other = sqs.create_queue(QueueName=f"{name}-other")["QueueUrl"]
    attributes = {"k": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}
    sqs.send_message(QueueUrl=a, MessageBody="m", MessageGroupId="g", MessageAttributes=attributes)
    for _ in range(2):
        receive(sqs, a, VisibilityTimeout=0)
    sqs.send_message(QueueUrl=queue, MessageBody="sent there")
    sqs.start_message_move_task(SourceArn=arn(sqs, queue), DestinationArn=arn(sqs, other))
    ended = done(sqs, queue)
    assert ended["DestinationArn"] == arn(sqs, other)
    found = {m["Body"]: m for m in drain(sqs, other, MessageAttributeNames=["All"])}
    assert sorted(found) == ["m", "sent there"]
    assert found["m"]["MessageAttributes"]["k"]["BinaryValue"] == b"\x00\xff"
    assert found["m"]["Attributes"]["MessageGroupId"] == "g"


def test_a_message_that_was_sent_there_has_no_source(sqs, dead):
    queue, _ = dead
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    sqs.start_message_move_task(SourceArn=arn(sqs, queue))
    ended = done(sqs, queue)
    assert (ended["Status"], ended["FailureReason"]) == (
        "FAILED", "CouldNotDetermineMessageSource")
    assert counts(sqs, queue) == [1, 0]


def test_a_destination_that_goes_away_fails_the_task(sqs, dead):
    queue, (a, _) = dead
    kill_messages(sqs, a, ["m"])
    sqs.delete_queue(QueueUrl=a)
    sqs.start_message_move_task(SourceArn=arn(sqs, queue))
    ended = done(sqs, queue)
    assert (ended["Status"], ended["FailureReason"]) == (
        "FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    assert counts(sqs, queue) == [1, 0]


def test_messages_in_flight_stay(sqs, dead):
    queue, (a, _) = dead
    kill_messages(sqs, a, ["1", "2"])
    held, = receive(sqs, queue, VisibilityTimeout=600)
    sqs.start_message_move_task(SourceArn=arn(sqs, queue))
    assert done(sqs, queue)["ApproximateNumberOfMessagesMoved"] == 1
    assert counts(sqs, queue) == [0, 1] and counts(sqs, a) == [1, 0]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=held["ReceiptHandle"])
    assert counts(sqs, queue) == [0, 0]


def test_a_rate_is_kept_and_a_task_can_be_cancelled(sqs, dead):
    queue, (a, _) = dead
    kill_messages(sqs, a, [str(number) for number in range(4)])
    began = time.monotonic()
    sqs.start_message_move_task(SourceArn=arn(sqs, queue), MaxNumberOfMessagesPerSecond=1)
    refused(sqs, sqs.start_message_move_task, "InvalidParameterValue",
            "There is already a task running. Only one active task is allowed for a source queue "
            "arn at a given time.", SourceArn=arn(sqs, queue))
    assert done(sqs, queue)["ApproximateNumberOfMessagesMoved"] == 4
    assert time.monotonic() - began >= 3
    for message in drain(sqs, a, VisibilityTimeout=0):
        break
    kill_messages(sqs, a, ["more"])
    handle = sqs.start_message_move_task(
        SourceArn=arn(sqs, queue), MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    running = task(sqs, queue)
    assert running["TaskHandle"] == handle and running["MaxNumberOfMessagesPerSecond"] == 1
    sqs.cancel_message_move_task(TaskHandle=handle)
    ended = done(sqs, queue)
    assert ended["Status"] == "CANCELLED"
    refused(sqs, sqs.cancel_message_move_task, "InvalidParameterValue",
            "Only active tasks can be cancelled.", TaskHandle=handle)
    both = sqs.list_message_move_tasks(SourceArn=arn(sqs, queue), MaxResults=10)["Results"]
    assert [each["Status"] for each in both] == ["CANCELLED", "COMPLETED"]


def test_what_is_refused(sqs, dead, name):
    queue, (a, _) = dead
    fifo = sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    source = arn(sqs, queue)
    start = sqs.start_message_move_task
    form = "You must use this format to specify the {}: " \
        "arn:<partition>:<service>:<region>:<account-id>:<resource-id>"
    missing = "The resource that you specified for the {} parameter doesn't exist."
    none = source + "-none"
    invalid, absent = "InvalidParameterValue", "ResourceNotFoundException"
    refused(sqs, start, invalid, form.format("SourceArn"), SourceArn="x")
    refused(sqs, start, invalid, form.format("DestinationArn"), SourceArn=source,
            DestinationArn="x")
    refused(sqs, start, absent, missing.format("SourceArn"), SourceArn=none)
    refused(sqs, start, invalid, "Source queue must be configured as a Dead Letter Queue.",
            SourceArn=arn(sqs, a))
    refused(sqs, start, invalid,
            "Source queue arn and destination queue arn cannot be the same.",
            SourceArn=source, DestinationArn=source)
    refused(sqs, start, absent, missing.format("DestinationArn"), SourceArn=source,
            DestinationArn=none)
    refused(sqs, start, invalid,
            "The source queue and destination queue must be of the same queue type.",
            SourceArn=source, DestinationArn=arn(sqs, fifo))
    for rate in (0, 501):
        refused(sqs, start, invalid,
                "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must "
                "enter a number that's between 1 and 500.",
                SourceArn=source, MaxNumberOfMessagesPerSecond=rate)
    for limit in (0, 11):
        refused(sqs, sqs.list_message_move_tasks, invalid,
                "Value for parameter MaxResults is invalid. Reason: You must enter a number "
                "that's between 1 and 10.", SourceArn=source, MaxResults=limit)
    assert sqs.list_message_move_tasks(SourceArn=source).get("Results", []) == []
    cancel = sqs.cancel_message_move_task
    refused(sqs, cancel, invalid, "Value for parameter TaskHandle is invalid.", TaskHandle="x")

    def handle(arn):
        text = json.dumps({"taskId": "5f5c9a1e-0000-4000-8000-000000000000", "sourceArn": arn})
        return base64.b64encode(text.encode()).decode()

    refused(sqs, cancel, absent, missing.format("SourceArn"), TaskHandle=handle(none))
    refused(sqs, cancel, absent, "Task does not exist.", TaskHandle=handle(source))


def test_a_task_goes_on_after_a_kill_and_moves_each_message_once(new_server, name):
    server = new_server().start()
    sqs = server.sqs()
    queue, (a, _) = make(sqs, name)
    bodies = [f"m{number}" for number in range(30)]
    kill_messages(sqs, a, bodies)
    sqs.start_message_move_task(SourceArn=arn(sqs, queue), MaxNumberOfMessagesPerSecond=10)
    for moved in (5, 12):
        wait_until(
            lambda: task(sqs, queue)["ApproximateNumberOfMessagesMoved"] >= moved, "some moves")
        server.kill()
        server.start()
        sqs = server.sqs()
        queue, a = (sqs.get_queue_url(QueueName=f"{name}-{each}")["QueueUrl"]
                    for each in ("dead", "a"))
    ended = done(sqs, queue)
    assert (ended["Status"], ended["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 30)
    assert sorted(m["Body"] for m in drain(sqs, a)) == sorted(bodies)
    assert counts(sqs, queue) == [0, 0]


def test_fifo_messages_go_back_in_their_order(sqs, name):
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    queue = sqs.create_queue(QueueName=f"{name}-dead.fifo", Attributes=fifo)["QueueUrl"]
    source = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=fifo | {
        "RedrivePolicy": policy(arn(sqs, queue), 1)})["QueueUrl"]
    for number in range(5):
        for group in "gh":
            sqs.send_message(
                QueueUrl=source, MessageBody=f"{group}{number}", MessageGroupId=group)
    for _ in range(3):
        while receive(sqs, source, MaxNumberOfMessages=10, VisibilityTimeout=0):
            pass
    assert counts(sqs, queue) == [10, 0]
    sqs.start_message_move_task(SourceArn=arn(sqs, queue))
    assert done(sqs, queue)["Status"] == "COMPLETED"
    found = [m["Body"] for m in drain(sqs, source)]
    for group in "gh":
        mine = [body for body in found if body[0] == group]
        assert mine == [f"{group}{number}" for number in range(5)]
