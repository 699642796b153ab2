"""Rules of messages, one test each: identity, size, attributes, handles, timeouts, delays, waiting.

Docs/conformance.md has all rules and their tests, those of other files too. What takes minutes is
tested over the same service with a clock that is told, in Tests/PenstockSQSTests/RuleTests.swift.
"""

import re

import pytest

from harness import counts, md5, receive, wait_until
from test_dead_letters import arn, policy, refused
from test_waiting import waiting

ALL = {"MessageSystemAttributeNames": ["All"]}
EXPIRED = ("Value {} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is "
           "not available for visibility timeout change.")


def send(sqs, queue, body="m", **more):
    return sqs.send_message(QueueUrl=queue, MessageBody=body, **more)


def string(value="x", kind="String"):
    return {"DataType": kind, "StringValue": value}


def hide(sqs, queue, message, seconds):
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds)


def bodies(messages):
    return [message["Body"] for message in messages]


def test_4_1_a_message_id_is_a_random_uuid_in_lower_case(sqs, queue):
    ids = {send(sqs, queue, "same")["MessageId"] for _ in range(20)}
    assert len(ids) == 20
    for each in ids:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                            each)


@pytest.mark.parametrize("character, allowed", [
    ("\0", False), ("\x08", False), ("\t", True), ("\n", True), ("\x0b", False), ("\r", True),
    ("\x0e", False), ("\x1f", False), (" ", True), ("\x7f", True), ("\ud7ff", True),
    ("\ue000", True), ("\ufffd", True), ("\ufffe", False), ("\uffff", False),
    ("\U00010000", True), ("\U0010ffff", True),
], ids=lambda value: f"U+{ord(value):04X}" if isinstance(value, str) else None)
def test_4_1_characters(sqs, queue, character, allowed):
    text = f"a{character}b"
    values = {"k": string(text)}
    if allowed:
        send(sqs, queue, text, MessageAttributes=values)
        message, = receive(sqs, queue, MessageAttributeNames=["All"])
        assert (message["Body"], message["MessageAttributes"]) == (text, values)
        return
    rule = ("Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to "
            "#xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
    refused(sqs, sqs.send_message, "InvalidMessageContents", rule, QueueUrl=queue,
            MessageBody=text)
    with pytest.raises(sqs.exceptions.ClientError) as refusal:
        send(sqs, queue, MessageAttributes=values)
    assert refusal.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert counts(sqs, queue) == (0, 0, 0)


@pytest.mark.parametrize("attributes, size", [
    ({}, 0),
    ({"k": string("x")}, 8),
    ({"k": string("é")}, 9),
    ({"ß": string("x")}, 9),
    ({"n": string("42", "Number.int")}, 13),
    # Binary values count decoded.
    ({"b": {"DataType": "Binary", "BinaryValue": bytes(100)}}, 107),
], ids=lambda value: str(value) if isinstance(value, int) else "")
def test_4_2_size_counts_names_types_and_values(sqs, name, attributes, size):
    limit = 1024
    queue = sqs.create_queue(QueueName=name, Attributes={
        "MaximumMessageSize": str(limit)})["QueueUrl"]
    more = {"MessageAttributes": attributes} if attributes else {}
    send(sqs, queue, "b" * (limit - size), **more)
    # System attributes do not count.
    trace = {"AWSTraceHeader": string("t" * 100)}
    send(sqs, queue, "b" * (limit - size), MessageSystemAttributes=trace, **more)
    refused(sqs, sqs.send_message, "InvalidParameterValue",
            f"One or more parameters are invalid. Reason: Message must be shorter than {limit} "
            "bytes.", QueueUrl=queue, MessageBody="b" * (limit - size + 1), **more)
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=[
        {"Id": "1", "MessageBody": "b" * (limit - size + 1), **more}])
    assert answer["Failed"][0]["Message"] == (
        "One or more parameters cannot be validated. Reason: Message must be shorter than "
        f"{limit} bytes.")


