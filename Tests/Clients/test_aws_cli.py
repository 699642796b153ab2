"""The unmodified AWS command line as a client."""

import base64
import json

import pytest

from conftest import command_line
from harness import DEADLINE, LATE, Key, counts_of, md5, md5_of_attributes, write_keys
from test_tls import make_pair

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


def attribute(aws, url, name):
    found = aws("get-queue-attributes", "--queue-url", url, "--attribute-names", name)
    return found.get("Attributes", {}).get(name)


def test_tags(aws, name):
    url = aws("create-queue", "--queue-name", name, "--tags", "team=blue,cost=1")["QueueUrl"]
    aws("tag-queue", "--queue-url", url, "--tags", json.dumps({"team": "red", "a:b/c": "Zürich"}))
    tags = {"team": "red", "cost": "1", "a:b/c": "Zürich"}
    assert aws("list-queue-tags", "--queue-url", url) == {"Tags": tags}
    aws("untag-queue", "--queue-url", url, "--tag-keys", *tags)
    assert aws("list-queue-tags", "--queue-url", url) == {}


def test_permissions_and_policies(aws, url):
    queue_arn = attribute(aws, url, "QueueArn")
    aws("add-permission", "--queue-url", url, "--label", "partner", "--aws-account-ids",
        "444455556666", "777788889999", "--actions", "SendMessage", "GetQueueUrl")
    [statement] = json.loads(attribute(aws, url, "Policy"))["Statement"]
    assert statement["Sid"] == "partner" and len(statement["Principal"]["AWS"]) == 2
    code, text = aws("add-permission", "--queue-url", url, "--label", "partner",
                     "--aws-account-ids", "444455556666", "--actions", "*", fails=True)
    assert code in (254, 255) and "Already exists." in text
    aws("remove-permission", "--queue-url", url, "--label", "partner")
    assert attribute(aws, url, "Policy") is None
    policy = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": queue_arn}]}
    aws("set-queue-attributes", "--queue-url", url, "--attributes",
        json.dumps({"Policy": json.dumps(policy, indent=2), "DelaySeconds": "5"}))
    assert json.loads(attribute(aws, url, "Policy")) == policy
    aws("set-queue-attributes", "--queue-url", url, "--attributes", json.dumps({"Policy": ""}))
    assert attribute(aws, url, "Policy") is None


def test_a_profile_of_the_file_that_the_server_reads(new_server, tmp_path, name):
    keys = write_keys(
        tmp_path / "keys", Key("OWNER", "s/1+", settings={"account": "111122223333"}),
        Key("SESSION", "s2", "token==", settings={
            "account": "111122223333", "role": "r", "session": "s"}),
        Key("STRANGER", "s3", settings={"account": "444455556666"}))
    server = new_server("--credentials", keys, "--account", "111122223333").start()
    body = "sent by a session"

    def aws(profile, *words, region="us-east-1", **more):
        return command_line("--profile", profile, "--region", region, "--endpoint-url", server.url,
                            AWS_SHARED_CREDENTIALS_FILE=str(keys))(*words, **more)

    url = aws("OWNER", "create-queue", "--queue-name", name)["QueueUrl"]
    assert url == f"{server.url}/111122223333/{name}"
    aws("SESSION", "send-message", "--queue-url", url, "--message-body", body)
    code, text = aws("STRANGER", "receive-message", "--queue-url", url, fails=True)
    assert code in (254, 255) and "(AccessDenied)" in text and body not in text
    assert "arn:aws:iam::444455556666:root is not authorized to perform: sqs:receivemessage" in text
    code, text = aws("OWNER", "list-queues", region="eu-west-1", fails=True)
    assert "(SignatureDoesNotMatch)" in text and "scoped to a valid region" in text
    [message] = aws("OWNER", "receive-message", "--queue-url", url)["Messages"]
    assert message["Body"] == body


def test_an_endpoint_from_the_environment(server, name):
    # For regions that it knows, version 1 of the command puts its own host before the variable.
    aws = command_line("--region", "local", AWS_ENDPOINT_URL_SQS=server.url)
    assert aws("create-queue", "--queue-name", name)["QueueUrl"] == (
        f"{server.url}/000000000000/{name}")


def test_tls_with_a_certificate_that_signs_itself(new_server, tmp_path, name):
    certificate, secret = make_pair(tmp_path, "pair")
    server = new_server("--tls-certificate", certificate, "--tls-key", secret).start()
    endpoint = f"https://127.0.0.1:{server.port}"
    aws = command_line("--endpoint-url", endpoint, "--ca-bundle", str(certificate))
    assert aws("create-queue", "--queue-name", name)["QueueUrl"] == (
        f"{endpoint}/000000000000/{name}")
    code, text = command_line("--endpoint-url", endpoint, AWS_MAX_ATTEMPTS="1")(
        "list-queues", fails=True)
    assert code and "SSL" in text
