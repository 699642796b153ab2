"""Rules of queues and their attributes, one test each, named by the part of the API that it is of.

Docs/conformance.md has all rules and their tests, those of other files too.
"""

import json

import pytest

from harness import NO_QUEUE, counts, receive, wait_until
from test_dead_letters import arn, policy, refused

STANDARD = {
    "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible", "CreatedTimestamp", "DelaySeconds",
    "LastModifiedTimestamp", "MaximumMessageSize", "MessageRetentionPeriod", "QueueArn",
    "ReceiveMessageWaitTimeSeconds", "SqsManagedSseEnabled", "VisibilityTimeout"}
FIFO = {"ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"}
DEFAULTS = {
    "VisibilityTimeout": "30", "DelaySeconds": "0", "MaximumMessageSize": "1048576",
    "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0"}
READ_ONLY = [
    "QueueArn", "CreatedTimestamp", "LastModifiedTimestamp", "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]


def attributes(sqs, queue, *names):
    return sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=list(names) or ["All"]).get("Attributes", {})


def change(sqs, queue, **values):
    sqs.set_queue_attributes(QueueUrl=queue, Attributes=values)


@pytest.fixture
def fifo(sqs, name):
    return sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]


def send(sqs, queue, body="m", group="g", **more):
    more.setdefault("MessageDeduplicationId", body)
    return sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, **more)


@pytest.mark.parametrize("attribute", DEFAULTS)
def test_3_1_default(sqs, queue, attribute):
    assert attributes(sqs, queue, attribute) == {attribute: DEFAULTS[attribute]}


@pytest.mark.parametrize("attribute", READ_ONLY)
def test_3_1_read_only(sqs, queue, name, attribute):
    text = f"Unknown Attribute {attribute}."
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeName", text,
            QueueUrl=queue, Attributes={attribute: "1"})
    refused(sqs, sqs.create_queue, "InvalidAttributeName", text,
            QueueName=name + "-new", Attributes={attribute: "1"})


def test_3_1_the_time_of_the_last_change_follows_changes_alone(sqs, queue):
    before = attributes(sqs, queue)
    stamp = "LastModifiedTimestamp"

    def changed():
        change(sqs, queue, VisibilityTimeout="31")
        return int(attributes(sqs, queue, stamp)[stamp]) > int(before[stamp])

    wait_until(changed, "a later second of a change")
    after = attributes(sqs, queue, stamp, "CreatedTimestamp")
    assert after["CreatedTimestamp"] == before["CreatedTimestamp"]

    def passed():
        # Sends, receives and deletes go on for longer than a second, and are no change.
        sqs.send_message(QueueUrl=queue, MessageBody="m")
        message, = receive(sqs, queue, MessageSystemAttributeNames=["SentTimestamp"])
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return int(message["Attributes"]["SentTimestamp"]) // 1000 > int(after[stamp]) + 1

    wait_until(passed, "messages of a later second")
    assert attributes(sqs, queue, stamp) == {stamp: after[stamp]}


def test_3_1_counts_are_exact_disjoint_and_immediate(sqs, queue):
    for number in range(5):
        sqs.send_message(QueueUrl=queue, MessageBody=str(number))
        assert counts(sqs, queue) == (number + 1, 0, 0)
    sqs.send_message(QueueUrl=queue, MessageBody="delayed", DelaySeconds=900)
    assert counts(sqs, queue) == (5, 0, 1)
    leased = receive(sqs, queue, MaxNumberOfMessages=2)
    assert counts(sqs, queue) == (3, 2, 1)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=leased[0]["ReceiptHandle"])
    assert counts(sqs, queue) == (3, 1, 1)


def test_3_1_messages_that_wait_in_their_group_count_as_visible(sqs, fifo):
    for group in "abc":
        for number in "12":
            send(sqs, fifo, group + number, group)
    for _ in range(2):
        assert len(receive(sqs, fifo, MaxNumberOfMessages=1)) == 1
    assert counts(sqs, fifo) == (4, 2, 0)


