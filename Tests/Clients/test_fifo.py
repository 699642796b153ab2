"""FIFO queues through boto3: the rules of groups, deduplication, attributes, a restart."""

import hashlib
import threading

import pytest

from harness import receive, wait_until

ALL = {"MessageSystemAttributeNames": ["All"]}


@pytest.fixture
def fifo(sqs, name):
    return sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]


def send(sqs, queue, body, group="g", **more):
    more.setdefault("MessageDeduplicationId", body)
    return sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, **more)


def bodies(messages):
    return [message["Body"] for message in messages]


def refused(sqs, call, code, text, **arguments):
    with pytest.raises(sqs.exceptions.ClientError) as refusal:
        call(**arguments)
    error = refusal.value.response["Error"]
    assert (error["Code"], error["Message"]) == (code, text)


def test_attributes_are_those_of_a_fifo_queue(sqs, fifo):
    def attributes():
        found = sqs.get_queue_attributes(QueueUrl=fifo, AttributeNames=["All"])["Attributes"]
        return [found[name] for name in ("FifoQueue", "ContentBasedDeduplication",
                                         "DeduplicationScope", "FifoThroughputLimit")]

    assert attributes() == ["true", "false", "queue", "perQueue"]
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeValue",
            "The perMessageGroupId value is allowed only when the value for DeduplicationScope is "
            "messageGroup", QueueUrl=fifo, Attributes={"FifoThroughputLimit": "perMessageGroupId"})
    sqs.set_queue_attributes(QueueUrl=fifo, Attributes={
        "FifoQueue": "true", "ContentBasedDeduplication": "True",
        "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"})
    assert attributes() == ["true", "true", "messageGroup", "perMessageGroupId"]
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeValue",
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not "
            "supported.", QueueUrl=fifo, Attributes={"FifoQueue": "false"})


def test_creating_it_again_compares_its_attributes(sqs, fifo):
    name = fifo.rsplit("/", 1)[1]
    again = {"FifoQueue": "true", "ContentBasedDeduplication": "false"}
    assert sqs.create_queue(QueueName=name, Attributes=again)["QueueUrl"] == fifo
    refused(sqs, sqs.create_queue, "QueueAlreadyExists",
            "A queue already exists with the same name and a different value for attribute "
            "ContentBasedDeduplication", QueueName=name,
            Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})


def test_a_group_is_delivered_in_order_and_one_lease_at_a_time(sqs, fifo):
    sequence = [send(sqs, fifo, body)["SequenceNumber"] for body in "abc"]
    send(sqs, fifo, "other", group="h")
    assert sequence == sorted(sequence) and len(set(map(len, sequence))) == 1
    [first] = receive(sqs, fifo, MaxNumberOfMessages=1, **ALL)
    assert first["Body"] == "a"
    assert first["Attributes"]["SequenceNumber"] == sequence[0]
    assert first["Attributes"]["MessageGroupId"] == "g"
    assert first["Attributes"]["MessageDeduplicationId"] == "a"
    assert bodies(receive(sqs, fifo, MaxNumberOfMessages=10)) == ["other"]
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"])
    assert bodies(receive(sqs, fifo, MaxNumberOfMessages=10)) == ["b", "c"]


def test_one_that_comes_back_comes_alone(sqs, fifo):
    for body in "ab":
        send(sqs, fifo, body)
    first, _ = receive(sqs, fifo, MaxNumberOfMessages=10)
    sqs.change_message_visibility(
        QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    assert bodies(receive(sqs, fifo, MaxNumberOfMessages=10)) == ["a"]


def test_a_delete_wakes_who_waits_for_the_group(sqs, fifo, server):
    for body in "ab":
        send(sqs, fifo, body)
    [first] = receive(sqs, fifo, MaxNumberOfMessages=1)
    found = []
    waiter = threading.Thread(
        target=lambda: found.extend(receive(server.sqs(), fifo, WaitTimeSeconds=20)))
    waiter.start()
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"])
    waiter.join(15)
    assert bodies(found) == ["b"]


def test_a_repeated_send_is_the_first(sqs, fifo):
    first = send(sqs, fifo, "a", MessageDeduplicationId="id")
    again = send(sqs, fifo, "another", group="h", MessageDeduplicationId="id")
    for member in ("MessageId", "SequenceNumber"):
        assert again[member] == first[member]
    [message] = receive(sqs, fifo, MaxNumberOfMessages=10)
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=message["ReceiptHandle"])
    assert send(sqs, fifo, "a", MessageDeduplicationId="id")["MessageId"] == first["MessageId"]
    assert receive(sqs, fifo) == []
    sqs.purge_queue(QueueUrl=fifo)
    assert send(sqs, fifo, "a", MessageDeduplicationId="id")["MessageId"] != first["MessageId"]


