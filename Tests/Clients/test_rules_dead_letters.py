"""Rules of dead letters and of move tasks, one test each.

Docs/conformance.md has all rules and their tests, those of other files too.
"""

import json

import pytest

from harness import counts, receive, wait_until
from test_dead_letters import POLICY, arn, policy, refused
from test_move_tasks import done, drain, kill_messages, task
from test_rules_messages import ALL, bodies, hide, send, string


@pytest.fixture
def pair(sqs, name):
    """A queue whose messages go to another after one receive."""
    return make(sqs, name)


def make(sqs, name, count=1, of_dead=None, **attributes):
    suffix = ".fifo" if attributes.get("FifoQueue") else ""
    dead = sqs.create_queue(
        QueueName=f"{name}-dead{suffix}", Attributes={**attributes, **(of_dead or {})})["QueueUrl"]
    queue = sqs.create_queue(QueueName=name + suffix, Attributes={
        **attributes, "RedrivePolicy": policy(arn(sqs, dead), count)})["QueueUrl"]
    return queue, dead


def set_policy(sqs, queue, text):
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": text})


# 6.1


@pytest.mark.parametrize("count", [1, 1000, "1", "1000"])
def test_6_1_the_range_of_counts(sqs, queue, name, count):
    dead = arn(sqs, sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"])
    set_policy(sqs, queue, json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": count}))


@pytest.mark.parametrize("count, shown", [
    ("0", "0"), ("1001", "1001"), ("-1", "-1"), ('"0"', "0"), ('"x"', "x"), ('""', ""),
    ("1.5", "1.5"), ('" 1"', " 1"), ('"+1"', "+1"), ("1e2", "1e2"),
])
def test_6_1_counts_out_of_range(sqs, queue, count, shown):
    text = '{"deadLetterTargetArn":"%s","maxReceiveCount":%s}' % (arn(sqs, queue), count)
    refused(sqs, sqs.set_queue_attributes, "InvalidParameterValue",
            POLICY.format(text) + f"Invalid value for maxReceiveCount: {shown}, valid values are "
            "from 1 to 1000 both inclusive.", QueueUrl=queue, Attributes={"RedrivePolicy": text})


def test_6_1_cycles_are_accepted_and_deliver_nothing_twice(sqs, pair):
    queue, other = pair
    set_policy(sqs, other, policy(arn(sqs, queue), 1))
    send(sqs, queue)
    assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    for _ in range(2):
        assert receive(sqs, queue) == [] and counts(sqs, other) == (1, 0, 0)
        assert receive(sqs, other) == [] and counts(sqs, queue) == (1, 0, 0)


def test_6_1_a_queue_of_the_other_kind(sqs, name):
    standard = sqs.create_queue(QueueName=name)["QueueUrl"]
    fifo = sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for queue, target in ((standard, fifo), (fifo, standard)):
        text = policy(arn(sqs, target), 1)
        refused(sqs, sqs.set_queue_attributes, "InvalidParameterValue", POLICY.format(text)
                + "Dead-letter queue must be same type of queue as the source.",
                QueueUrl=queue, Attributes={"RedrivePolicy": text})


# 6.2


@pytest.mark.parametrize("count", [1, 3])
def test_6_2_a_receive_past_the_maximum_moves_the_message(sqs, name, count):
    queue, dead = make(sqs, name, count)
    sent = send(sqs, queue)
    for number in range(count):
        message, = receive(sqs, queue, VisibilityTimeout=0, **ALL)
        assert message["Attributes"]["ApproximateReceiveCount"] == str(number + 1)
    assert counts(sqs, queue) == (1, 0, 0) and counts(sqs, dead) == (0, 0, 0)
    assert receive(sqs, queue) == []
    assert counts(sqs, queue) == (0, 0, 0) and counts(sqs, dead) == (1, 0, 0)
    moved, = receive(sqs, dead, **ALL)
    assert moved["MessageId"] == sent["MessageId"]
    # The move is no receive.
    assert moved["Attributes"]["ApproximateReceiveCount"] == str(count + 1)


def test_6_2_the_receive_goes_on_to_other_messages(sqs, pair):
    queue, dead = pair
    for body in ("poison 1", "poison 2"):
        send(sqs, queue, body)
    receive(sqs, queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    for body in ("fresh 1", "fresh 2"):
        send(sqs, queue, body)
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=10)) == ["fresh 1", "fresh 2"]
    assert bodies(receive(sqs, dead, MaxNumberOfMessages=10)) == ["poison 1", "poison 2"]


@pytest.mark.parametrize("by", ["time", "zero"])
def test_6_2_the_end_of_a_timeout_moves_nothing(sqs, pair, by):
    queue, dead = pair
    send(sqs, queue)
    message, = receive(sqs, queue, VisibilityTimeout=1 if by == "time" else 600)
    if by == "zero":
        hide(sqs, queue, message, 0)
    wait_until(lambda: counts(sqs, queue) == (1, 0, 0), "the end of the timeout")
    assert counts(sqs, dead) == (0, 0, 0)


def test_6_2_a_delete_moves_nothing(sqs, pair):
    queue, dead = pair
    send(sqs, queue)
    message, = receive(sqs, queue, VisibilityTimeout=0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs, queue) == counts(sqs, dead) == (0, 0, 0)


def test_6_2_counts_of_before_a_policy_count(sqs, queue, name):
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    send(sqs, queue)
    for _ in range(2):
        receive(sqs, queue, VisibilityTimeout=0)
    set_policy(sqs, queue, policy(arn(sqs, dead), 2))
    # Taken away again: no move, and the count is kept.
    set_policy(sqs, queue, "")
    message, = receive(sqs, queue, VisibilityTimeout=0, **ALL)
    assert message["Attributes"]["ApproximateReceiveCount"] == "3"
    set_policy(sqs, queue, policy(arn(sqs, dead), 2))
    assert receive(sqs, queue) == []
    assert counts(sqs, dead) == (1, 0, 0)


# 6.3


@pytest.mark.parametrize("permission, sources, allowed", [
    ("allowAll", None, True), ("denyAll", None, False), ("byQueue", ["this"], True),
    ("byQueue", ["other"], False), ("byQueue", ["other", "this"], True), (None, None, True),
])
def test_6_3_who_may_name_it(sqs, queue, name, permission, sources, allowed):
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    allow = ""
    if permission:
        arns = {"this": arn(sqs, queue), "other": arn(sqs, queue) + "-other"}
        allow = json.dumps({"redrivePermission": permission, **(
            {"sourceQueueArns": [arns[each] for each in sources]} if sources else {})})
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": allow})
    text = policy(arn(sqs, dead), 1)
    if allowed:
        set_policy(sqs, queue, text)
    else:
        refused(sqs, sqs.set_queue_attributes, "InvalidParameterValue", POLICY.format(text)
                + "The dead-letter queue does not allow this source queue.",
                QueueUrl=queue, Attributes={"RedrivePolicy": text})
        refused(sqs, sqs.create_queue, "InvalidParameterValue", POLICY.format(text)
                + "The dead-letter queue does not allow this source queue.",
                QueueName=f"{name}-new", Attributes={"RedrivePolicy": text})


def test_6_3_a_later_refusal_does_not_touch_who_names_it_already(sqs, pair):
    queue, dead = pair
    sqs.set_queue_attributes(
        QueueUrl=dead, Attributes={"RedriveAllowPolicy": '{"redrivePermission":"denyAll"}'})
    send(sqs, queue)
    for _ in range(2):
        receive(sqs, queue, VisibilityTimeout=0)
    assert counts(sqs, dead) == (1, 0, 0)


# 6.4


@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_6_4_what_a_moved_message_keeps(sqs, name, kind):
    fifo = {"FifoQueue": "true"} if kind == "fifo" else {}
    # The delay of the dead-letter queue does not hide what is moved there.
    queue, dead = make(sqs, name, of_dead={"DelaySeconds": "900"}, **fifo)
    ids = {"MessageGroupId": "g", "MessageDeduplicationId": "d"} if fifo else {}
    attributes = {"k": {"DataType": "Binary", "BinaryValue": b"\0\xff"}}
    send(sqs, queue, "poison", MessageAttributes=attributes,
         MessageSystemAttributes={"AWSTraceHeader": string("trace")}, **ids)
    everything = {**ALL, "MessageAttributeNames": ["All"]}
    before, = receive(sqs, queue, VisibilityTimeout=1, **everything)
    # The end of the timeout is a second behind, so a time that was kept differs from one that is
    # that of the move.
    assert wait_until(lambda: counts(sqs, queue) == (1, 0, 0), "the end of the timeout")
    assert receive(sqs, queue) == []
    assert counts(sqs, dead) == (1, 0, 0)
    after, = receive(sqs, dead, **everything)
    for kept in ("MessageId", "Body", "MD5OfBody", "MessageAttributes", "MD5OfMessageAttributes"):
        assert after[kept] == before[kept]
    old, new = before["Attributes"], after["Attributes"]
    kept = {"SenderId", "AWSTraceHeader", "ApproximateFirstReceiveTimestamp"}
    kept |= {"MessageGroupId", "MessageDeduplicationId"} if fifo else {"SentTimestamp"}
    assert {key: new[key] for key in kept} == {key: old[key] for key in kept}
    assert new["ApproximateReceiveCount"] == "2"
    assert new["DeadLetterQueueSourceArn"] == arn(sqs, queue)
    if fifo:
        assert new["SequenceNumber"] > old["SequenceNumber"]
        assert int(new["SentTimestamp"]) >= int(old["SentTimestamp"]) + 1000


# 6.5


def test_6_5_refusals_come_in_order(sqs, pair, name):
    """Every request is wrong in all ways that come later, too."""
    queue, dead = pair
    fifo = sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    source, none = arn(sqs, dead), arn(sqs, dead) + "-none"
    form = ("You must use this format to specify the {}: "
            "arn:<partition>:<service>:<region>:<account-id>:<resource-id>")
    missing = "The resource that you specified for the {} parameter doesn't exist."
    invalid, absent = "InvalidParameterValue", "ResourceNotFoundException"
    kill_messages(sqs, queue, [str(number) for number in range(3)])
    handle = sqs.start_message_move_task(
        SourceArn=source, MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    for members, code, text in [
        ({"SourceArn": "x", "DestinationArn": "y"}, invalid, form.format("SourceArn")),
        ({"SourceArn": none, "DestinationArn": "y"}, invalid, form.format("DestinationArn")),
        ({"SourceArn": none, "DestinationArn": none}, absent, missing.format("SourceArn")),
        ({"SourceArn": arn(sqs, queue), "DestinationArn": arn(sqs, queue)}, invalid,
         "Source queue must be configured as a Dead Letter Queue."),
        ({"SourceArn": source, "DestinationArn": source}, invalid,
         "Source queue arn and destination queue arn cannot be the same."),
        ({"SourceArn": source, "DestinationArn": none}, absent, missing.format("DestinationArn")),
        ({"SourceArn": source, "DestinationArn": arn(sqs, fifo)}, invalid,
         "The source queue and destination queue must be of the same queue type."),
        ({"SourceArn": source}, invalid,
         "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must enter a "
         "number that's between 1 and 500."),
    ]:
        refused(sqs, sqs.start_message_move_task, code, text, MaxNumberOfMessagesPerSecond=501,
                **members)
    refused(sqs, sqs.start_message_move_task, invalid, "There is already a task running. Only one "
            "active task is allowed for a source queue arn at a given time.", SourceArn=source)
    sqs.cancel_message_move_task(TaskHandle=handle)
    done(sqs, dead)


def test_6_5_delayed_messages_and_those_in_flight_stay(sqs, pair):
    queue, dead = pair
    kill_messages(sqs, queue, ["held", "moved"])
    held, = receive(sqs, dead, MaxNumberOfMessages=1, VisibilityTimeout=600)
    send(sqs, dead, "delayed", DelaySeconds=900)
    sqs.start_message_move_task(SourceArn=arn(sqs, dead))
    ended = done(sqs, dead)
    assert (ended["Status"], ended["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 1)
    assert ended["ApproximateNumberOfMessagesToMove"] == 1
    assert counts(sqs, dead) == (0, 1, 1)
    assert bodies(receive(sqs, queue)) == ["moved"] and held["Body"] == "held"


def test_6_5_neither_delay_nor_size_of_the_destination_count(sqs, pair, name):
    queue, dead = pair
    other = sqs.create_queue(QueueName=f"{name}-other", Attributes={
        "DelaySeconds": "900", "MaximumMessageSize": "1024"})["QueueUrl"]
    kill_messages(sqs, queue, ["x" * 5000])
    sqs.start_message_move_task(SourceArn=arn(sqs, dead), DestinationArn=arn(sqs, other))
    assert done(sqs, dead)["Status"] == "COMPLETED"
    assert counts(sqs, other) == (1, 0, 0)
    assert bodies(receive(sqs, other)) == ["x" * 5000]


def test_6_5_a_destination_that_is_deleted_fails_the_task(sqs, pair, name):
    queue, dead = pair
    other = sqs.create_queue(QueueName=f"{name}-other")["QueueUrl"]
    kill_messages(sqs, queue, [str(number) for number in range(5)])
    sqs.start_message_move_task(SourceArn=arn(sqs, dead), DestinationArn=arn(sqs, other),
                                MaxNumberOfMessagesPerSecond=1)
    running = task(sqs, dead)
    assert (running["Status"], running["DestinationArn"]) == ("RUNNING", arn(sqs, other))
    assert running["ApproximateNumberOfMessagesToMove"] == 5
    sqs.delete_queue(QueueUrl=other)
    ended = done(sqs, dead)
    assert (ended["Status"], ended["FailureReason"]) == (
        "FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    assert "TaskHandle" not in ended
    # What was not moved stays.
    assert counts(sqs, dead) == (5 - ended["ApproximateNumberOfMessagesMoved"], 0, 0)


def test_6_5_a_cancelled_task_leaves_what_it_moved_and_what_it_did_not(sqs, pair):
    queue, dead = pair
    kill_messages(sqs, queue, [str(number) for number in range(5)])
    handle = sqs.start_message_move_task(
        SourceArn=arn(sqs, dead), MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    moved = sqs.cancel_message_move_task(
        TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
    ended = done(sqs, dead)
    assert ended["Status"] == "CANCELLED"
    assert ended["ApproximateNumberOfMessagesMoved"] >= moved
    moved = ended["ApproximateNumberOfMessagesMoved"]
    assert counts(sqs, dead) == (5 - moved, 0, 0) and counts(sqs, queue) == (moved, 0, 0)
    # Another task may begin.
    sqs.start_message_move_task(SourceArn=arn(sqs, dead))
    assert done(sqs, dead)["ApproximateNumberOfMessagesMoved"] == 5 - moved


def test_6_5_the_last_ten_tasks_are_listed_newest_first(sqs, pair):
    queue, dead = pair
    moved = []
    for number in range(12):
        kill_messages(sqs, queue, ["m"] * (1 + number % 3))
        sqs.start_message_move_task(SourceArn=arn(sqs, dead))
        moved.append(done(sqs, dead)["ApproximateNumberOfMessagesMoved"])
        sqs.purge_queue(QueueUrl=queue)
    assert moved == [1 + number % 3 for number in range(12)]

    def listed(**more):
        found = sqs.list_message_move_tasks(SourceArn=arn(sqs, dead), **more)["Results"]
        stamps = [each["StartedTimestamp"] for each in found]
        assert stamps == sorted(stamps, reverse=True)
        return [each["ApproximateNumberOfMessagesMoved"] for each in found]

    assert listed() == moved[-1:]
    assert listed(MaxResults=3) == moved[:-4:-1]
    assert listed(MaxResults=10) == moved[:-11:-1]


def test_6_5_redriven_messages_are_new(sqs, name):
    fifo = {"FifoQueue": "true"}
    queue, dead = make(sqs, name, **fifo)
    send(sqs, queue, "m", MessageGroupId="g", MessageDeduplicationId="d",
         MessageAttributes={"k": string("v")})
    for _ in range(2):
        old = receive(sqs, queue, VisibilityTimeout=0, **ALL) or old
    sqs.start_message_move_task(SourceArn=arn(sqs, dead))
    assert done(sqs, dead)["Status"] == "COMPLETED"
    new, = drain(sqs, queue, MessageAttributeNames=["All"])
    assert new["MessageId"] != old[0]["MessageId"]
    assert new["MessageAttributes"] == {"k": string("v")}
    before, after = old[0]["Attributes"], new["Attributes"]
    assert after["ApproximateReceiveCount"] == "1"
    assert after["SequenceNumber"] > before["SequenceNumber"]
    assert "DeadLetterQueueSourceArn" not in after
    assert after["MessageGroupId"] == "g"