BASE = ("The type of message (user) attribute 'a' is invalid. You must use only the following "
        "supported type prefixes: Binary, Number, String.")
NAME = ("Message (user) attributes name can only contain upper and lower score characters, digits, "
        "periods, hyphens and underscores. ")
RESERVED = ("You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These "
            "strings are reserved for internal use. Additionally, they cannot start or end with "
            "'.'.")


@pytest.mark.parametrize("attributes, text", [
    ({f"a{n}": string() for n in range(11)},
     "Number of message attributes [11] exceeds the allowed maximum [10]."),
    ({"a": string("")},
     "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
    ({"a": string("", "Number.int")},
     "Message (user) attribute 'a' must contain a non-empty value of type 'Number.int'."),
    ({"a": string("ten", "Number")},
     "Can't cast the value of message (user) attribute 'a' to a number."),
    ({"a": string("1" * 39, "Number")},
     "Can't cast the value of message (user) attribute 'a' to a number."),
    ({"a" * 257: string()}, "Message (user) attribute names must be shorter than 256 Bytes"),
    ({"a b": string()}, NAME), ({"a!": string()}, NAME), ({"a§": string()}, NAME),
    ({"a(": string()}, NAME), ({"a?": string()}, NAME), ({'a"': string()}, NAME),
    ({"AWS.a": string()}, RESERVED), ({"aws.a": string()}, RESERVED),
    ({"Amazon.a": string()}, RESERVED), ({"aMAZON.a": string()}, RESERVED),
    ({".a": string()}, RESERVED), ({"a.": string()}, RESERVED),
    ({"a..b": string()}, "Message (user) attribute name must not have successive '.' characters."),
    ({"a": {}},
     "The message (user) attribute 'a' must contain a non-empty message attribute value."),
    ({"a": {"StringValue": "x"}},
     "The message (user) attribute 'a' must contain a non-empty message attribute type."),
    ({"a": string(kind="Text")}, BASE), ({"a": string(kind="string")}, BASE),
    ({"a": string(kind="Strings")}, BASE),
    ({"a": string(kind="String." + "t" * 249)},
     "Message (user) attribute types must be shorter than 256 Bytes"),
    ({"a": {"DataType": "String", "BinaryValue": "eA=="}},
     "The message (user) attribute 'a' with type 'String' must use field 'String'."),
    ({"a": string(kind="Binary")},
     "The message (user) attribute 'a' with type 'Binary' must use field 'Binary'."),
    ({"a": {**string(), "BinaryValue": "eA=="}},
     "Message (user) attribute 'a' must have a single value."),
], ids=lambda value: next(iter(value))[:12] if isinstance(value, dict) else "")
def test_4_3_wrong_attributes(raw, queue, attributes, text):
    got = raw.error("SendMessage", QueueUrl=queue, MessageBody="m", MessageAttributes=attributes)
    assert got == (400, "com.amazon.coral.service#InvalidParameterValueException",
                   "InvalidParameterValue", text)
    # An entry of a batch fails alone, with the same words.
    answer = raw.ok("SendMessageBatch", QueueUrl=queue, Entries=[
        {"Id": "bad", "MessageBody": "m", "MessageAttributes": attributes},
        {"Id": "good", "MessageBody": "m"}])
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert answer["Failed"] == [{"Id": "bad", "SenderFault": True,
                                 "Code": "InvalidParameterValue", "Message": text}]


@pytest.mark.parametrize("value", ["0", "-1", "1493147359900", "-0042.500", "1e10", "1.5E-3",
                                   "9" * 38, "1E126", "1E-128"])
def test_4_3_numbers_are_kept_as_they_were_sent(sqs, queue, value):
    send(sqs, queue, MessageAttributes={"n": string(value, "Number")})
    message, = receive(sqs, queue, MessageAttributeNames=["n"])
    assert message["MessageAttributes"]["n"] == string(value, "Number")


@pytest.mark.parametrize("attribute", ["SenderId", "SentTimestamp", "awstraceheader", "x"])
def test_4_4_the_trace_header_is_the_only_system_attribute_to_send(sqs, queue, attribute):
    refused(sqs, sqs.send_message, "InvalidParameterValue",
            f"Message system attribute name '{attribute}' is invalid.", QueueUrl=queue,
            MessageBody="m", MessageSystemAttributes={attribute: string()})


def test_4_4_each_system_attribute_by_its_name(sqs, name):
    """A message that has them all: one of a FIFO queue that was moved to the dead letters."""
    kind = {"FifoQueue": "true"}
    dead = sqs.create_queue(QueueName=f"{name}-dead.fifo", Attributes=kind)["QueueUrl"]
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={
        **kind, "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    send(sqs, queue, MessageGroupId="g", MessageDeduplicationId="d",
         MessageSystemAttributes={"AWSTraceHeader": string("trace")})
    for _ in range(2):
        receive(sqs, queue, VisibilityTimeout=0)
    every = receive(sqs, dead, VisibilityTimeout=0, **ALL)[0]["Attributes"]
    assert every.pop("SenderId") == queue.split("/")[-2]
    assert every.pop("ApproximateReceiveCount") == "2"
    assert every["SequenceNumber"].isdigit()
    for stamp in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        assert re.fullmatch(r"\d{13}", every[stamp])
    constant = {"MessageGroupId": "g", "MessageDeduplicationId": "d", "AWSTraceHeader": "trace",
                "DeadLetterQueueSourceArn": arn(sqs, queue)}
    assert constant.items() <= every.items()
    assert set(every) == {*constant, "SequenceNumber", "SentTimestamp",
                          "ApproximateFirstReceiveTimestamp"}
    for attribute, value in every.items():
        message, = receive(
            sqs, dead, VisibilityTimeout=0, MessageSystemAttributeNames=[attribute])
        assert message["Attributes"] == {attribute: value}


def test_4_4_a_name_without_a_value_is_absent(sqs, queue):
    send(sqs, queue)
    message, = receive(sqs, queue, MessageSystemAttributeNames=[
        "MessageGroupId", "MessageDeduplicationId", "SequenceNumber", "AWSTraceHeader",
        "DeadLetterQueueSourceArn"])
    assert "Attributes" not in message


def test_4_5_every_receive_gives_a_new_handle(sqs, queue):
    send(sqs, queue)
    handles = [receive(sqs, queue, VisibilityTimeout=0)[0]["ReceiptHandle"] for _ in range(5)]
    assert len(set(handles)) == 5
    for handle in handles:
        assert handle.startswith("AQEB") and len(handle) <= 1024
        assert re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", handle)


def test_4_5_standard_the_newest_handle_in_flight(sqs, queue):
    send(sqs, queue)
    message, = receive(sqs, queue)
    hide(sqs, queue, message, 60)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)