def test_content_is_a_deduplication_id(sqs, name):
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={
        "FifoQueue": "true", "ContentBasedDeduplication": "true",
        "DeduplicationScope": "messageGroup"})["QueueUrl"]
    first = sqs.send_message(QueueUrl=queue, MessageBody="same", MessageGroupId="g")
    digest = hashlib.sha256(b"same").hexdigest()
    again = send(sqs, queue, "not the same", MessageDeduplicationId=digest)
    assert again["MessageId"] == first["MessageId"]
    other = sqs.send_message(QueueUrl=queue, MessageBody="same", MessageGroupId="h")
    assert other["MessageId"] != first["MessageId"]
    messages = receive(sqs, queue, MaxNumberOfMessages=10, **ALL)
    assert [m["Attributes"]["MessageDeduplicationId"] for m in messages] == [digest, digest]


def test_a_batch_keeps_its_order_and_its_repetitions(sqs, fifo):
    entries = [{"Id": str(n), "MessageBody": str(n), "MessageGroupId": "g",
                "MessageDeduplicationId": str(n % 4)} for n in range(6)]
    sent = sqs.send_message_batch(QueueUrl=fifo, Entries=entries)["Successful"]
    assert sent[4]["MessageId"] == sent[0]["MessageId"]
    assert sent[5]["SequenceNumber"] == sent[1]["SequenceNumber"]
    assert bodies(receive(sqs, fifo, MaxNumberOfMessages=10)) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("arguments,code,text", [
    ({}, "MissingParameter", "The request must contain the parameter MessageGroupId."),
    ({"MessageGroupId": "g"}, "InvalidParameterValue",
     "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
     "provided explicitly"),
    ({"MessageGroupId": "g", "MessageDeduplicationId": ""}, "InvalidParameterValue",
     "Value  for parameter MessageDeduplicationId is invalid. Reason: MessageDeduplicationId can "
     "only include alphanumeric and punctuation characters. 1 to 128 in length."),
    ({"MessageGroupId": "g", "MessageDeduplicationId": "d", "DelaySeconds": 1},
     "InvalidParameterValue",
     "Value 1 for parameter DelaySeconds is invalid. Reason: The request include parameter that is "
     "not valid for this queue type."),
], ids=["no group", "no deduplication id", "empty id", "delay"])
def test_parameters_that_do_not_fit_are_refused(sqs, fifo, arguments, code, text):
    refused(sqs, sqs.send_message, code, text, QueueUrl=fifo, MessageBody="x", **arguments)


def test_an_entry_without_a_group_refuses_its_batch(sqs, fifo):
    entries = [{"Id": "1", "MessageBody": "x", "MessageDeduplicationId": "1"}]
    refused(sqs, sqs.send_message_batch, "InvalidParameterValue",
            "The request must contain the parameter MessageGroupId.", QueueUrl=fifo,
            Entries=entries)


def test_groups_leases_and_deduplication_survive_a_kill(new_server):
    server = new_server().start()
    sqs = server.sqs()
    queue = sqs.create_queue(
        QueueName="kept.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    first = [send(sqs, queue, f"{group}{n}", group=group) for n in range(5) for group in "gh"]
    [leased] = receive(sqs, queue, MaxNumberOfMessages=1, VisibilityTimeout=600)
    server.kill()
    server.start()
    sqs = server.sqs()
    queue = sqs.get_queue_url(QueueName="kept.fifo")["QueueUrl"]
    again = send(sqs, queue, "g0", group="g")
    assert again["SequenceNumber"] == first[0]["SequenceNumber"]
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=10)) == [f"h{n}" for n in range(5)]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=leased["ReceiptHandle"])
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=10)) == [f"g{n}" for n in range(1, 5)]
    assert send(sqs, queue, "new")["SequenceNumber"] > first[-1]["SequenceNumber"]


def attempt(sqs, queue, name, **more):
    return receive(
        sqs, queue, ReceiveRequestAttemptId=name, MaxNumberOfMessages=10, **ALL, **more)


