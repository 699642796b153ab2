"""The unmodified AWS command line as a client."""

import base64
import json

import pytest

from harness import DEADLINE, LATE, counts_of, md5, md5_of_attributes

BINARY = "text as bytes"
ATTRIBUTES = {
    "city": {"DataType": "String", "StringValue": "Zürich"},
    "n": {"DataType": "Number", "StringValue": "0042.50"},
    # Version 1 of the command takes text for the bytes themselves, and prints base64.
    "blob": {"DataType": "Binary", "BinaryValue": BINARY},
}
RECEIVED = {**ATTRIBUTES, "blob": {
    "DataType": "Binary", "BinaryValue": base64.b64encode(BINARY.encode()).decode()}}


@pytest.fixture
def url(aws, name):
    return aws("create-queue", "--queue-name", name)["QueueUrl"]


def receive(aws, url, *more, wait=0):
    answer = aws("receive-message", "--queue-url", url, "--wait-time-seconds", str(wait), *more)
    return answer.get("Messages", [])


def counts(aws, url):
    return counts_of(aws("get-queue-attributes", "--queue-url", url, "--attribute-names", "All"))


def test_queues_are_created_found_listed_and_deleted(aws, name):
    url = aws("create-queue", "--queue-name", name)["QueueUrl"]
    assert url.endswith("/" + name)
    assert aws("create-queue", "--queue-name", name)["QueueUrl"] == url
    assert aws("get-queue-url", "--queue-name", name)["QueueUrl"] == url
    listed = aws("list-queues", "--queue-name-prefix", name)["QueueUrls"]
    assert url in listed
    assert aws("delete-queue", "--queue-url", url) == {}
    code, text = aws("get-queue-url", "--queue-name", name, fails=True)
    assert code in (254, 255)
    assert "AWS.SimpleQueueService.NonExistentQueue" in text