@pytest.mark.parametrize("attribute, value, code, text", [
    ("FifoQueue", "true", "InvalidAttributeName", "Unknown Attribute FifoQueue."),
    ("FifoQueue", "false", "InvalidAttributeName", "Unknown Attribute FifoQueue."),
    ("ContentBasedDeduplication", "true", "InvalidAttributeName",
     "Unknown Attribute ContentBasedDeduplication."),
    ("ContentBasedDeduplication", "false", "InvalidAttributeName",
     "Unknown Attribute ContentBasedDeduplication."),
    ("DeduplicationScope", "queue", "InvalidAttributeName",
     "You can specify the DeduplicationScope only when FifoQueue is set to true."),
    ("FifoThroughputLimit", "perQueue", "InvalidAttributeName",
     "You can specify the FifoThroughputLimit only when FifoQueue is set to true."),
    ("Nonsense", "1", "InvalidAttributeName", "Unknown Attribute Nonsense."),
    ("visibilityTimeout", "1", "InvalidAttributeName", "Unknown Attribute visibilityTimeout."),
])
def test_3_2_standard_queue(sqs, queue, name, attribute, value, code, text):
    refused(sqs, sqs.set_queue_attributes, code, text,
            QueueUrl=queue, Attributes={attribute: value})
    # Creating it with that is refused too; a FifoQueue of "true" needs another name there.
    if (attribute, value) != ("FifoQueue", "true"):
        refused(sqs, sqs.create_queue, code, text,
                QueueName=name + "-new", Attributes={attribute: value})


@pytest.mark.parametrize("attribute, value, text", [
    ("FifoQueue", "false", "Invalid value for the parameter FifoQueue. Reason: Modifying queue "
     "type is not supported."),
    ("ContentBasedDeduplication", "maybe",
     "Invalid value for the parameter ContentBasedDeduplication."),
    ("ContentBasedDeduplication", "", "Invalid value for the parameter ContentBasedDeduplication."),
    ("DeduplicationScope", "group", "Invalid value for the parameter DeduplicationScope."),
    ("DeduplicationScope", "Queue", "Invalid value for the parameter DeduplicationScope."),
    ("FifoThroughputLimit", "perGroup", "Invalid value for the parameter FifoThroughputLimit."),
    ("FifoThroughputLimit", "perMessageGroupId", "The perMessageGroupId value is allowed only when "
     "the value for DeduplicationScope is messageGroup"),
])
def test_3_2_fifo_queue(sqs, fifo, attribute, value, text):
    before = attributes(sqs, fifo)
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeValue", text,
            QueueUrl=fifo, Attributes={attribute: value})
    assert attributes(sqs, fifo) == before
    change(sqs, fifo, FifoQueue="true")
    assert attributes(sqs, fifo, "FifoQueue") == {"FifoQueue": "true"}


@pytest.mark.parametrize("attribute, low, high", [
    ("VisibilityTimeout", 0, 43200), ("DelaySeconds", 0, 900),
    ("MaximumMessageSize", 1024, 1_048_576), ("MessageRetentionPeriod", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", 0, 20),
])
def test_3_2_integers(sqs, queue, name, attribute, low, high):
    for value in (low - 1, high + 1, "", "x", f" {low}", f"{low} ", f"+{high}", f"{low}.0", "1e3"):
        for call, where in ((sqs.set_queue_attributes, {"QueueUrl": queue}),
                            (sqs.create_queue, {"QueueName": name + "-new"})):
            refused(sqs, call, "InvalidAttributeValue",
                    f"Invalid value for the parameter {attribute}.",
                    Attributes={attribute: str(value)}, **where)


def test_3_2_truth_may_have_any_letter_case_and_reads_back_in_lower_case(sqs, name):
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={
        "FifoQueue": "True", "ContentBasedDeduplication": "TRUE"})["QueueUrl"]
    names = ["FifoQueue", "ContentBasedDeduplication"]
    assert attributes(sqs, queue, *names) == dict.fromkeys(names, "true")
    change(sqs, queue, ContentBasedDeduplication="False")
    assert attributes(sqs, queue, names[1]) == {names[1]: "false"}