@pytest.mark.parametrize("by", ["zero", "time"])
def test_4_5_standard_the_newest_handle_after_its_timeout(sqs, queue, by):
    send(sqs, queue)
    message, = receive(sqs, queue, VisibilityTimeout=0 if by == "zero" else 1)
    wait_until(lambda: counts(sqs, queue) == (1, 0, 0), "the end of the timeout")
    hide(sqs, queue, message, 600)
    assert counts(sqs, queue) == (0, 1, 0)
    hide(sqs, queue, message, 0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)


def test_4_5_standard_an_older_handle(sqs, queue):
    send(sqs, queue)
    old, = receive(sqs, queue, VisibilityTimeout=0)
    receive(sqs, queue, VisibilityTimeout=600)
    # It ends the newer receive's timeout, hides again, and deletes.
    hide(sqs, queue, old, 0)
    assert counts(sqs, queue) == (1, 0, 0)
    hide(sqs, queue, old, 600)
    assert counts(sqs, queue) == (0, 1, 0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=old["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)


@pytest.mark.parametrize("suffix", ["", ".fifo"], ids=["standard", "fifo"])
def test_4_5_a_handle_of_a_deleted_message(sqs, name, suffix):
    fifo = bool(suffix)
    queue = sqs.create_queue(
        QueueName=name + suffix, Attributes={"FifoQueue": "true"} if fifo else {})["QueueUrl"]
    send(sqs, queue, **({"MessageGroupId": "g", "MessageDeduplicationId": "d"} if fifo else {}))
    message, = receive(sqs, queue)
    handle = {"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]}
    for _ in range(3):
        sqs.delete_message(**handle)
    refused(sqs, sqs.change_message_visibility, "InvalidParameterValue",
            EXPIRED.format(message["ReceiptHandle"]), VisibilityTimeout=1, **handle)


@pytest.mark.parametrize("by", ["time", "zero", "another receive"])
def test_4_5_fifo_a_handle_that_has_expired(sqs, name, by):
    queue = sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    send(sqs, queue, MessageGroupId="g", MessageDeduplicationId="d")
    message, = receive(sqs, queue, VisibilityTimeout=1 if by == "time" else 600)
    if by == "time":
        wait_until(lambda: counts(sqs, queue) == (1, 0, 0), "the end of the timeout")
    else:
        hide(sqs, queue, message, 0)
    if by == "another receive":
        assert len(receive(sqs, queue, VisibilityTimeout=600)) == 1
    handle = {"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]}
    before = counts(sqs, queue)
    refused(sqs, sqs.delete_message, "InvalidParameterValue",
            f"Value {message['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: "
            "The receipt handle has expired.", **handle)
    refused(sqs, sqs.change_message_visibility, "InvalidParameterValue",
            EXPIRED.format(message["ReceiptHandle"]), VisibilityTimeout=1, **handle)
    assert counts(sqs, queue) == before


def test_4_6_a_timeout_of_zero_delivers_counts_and_hides_nothing(sqs, queue):
    send(sqs, queue)
    for count in "123":
        message, = receive(sqs, queue, VisibilityTimeout=0, **ALL)
        assert message["Attributes"]["ApproximateReceiveCount"] == count
        assert counts(sqs, queue) == (1, 0, 0)


def test_4_6_a_change_counts_from_now_and_is_not_added(sqs, queue):
    send(sqs, queue)
    message, = receive(sqs, queue, VisibilityTimeout=600)
    hide(sqs, queue, message, 1)
    assert bodies(receive(sqs, queue, WaitTimeSeconds=20)) == ["m"]


def test_4_6_more_than_twelve_hours_in_all(sqs, queue):
    send(sqs, queue)
    message, = receive(sqs, queue, VisibilityTimeout=43200)

    def is_over():
        try:
            hide(sqs, queue, message, 43200)
        except sqs.exceptions.ClientError as failure:
            return failure.response["Error"]

    error = wait_until(is_over, "a moment after the receive")
    assert (error["Code"], error["Message"]) == (
        "InvalidParameterValue", "Value 43200 for parameter VisibilityTimeout is invalid. Reason: "
        "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")
    failed, = sqs.change_message_visibility_batch(QueueUrl=queue, Entries=[
        {"Id": "a", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 43200},
    ])["Failed"]
    assert (failed["Code"], failed["Message"]) == (error["Code"], error["Message"])


def test_4_6_a_message_that_comes_back_is_received_before_newer_ones(sqs, queue):
    for body in "abc":
        send(sqs, queue, body)
    first, _ = receive(sqs, queue, MaxNumberOfMessages=2)
    send(sqs, queue, "d")
    hide(sqs, queue, first, 0)
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=10)) == ["a", "c", "d"]


@pytest.mark.parametrize("given, delayed", [(None, 1), (0, 0), (5, 1)])
def test_4_7_standard_a_delay_of_its_own_overrides_the_queues(sqs, name, given, delayed):
    queue = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "900"})["QueueUrl"]
    send(sqs, queue, **({} if given is None else {"DelaySeconds": given}))
    assert counts(sqs, queue) == (1 - delayed, 0, delayed)


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_4_7_fifo_zero_does_not_override_and_more_is_refused(sqs, name, batch):
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={
        "FifoQueue": "true", "DelaySeconds": "900"})["QueueUrl"]
    message = {"MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "d"}

    def send_with(delay):
        if not batch:
            return sqs.send_message(QueueUrl=queue, DelaySeconds=delay, **message)
        return sqs.send_message_batch(
            QueueUrl=queue, Entries=[{"Id": "1", "DelaySeconds": delay, **message}])

    if batch:
        failed, = send_with(1)["Failed"]
        assert failed == {
            "Id": "1", "SenderFault": True, "Code": "InvalidParameterValue",
            "Message": "The request include parameter that is not valid for this queue type"}
    else:
        refused(sqs, lambda: send_with(1), "InvalidParameterValue",
                "Value 1 for parameter DelaySeconds is invalid. Reason: The request include "
                "parameter that is not valid for this queue type.")
    assert counts(sqs, queue) == (0, 0, 0)
    send_with(0)
    assert counts(sqs, queue) == (0, 0, 1)


def test_4_8_a_poll_takes_as_many_as_are_there_at_once(server, sqs, queue):
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20, MaxNumberOfMessages=10)
    sqs.send_message_batch(QueueUrl=queue, Entries=[
        {"Id": str(n), "MessageBody": str(n)} for n in range(3)])
    assert bodies(poll.result()) == ["0", "1", "2"]