def test_a_message_comes_back_as_it_was_sent(aws, url):
    body = "Grüße 🐝\r\n"
    sent = aws("send-message", "--queue-url", url, "--message-body", body,
               "--message-attributes", json.dumps(ATTRIBUTES))
    assert sent["MD5OfMessageBody"] == md5(body) == "92771d33ac54030ec32b63ffcc32fab4"
    assert sent["MD5OfMessageAttributes"] == md5_of_attributes(RECEIVED)
    [message] = receive(aws, url, "--message-attribute-names", "All", "--attribute-names", "All")
    assert message["MessageId"] == sent["MessageId"]
    assert message["Body"] == body
    assert message["MD5OfBody"] == md5(body)
    assert message["MessageAttributes"] == RECEIVED
    assert message["MD5OfMessageAttributes"] == md5_of_attributes(RECEIVED)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_received_message_is_hidden_until_its_timeout_and_gone_after_delete(aws, name):
    url = aws("create-queue", "--queue-name", name, "--attributes", "VisibilityTimeout=2")[
        "QueueUrl"]
    aws("send-message", "--queue-url", url, "--message-body", "once more")
    names = ("--attribute-names", "All")
    [first] = receive(aws, url, "--visibility-timeout", "30", *names)
    assert receive(aws, url) == []
    assert counts(aws, url) == (0, 1, 0)
    # From here on the message comes back after two seconds: the poll waits for that.
    aws("change-message-visibility", "--queue-url", url, "--visibility-timeout", "2",
        "--receipt-handle", first["ReceiptHandle"])
    [second] = receive(aws, url, *names, wait=20)
    assert second["MessageId"] == first["MessageId"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    aws("delete-message", "--queue-url", url, "--receipt-handle", second["ReceiptHandle"])
    assert counts(aws, url) == (0, 0, 0)
    assert receive(aws, url, wait=3) == []


def test_visibility_set_to_zero_returns_the_message_at_once(aws, url):
    aws("send-message", "--queue-url", url, "--message-body", "back")
    [first] = receive(aws, url)
    aws("change-message-visibility", "--queue-url", url, "--visibility-timeout", "0",
        "--receipt-handle", first["ReceiptHandle"])
    [second] = receive(aws, url)
    assert second["MessageId"] == first["MessageId"]


def test_a_delayed_message_arrives_on_time(aws, url):
    # The poll starts first, so that the time the command needs to start does not count.
    poll = aws.start("receive-message", "--queue-url", url, "--wait-time-seconds", "20",
                     "--attribute-names", "All")
    aws("send-message", "--queue-url", url, "--message-body", "later", "--delay-seconds", "3")
    out, err = poll.communicate(timeout=DEADLINE)
    assert poll.returncode == 0, err
    [message] = json.loads(out)["Messages"]
    stamps = message["Attributes"]
    waited = (int(stamps["ApproximateFirstReceiveTimestamp"]) - int(stamps["SentTimestamp"])) / 1000
    assert 3 <= waited <= 3 + LATE


def test_attributes_are_set_and_read(aws, url):
    aws("set-queue-attributes", "--queue-url", url, "--attributes",
        "VisibilityTimeout=7,DelaySeconds=0,MaximumMessageSize=2048,MessageRetentionPeriod=60")
    answer = aws("get-queue-attributes", "--queue-url", url, "--attribute-names",
                 "VisibilityTimeout", "MaximumMessageSize", "MessageRetentionPeriod", "QueueArn")
    arn = answer["Attributes"].pop("QueueArn")
    assert arn.startswith("arn:aws:sqs:us-east-1:") and arn.endswith(":" + url.split("/")[-1])
    assert answer["Attributes"] == {
        "VisibilityTimeout": "7", "MaximumMessageSize": "2048", "MessageRetentionPeriod": "60"}


def test_purge_takes_visible_hidden_and_delayed_messages(aws, url):
    for body in ("hidden", "visible"):
        aws("send-message", "--queue-url", url, "--message-body", body)
    aws("send-message", "--queue-url", url, "--message-body", "delayed", "--delay-seconds", "900")
    receive(aws, url)
    assert counts(aws, url) == (1, 1, 1)
    assert aws("purge-queue", "--queue-url", url) == {}
    assert counts(aws, url) == (0, 0, 0)


def test_batches(aws, url):
    entries = [{"Id": f"e{n}", "MessageBody": f"body {n}"} for n in range(10)]
    sent = aws("send-message-batch", "--queue-url", url, "--entries", json.dumps(entries))
    assert [entry["Id"] for entry in sent["Successful"]] == [entry["Id"] for entry in entries]
    assert "Failed" not in sent
    got = receive(aws, url, "--max-number-of-messages", "10")
    assert sorted(m["Body"] for m in got) == sorted(entry["MessageBody"] for entry in entries)
    handles = [{"Id": f"h{n}", "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(got)]
    changed = aws("change-message-visibility-batch", "--queue-url", url, "--entries",
                  json.dumps([{**handle, "VisibilityTimeout": 600} for handle in handles]))
    assert len(changed["Successful"]) == 10
    deleted = aws("delete-message-batch", "--queue-url", url, "--entries",
                  json.dumps(handles[:9] + [{"Id": "bad", "ReceiptHandle": "nonsense"}]))
    assert len(deleted["Successful"]) == 9
    [failed] = deleted["Failed"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == (
        "bad", "ReceiptHandleIsInvalid", True)
    assert counts(aws, url) == (0, 1, 0)


@pytest.mark.parametrize("words, code", [
    (["send-message", "--message-body", "x"], "AWS.SimpleQueueService.NonExistentQueue"),
    (["receive-message"], "AWS.SimpleQueueService.NonExistentQueue"),
    (["delete-queue"], "AWS.SimpleQueueService.NonExistentQueue"),
])
def test_a_missing_queue_is_named_as_such(aws, server, words, code):
    action, *more = words
    url = f"{server.url}/000000000000/missing"
    exit_code, text = aws(action, "--queue-url", url, *more, fails=True)
    assert exit_code in (254, 255)
    assert f"({code})" in text
    assert "The specified queue does not exist." in text


def test_bad_values_are_refused_with_their_codes(aws, url):
    code, text = aws("receive-message", "--queue-url", url, "--max-number-of-messages", "11",
                     fails=True)
    assert code in (254, 255) and "(InvalidParameterValue)" in text
    code, text = aws("delete-message", "--queue-url", url, "--receipt-handle", "x", fails=True)
    assert code in (254, 255) and "(ReceiptHandleIsInvalid)" in text
    code, text = aws("create-queue", "--queue-name", url.split("/")[-1], "--attributes",
                     "VisibilityTimeout=31", fails=True)
    assert code in (254, 255) and "(QueueAlreadyExists)" in text