def test_a_receive_with_the_same_attempt_id_gives_the_same_answer(sqs, fifo):
    for number in range(3):
        send(sqs, fifo, str(number))
    first = attempt(sqs, fifo, "a")
    again = attempt(sqs, fifo, "a")
    assert bodies(again) == ["0", "1", "2"]
    assert [m["ReceiptHandle"] for m in again] == [m["ReceiptHandle"] for m in first]
    assert {m["Attributes"]["ApproximateReceiveCount"] for m in again} == {"1"}
    assert attempt(sqs, fifo, "b") == []
    send(sqs, fifo, "other", group="h")
    assert bodies(attempt(sqs, fifo, "b")) == ["other"], "nothing is remembered of an empty one"
    assert bodies(attempt(sqs, fifo, "a")) == ["0", "1", "2"]


@pytest.mark.parametrize("change", ["delete", "visibility"])
def test_an_attempt_whose_messages_were_changed_cannot_be_repeated(sqs, fifo, change):
    send(sqs, fifo, "m")
    message, = attempt(sqs, fifo, "a")
    handle = {"QueueUrl": fifo, "ReceiptHandle": message["ReceiptHandle"]}
    if change == "delete":
        sqs.delete_message(**handle)
    else:
        sqs.change_message_visibility(VisibilityTimeout=60, **handle)
    refused(sqs, sqs.receive_message, "InvalidParameterValue",
            "Value a for parameter ReceiveRequestAttemptId is invalid. Reason: The "
            "receiveRequestAttemptId is not valid anymore since the receive call is not "
            "retryable.", QueueUrl=fifo, ReceiveRequestAttemptId="a")


def test_an_attempt_starts_the_timeout_anew(sqs, fifo):
    send(sqs, fifo, "m")
    attempt(sqs, fifo, "a", VisibilityTimeout=600)
    attempt(sqs, fifo, "a", VisibilityTimeout=1)
    wait_until(lambda: receive(sqs, fifo), "the end of the shorter timeout")


def test_an_attempt_id_has_an_alphabet(sqs, fifo):
    for text in ("ü", "x" * 129):
        refused(sqs, sqs.receive_message, "InvalidParameterValue",
                f"Value {text} for parameter ReceiveRequestAttemptId is invalid. Reason: "
                "ReceiveRequestAttemptId can only include alphanumeric and punctuation "
                "characters. 1 to 128 in length.", QueueUrl=fifo, ReceiveRequestAttemptId=text)


def test_an_attempt_can_be_repeated_after_a_kill(new_server):
    server = new_server().start()
    sqs = server.sqs()
    queue = sqs.create_queue(
        QueueName="kept.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    send(sqs, queue, "m")
    first, = attempt(sqs, queue, "a", VisibilityTimeout=600)
    server.kill()
    server.start()
    sqs = server.sqs()
    queue = sqs.get_queue_url(QueueName="kept.fifo")["QueueUrl"]
    again, = attempt(sqs, queue, "a")
    assert again["ReceiptHandle"] == first["ReceiptHandle"]


def test_a_delete_by_a_handle_whose_lease_has_ended_is_refused(sqs, fifo):
    send(sqs, fifo, "m")
    old, = receive(sqs, fifo, VisibilityTimeout=0)
    reason = "Value {} for parameter ReceiptHandle is invalid. Reason: "
    expired = reason.format(old["ReceiptHandle"]) + "The receipt handle has expired."
    refused(sqs, sqs.delete_message, "InvalidParameterValue", expired,
            QueueUrl=fifo, ReceiptHandle=old["ReceiptHandle"])
    refused(sqs, sqs.change_message_visibility, "InvalidParameterValue",
            reason.format(old["ReceiptHandle"])
            + "Message does not exist or is not available for visibility timeout change.",
            QueueUrl=fifo, ReceiptHandle=old["ReceiptHandle"], VisibilityTimeout=5)
    new, = receive(sqs, fifo, VisibilityTimeout=1)
    sqs.change_message_visibility(
        QueueUrl=fifo, ReceiptHandle=new["ReceiptHandle"], VisibilityTimeout=600)
    refused(sqs, sqs.delete_message, "InvalidParameterValue", expired,
            QueueUrl=fifo, ReceiptHandle=old["ReceiptHandle"])
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=new["ReceiptHandle"])
    # Of a message that is gone any handle is good.
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=old["ReceiptHandle"])


def test_a_changed_delay_of_the_queue_moves_messages_that_are_delayed(sqs, fifo):
    sqs.set_queue_attributes(QueueUrl=fifo, Attributes={"DelaySeconds": "900"})
    send(sqs, fifo, "m")
    assert receive(sqs, fifo) == []
    sqs.set_queue_attributes(QueueUrl=fifo, Attributes={"DelaySeconds": "0"})
    assert bodies(receive(sqs, fifo)) == ["m"]