def test_3_2_an_empty_policy_is_none(sqs, queue, name):
    both = {"RedrivePolicy": "", "RedriveAllowPolicy": ""}
    new = sqs.create_queue(QueueName=name + "-new", Attributes=both)["QueueUrl"]
    assert set(attributes(sqs, new)) == STANDARD
    change(sqs, new, RedrivePolicy=policy(arn(sqs, queue), 3),
           RedriveAllowPolicy='{"redrivePermission":"denyAll"}')
    assert set(attributes(sqs, new)) == STANDARD | set(both)
    change(sqs, new, **both)
    assert set(attributes(sqs, new)) == STANDARD


@pytest.mark.parametrize("count", [5, "5"])
def test_3_2_a_policy_reads_back_as_canonical_json(sqs, queue, name, count):
    text = json.dumps({"maxReceiveCount": count, "deadLetterTargetArn": arn(sqs, queue)}, indent=1)
    new = sqs.create_queue(QueueName=name + "-new", Attributes={"RedrivePolicy": text})["QueueUrl"]
    expected = '{"deadLetterTargetArn":"%s","maxReceiveCount":5}' % arn(sqs, queue)
    assert attributes(sqs, new, "RedrivePolicy") == {"RedrivePolicy": expected}
    # Creating it again compares what the texts mean.
    assert sqs.create_queue(
        QueueName=name + "-new", Attributes={"RedrivePolicy": expected})["QueueUrl"] == new


def test_3_3_all_is_the_recorded_set(sqs, queue, fifo):
    assert set(attributes(sqs, queue)) == STANDARD
    assert set(attributes(sqs, fifo)) == STANDARD | FIFO
    # Names that do not apply, or have no value, are left out.
    assert attributes(sqs, queue, *FIFO, "RedrivePolicy", "Policy", "KmsMasterKeyId") == {}


def test_3_4_a_new_delay_of_a_standard_queue_holds_for_later_sends(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="before")
    change(sqs, queue, DelaySeconds="900")
    sqs.send_message(QueueUrl=queue, MessageBody="between")
    assert counts(sqs, queue) == (1, 0, 1)
    change(sqs, queue, DelaySeconds="0")
    assert counts(sqs, queue) == (1, 0, 1)


def test_3_4_a_new_delay_of_a_fifo_queue_holds_for_delayed_messages(sqs, fifo):
    change(sqs, fifo, DelaySeconds="900")
    send(sqs, fifo)
    assert counts(sqs, fifo) == (0, 0, 1)
    change(sqs, fifo, DelaySeconds="800")
    assert counts(sqs, fifo) == (0, 0, 1)
    change(sqs, fifo, DelaySeconds="0")
    assert counts(sqs, fifo) == (1, 0, 0)


def test_3_4_a_new_visibility_timeout_holds_for_later_receives(sqs, queue):
    for body in "ab":
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    assert [m["Body"] for m in receive(sqs, queue, MaxNumberOfMessages=1)] == ["a"]
    change(sqs, queue, VisibilityTimeout="0")
    assert counts(sqs, queue) == (1, 1, 0)
    assert [m["Body"] for m in receive(sqs, queue, MaxNumberOfMessages=10)] == ["b"]
    assert counts(sqs, queue) == (1, 1, 0)


def test_3_4_a_new_maximum_size_holds_for_later_sends(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x" * 2000)
    change(sqs, queue, MaximumMessageSize="1024")
    refused(sqs, sqs.send_message, "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.",
            QueueUrl=queue, MessageBody="x" * 1025)
    assert [len(m["Body"]) for m in receive(sqs, queue)] == [2000]


def test_3_4_deduplication_by_content_holds_for_later_sends(sqs, fifo):
    without = {"QueueUrl": fifo, "MessageBody": "m", "MessageGroupId": "g"}
    change(sqs, fifo, ContentBasedDeduplication="true")
    first = sqs.send_message(**without)
    assert sqs.send_message(**without)["MessageId"] == first["MessageId"]
    change(sqs, fifo, ContentBasedDeduplication="false")
    refused(sqs, sqs.send_message, "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or "
            "MessageDeduplicationId provided explicitly", **without)


@pytest.mark.parametrize("made, changed", [("queue", "messageGroup"), ("messageGroup", "queue")])
def test_3_4_the_scope_of_deduplication_stays_what_it_was_at_creation(sqs, name, made, changed):
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={
        "FifoQueue": "true", "DeduplicationScope": made})["QueueUrl"]

    def is_repeated(number):
        ids = {send(sqs, queue, "m", group, MessageDeduplicationId=number)["MessageId"]
               for group in "ab"}
        return len(ids) == 1

    assert is_repeated("1") == (made == "queue")
    change(sqs, queue, DeduplicationScope=changed)
    assert attributes(sqs, queue, "DeduplicationScope") == {"DeduplicationScope": changed}
    # For ids of before and for new ones.
    assert is_repeated("1") == is_repeated("2") == (made == "queue")