def test_4_8_a_group_that_is_released_wakes_a_poll(server, sqs, name):
    queue = sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for body in "abc":
        send(sqs, queue, body, MessageGroupId="g", MessageDeduplicationId=body)
    first, = receive(sqs, queue, VisibilityTimeout=600)
    # By a delete, and by a change of visibility to zero.
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    second, = poll.result()
    assert second["Body"] == "b"
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    hide(sqs, queue, second, 0)
    assert bodies(poll.result()) == ["b"]


def test_4_8_a_move_task_wakes_a_poll(server, sqs, name):
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    queue = sqs.create_queue(
        QueueName=name, Attributes={"RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    send(sqs, queue)
    for _ in range(2):
        receive(sqs, queue, VisibilityTimeout=0)
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    sqs.start_message_move_task(SourceArn=arn(sqs, dead))
    assert bodies(poll.result()) == ["m"]


@pytest.mark.parametrize("names, expected", [
    (["All"], 4), ([".*"], 4), (["*"], 4), (["Hel.*"], ["Hello", "Help.Me"]),
    (["col.*"], ["color"]), (["Help"], None), (["Help.Me"], ["Help.Me"]), (["hello"], None),
    (["AWS.", "..foo", "nonsense!", "color"], ["color"]), ([], None), (None, None),
], ids=str)
def test_4_9_filters_of_names(sqs, queue, names, expected):
    sent = {key: string(key) for key in ("General", "Hello", "Help.Me", "color")}
    send(sqs, queue, MessageAttributes=sent)
    # The client of these tests checks the digest: it is that of what is returned.
    message, = receive(
        sqs, queue, **({} if names is None else {"MessageAttributeNames": names}))
    if expected is None:
        assert not {"MessageAttributes", "MD5OfMessageAttributes"} & set(message)
    else:
        expected = list(sent) if expected == 4 else expected
        assert sorted(message["MessageAttributes"]) == sorted(expected)


LIMIT = "The maximum number of in flight messages is reached"


def test_4_11_standard_in_flight_limit(new_server):
    server = new_server("--maximum-in-flight", "12").start()
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="limited")["QueueUrl"]
    for number in range(14):
        send(sqs, queue, str(number))
    held = receive(sqs, queue, MaxNumberOfMessages=10)
    # As many as the limit leaves, then none.
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=10)) == ["10", "11"]
    refused(sqs, sqs.receive_message, "OverLimit", LIMIT, QueueUrl=queue)
    poll = waiting(receive, server.sqs(), queue, WaitTimeSeconds=20)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=held[0]["ReceiptHandle"])
    assert bodies(poll.result()) == ["12"]
    # A poll that nothing comes to ends empty, not with an error.
    assert receive(sqs, queue, WaitTimeSeconds=1) == []
    assert counts(sqs, queue) == (1, 12, 0)
    # The limit is the queue's, in this and in later runs.
    server.restart()
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="limited")["QueueUrl"]
    refused(sqs, sqs.receive_message, "OverLimit", LIMIT, QueueUrl=queue)