def test_7_1_a_purge_takes_messages_in_every_state_and_none_after_it(sqs, queue):
    for body in ("leased", "visible"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    sqs.send_message(QueueUrl=queue, MessageBody="delayed", DelaySeconds=1)
    leased, = receive(sqs, queue, MaxNumberOfMessages=1)
    sqs.purge_queue(QueueUrl=queue)
    assert counts(sqs, queue) == (0, 0, 0)
    # What had a deadline does not come back at it.
    assert receive(sqs, queue, WaitTimeSeconds=2) == []
    handle = {"QueueUrl": queue, "ReceiptHandle": leased["ReceiptHandle"]}
    sqs.delete_message(**handle)
    refused(sqs, sqs.change_message_visibility, "InvalidParameterValue",
            f"Value {leased['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: "
            "Message does not exist or is not available for visibility timeout change.",
            VisibilityTimeout=1, **handle)
    sqs.send_message(QueueUrl=queue, MessageBody="after")
    sqs.purge_queue(QueueUrl=queue)
    sqs.send_message(QueueUrl=queue, MessageBody="after the second")
    assert [m["Body"] for m in receive(sqs, queue)] == ["after the second"]


def test_7_1_a_purge_opens_groups_and_forgets_deduplication_ids(sqs, fifo):
    first = send(sqs, fifo, "m")
    leased, = receive(sqs, fifo)
    sqs.purge_queue(QueueUrl=fifo)
    # Of a message that is gone any handle is good.
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=leased["ReceiptHandle"])
    again = send(sqs, fifo, "m")
    assert again["MessageId"] != first["MessageId"]
    assert again["SequenceNumber"] > first["SequenceNumber"]
    assert [m["MessageId"] for m in receive(sqs, fifo)] == [again["MessageId"]]


def test_7_2_a_deleted_queue_may_be_made_again_at_once_and_knows_nothing(sqs, name):
    fifo = {"QueueName": f"{name}.fifo", "Attributes": {"FifoQueue": "true"}}
    queue = sqs.create_queue(**fifo)["QueueUrl"]
    first = send(sqs, queue, "m")
    leased, = receive(sqs, queue)
    sqs.delete_queue(QueueUrl=queue)
    refused(sqs, sqs.delete_queue, "AWS.SimpleQueueService.NonExistentQueue",
            NO_QUEUE, QueueUrl=queue)
    assert sqs.create_queue(**fifo)["QueueUrl"] == queue
    assert counts(sqs, queue) == (0, 0, 0)
    refused(sqs, sqs.delete_message, "ReceiptHandleIsInvalid",
            "The input receipt handle is invalid.",
            QueueUrl=queue, ReceiptHandle=leased["ReceiptHandle"])
    # Sequence numbers go on, deduplication ids do not.
    again = send(sqs, queue, "m")
    assert again["MessageId"] != first["MessageId"]
    assert again["SequenceNumber"] > first["SequenceNumber"]


def test_7_2_a_source_outlives_its_dead_letter_queue(sqs, queue, name):
    dead = sqs.create_queue(QueueName=name + "-dead")["QueueUrl"]
    change(sqs, queue, RedrivePolicy=policy(arn(sqs, dead), 1))
    sqs.delete_queue(QueueUrl=dead)
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    for _ in range(2):
        assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    assert sqs.create_queue(QueueName=name + "-dead")["QueueUrl"] == dead
    assert receive(sqs, queue) == []
    assert counts(sqs, dead) == (1, 0, 0)