def test_4_11_fifo_in_flight_limit(new_server):
    sqs = new_server("--maximum-in-flight", "2").start().sqs()
    queue = sqs.create_queue(
        QueueName="limited.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for number in range(3):
        send(sqs, queue, str(number), MessageGroupId=str(number),
             MessageDeduplicationId=str(number))
    held = receive(sqs, queue, MaxNumberOfMessages=10)
    assert bodies(held) == ["0", "1"]
    assert receive(sqs, queue) == []
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=held[1]["ReceiptHandle"])
    assert bodies(receive(sqs, queue)) == ["2"]


def test_4_11_a_limit_of_zero_is_none(new_server):
    server = new_server("--maximum-in-flight", "0").start()
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName="unlimited")["QueueUrl"]
    for _ in range(2):
        send(sqs, queue)
        assert len(receive(sqs, queue)) == 1


TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.mark.parametrize("attributes, digest", [
    ({"k": string()}, "a45daa70926828a2f0a1db3418e6feb4"),
    ({"timestamp": string("1493147359900", "Number")}, "235c5c510d26fb653d073faed50ae77c"),
    ({"General": string("Kenobi"), "Hello": string("There"), "Help.Me": string("Me")},
     "4c360f3fdafd970e05fae2f149d997f5"),
    ({"General": string("Kenobi"), "Hello": string("There")}, "fca026605781cb4126a1e9044df24232"),
    ({"attr1": {"DataType": "Binary", "BinaryValue":
                b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"}},
     "8cbe4db156db8a94db8b801b7addb984"),
    ({"color": string("blue"), "tags": string('["a","b"]', "String.Array")},
     "56a5bee3ed610a27fd04b2b195aee70b"),
    ({"blob": {"DataType": "Binary", "BinaryValue": b"\x00\x01\xff"}, "city": string("Zürich"),
      "n": string("42", "Number.int")}, "989d8b49eef0e51cce3154ca7e3418f6"),
], ids=lambda value: value[:8] if isinstance(value, str) else "")
def test_4_12_digests_of_attributes(sqs, queue, attributes, digest):
    sent = send(sqs, queue, MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == digest
    assert "MD5OfMessageSystemAttributes" not in sent
    both = send(sqs, queue, MessageAttributes=attributes,
                MessageSystemAttributes={"AWSTraceHeader": string(TRACE)})
    assert both["MD5OfMessageAttributes"] == digest
    assert both["MD5OfMessageSystemAttributes"] == "5ae4d5d7636402d80f4eb6d213245a88"
    message = receive(sqs, queue, MessageAttributeNames=["All"])[0]
    assert message["MD5OfMessageAttributes"] == digest


@pytest.mark.parametrize("body, digest", [
    ("hello", "5d41402abc4b2a76b9719d911017c592"),
    ("Grüße 🐝\r\n", "92771d33ac54030ec32b63ffcc32fab4"),
])
def test_4_12_digests_of_bodies(sqs, queue, body, digest):
    assert md5(body) == digest
    sent = send(sqs, queue, body)
    assert sent["MD5OfMessageBody"] == digest
    assert "MD5OfMessageAttributes" not in sent
    assert receive(sqs, queue)[0]["MD5OfBody"] == digest
