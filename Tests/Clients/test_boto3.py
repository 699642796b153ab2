"""boto3 as a client, client and resource API, with every MD5 checked (see check_digests)."""

import time

import boto3
import pytest

from harness import (ALL, ATTRIBUTES, BODY, LATE, QUERY, Key, check_digests, counts, drain,
                     md5_of_attributes, receive, write_keys)
from test_tls import make_pair


def test_the_digest_of_the_tests_agrees_with_known_values():
    assert md5_of_attributes({
        "blob": {"DataType": "Binary", "BinaryValue": b"\x00\x01\xff"},
        "city": {"DataType": "String", "StringValue": "Zürich"},
        "n": {"DataType": "Number.int", "StringValue": "42"},
    }) == "989d8b49eef0e51cce3154ca7e3418f6"


def test_body_and_attributes_come_back_byte_for_byte(sqs, queue):
    before = time.time()
    sent = sqs.send_message(QueueUrl=queue, MessageBody=BODY, MessageAttributes=ATTRIBUTES)
    assert sent["MD5OfMessageBody"] == "92771d33ac54030ec32b63ffcc32fab4"
    [message] = receive(sqs, queue, **ALL)
    after = time.time()
    assert message["MessageId"] == sent["MessageId"]
    assert message["Body"] == BODY
    assert message["MessageAttributes"] == ATTRIBUTES
    stamps = message["Attributes"]
    assert set(stamps) == {"SenderId", "SentTimestamp", "ApproximateReceiveCount",
                           "ApproximateFirstReceiveTimestamp"}
    assert before * 1000 - 1 <= int(stamps["SentTimestamp"])
    assert int(stamps["SentTimestamp"]) <= int(stamps["ApproximateFirstReceiveTimestamp"])
    assert int(stamps["ApproximateFirstReceiveTimestamp"]) <= after * 1000 + 1


@pytest.mark.parametrize("body", [
    "x", " leading and trailing blanks ", "\t\n\r", "a" * 1023 + "é",
    "\ud7ff\ue000\ufffd\U0010ffff",
    '{"json": "\\u0041 \\" \\\\"}', "<xml attr=\"1\">&amp;&quot;</xml>", "a" * 1_048_576,
    "🐝" * (1_048_576 // 4),
], ids=lambda body: f"{len(body.encode())}-bytes")
def test_bodies_are_opaque(sqs, queue, body):
    sqs.send_message(QueueUrl=queue, MessageBody=body)
    [message] = receive(sqs, queue)
    assert message["Body"] == body
    assert "Attributes" not in message
    assert "MessageAttributes" not in message


def test_the_size_limit_counts_body_and_attributes_to_the_byte(sqs, queue):
    attributes = {"k": {"DataType": "String", "StringValue": "x"}}  # 8 bytes
    limit = 1_048_576
    sqs.send_message(QueueUrl=queue, MessageBody="b" * (limit - 8), MessageAttributes=attributes)
    for body, more in (("b" * (limit - 7), {"MessageAttributes": attributes}),
                       ("b" * (limit + 1), {})):
        with pytest.raises(sqs.exceptions.ClientError, match="shorter than 1048576 bytes") as e:
            sqs.send_message(QueueUrl=queue, MessageBody=body, **more)
        assert e.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert counts(sqs, queue) == (1, 0, 0)


@pytest.mark.parametrize("names, expected", [
    (["All"], {"Hello", "Help.Me", "General"}), ([".*"], {"Hello", "Help.Me", "General"}),
    (["*"], {"Hello", "Help.Me", "General"}), (["Hel.*"], {"Hello", "Help.Me"}),
    (["General", "Hello"], {"General", "Hello"}), (["Help"], None), (["AWS.", "..foo"], None),
    ([], None),
])
def test_message_attributes_are_filtered_by_name(sqs, queue, names, expected):
    sqs.send_message(QueueUrl=queue, MessageBody="Star Wars", MessageAttributes={
        key: {"DataType": "String", "StringValue": value}
        for key, value in (("General", "Kenobi"), ("Hello", "There"), ("Help.Me", "Me"))})
    [message] = receive(sqs, queue, MessageAttributeNames=names)
    attributes = message.get("MessageAttributes")
    assert (set(attributes) if attributes is not None else None) == expected


@pytest.mark.parametrize("parameter", ["AttributeNames", "MessageSystemAttributeNames"])
def test_system_attributes_are_filtered_by_name(sqs, queue, parameter):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue, **{parameter: ["SentTimestamp", "SequenceNumber"]})
    assert set(message["Attributes"]) == {"SentTimestamp"}


def test_the_trace_header_is_kept_with_a_digest_of_its_own(sqs, queue):
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    sent = sqs.send_message(QueueUrl=queue, MessageBody="x", MessageSystemAttributes={
        "AWSTraceHeader": {"DataType": "String", "StringValue": trace}})
    assert sent["MD5OfMessageSystemAttributes"] == "5ae4d5d7636402d80f4eb6d213245a88"
    [message] = receive(sqs, queue, **ALL)
    assert message["Attributes"]["AWSTraceHeader"] == trace


def test_a_group_id_is_kept_on_a_standard_queue(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x", MessageGroupId="tenant!1")
    [message] = receive(sqs, queue, **ALL)
    assert message["Attributes"]["MessageGroupId"] == "tenant!1"


def test_receive_count_grows_and_first_receive_time_stays(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    seen = [receive(sqs, queue, VisibilityTimeout=0, **ALL)[0] for _ in range(3)]
    assert [m["Attributes"]["ApproximateReceiveCount"] for m in seen] == ["1", "2", "3"]
    assert len({m["Attributes"]["ApproximateFirstReceiveTimestamp"] for m in seen}) == 1
    assert len({m["ReceiptHandle"] for m in seen}) == 3
    assert all(len(m["ReceiptHandle"]) <= 1024 for m in seen)


def test_messages_come_oldest_first(sqs, queue):
    for n in range(12):
        sqs.send_message(QueueUrl=queue, MessageBody=str(n))
    got = receive(sqs, queue, MaxNumberOfMessages=10) + receive(sqs, queue, MaxNumberOfMessages=10)
    assert [m["Body"] for m in got] == [str(n) for n in range(12)]


def test_a_batch_of_ten_with_delays_and_attributes(sqs, queue):
    entries = [{"Id": f"id_{n}-", "MessageBody": f"{BODY}{n}", "DelaySeconds": 900 if n == 9 else 0,
                "MessageAttributes": {**ATTRIBUTES, "i": {"DataType": "Number",
                                                          "StringValue": str(n)}}}
               for n in range(10)]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert "Failed" not in answer
    assert [entry["Id"] for entry in answer["Successful"]] == [entry["Id"] for entry in entries]
    assert counts(sqs, queue) == (9, 0, 1)
    got = receive(sqs, queue, MaxNumberOfMessages=10, **ALL)
    assert [m["MessageId"] for m in got] == [e["MessageId"] for e in answer["Successful"][:9]]
    for n, message in enumerate(got):
        assert message["Body"] == f"{BODY}{n}"
        assert message["MessageAttributes"] == entries[n]["MessageAttributes"]


def test_only_the_bad_entries_of_a_send_batch_fail(sqs, name):
    queue = sqs.create_queue(QueueName=name, Attributes={"MaximumMessageSize": "1024"})["QueueUrl"]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=[
        {"Id": "ok", "MessageBody": "fine"},
        {"Id": "character", "MessageBody": "no \x00 here"},
        {"Id": "size", "MessageBody": "x" * 1025},
        {"Id": "number", "MessageBody": "x", "MessageAttributes": {
            "n": {"DataType": "Number", "StringValue": "ten"}}},
        {"Id": "exact", "MessageBody": "x" * 1024},
    ])
    assert [entry["Id"] for entry in answer["Successful"]] == ["ok", "exact"]
    failed = {entry["Id"]: (entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]}
    assert failed == {"character": ("InvalidMessageContents", True),
                      "size": ("InvalidParameterValue", True),
                      "number": ("InvalidParameterValue", True)}
    assert counts(sqs, queue) == (2, 0, 0)


def test_only_the_bad_entries_of_delete_and_visibility_batches_fail(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue)
    good = {"Id": "good", "ReceiptHandle": message["ReceiptHandle"]}
    bad = {"Id": "bad", "ReceiptHandle": "nonsense"}
    changed = sqs.change_message_visibility_batch(QueueUrl=queue, Entries=[
        {**good, "VisibilityTimeout": 100}, {**bad, "VisibilityTimeout": 100},
        {**good, "Id": "range", "VisibilityTimeout": 43201}])
    assert [entry["Id"] for entry in changed["Successful"]] == ["good"]
    assert {entry["Id"]: entry["Code"] for entry in changed["Failed"]} == {
        "bad": "ReceiptHandleIsInvalid", "range": "InvalidParameterValue"}
    deleted = sqs.delete_message_batch(QueueUrl=queue, Entries=[bad, good])
    assert [entry["Id"] for entry in deleted["Successful"]] == ["good"]
    assert [entry["Id"] for entry in deleted["Failed"]] == ["bad"]
    only_bad = sqs.delete_message_batch(QueueUrl=queue, Entries=[bad])
    assert "Successful" not in only_bad and len(only_bad["Failed"]) == 1
    assert counts(sqs, queue) == (0, 0, 0)


def test_deleting_twice_succeeds(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue)
    for _ in range(2):
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)


def test_an_expired_handle_still_deletes(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue, VisibilityTimeout=0)
    assert counts(sqs, queue) == (1, 0, 0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)


def test_visibility_of_an_expired_message_can_be_changed_again(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue, VisibilityTimeout=0)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=60)
    assert receive(sqs, queue) == []
    assert counts(sqs, queue) == (0, 1, 0)


def test_the_attributes_of_a_queue(sqs, name):
    before = int(time.time())
    queue = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "5"})["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    created = int(attributes.pop("CreatedTimestamp"))
    assert before - 1 <= created <= time.time() + 1
    assert int(attributes.pop("LastModifiedTimestamp")) >= created
    arn = attributes.pop("QueueArn")
    account = queue.split("/")[-2]
    assert arn == f"arn:aws:sqs:us-east-1:{account}:{name}"
    assert attributes == {
        "ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0", "DelaySeconds": "5",
        "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
        "ReceiveMessageWaitTimeSeconds": "0",
        # Bodies are not encrypted at rest in this version, and the server says so.
        "SqsManagedSseEnabled": "false",
        "VisibilityTimeout": "30"}


@pytest.mark.parametrize("attribute, low, high", [
    ("VisibilityTimeout", 0, 43200), ("DelaySeconds", 0, 900),
    ("MaximumMessageSize", 1024, 1_048_576), ("MessageRetentionPeriod", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", 0, 20),
])
def test_attribute_ranges(sqs, queue, attribute, low, high):
    for value in (low, high):
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={attribute: str(value)})
        answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[attribute])
        assert answer["Attributes"] == {attribute: str(value)}
    for value in (low - 1, high + 1, "", "x", f" {low}", f"+{high}", f"{low}.0", 10**30):
        with pytest.raises(sqs.exceptions.InvalidAttributeValue):
            sqs.set_queue_attributes(QueueUrl=queue, Attributes={attribute: str(value)})
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[attribute])
    assert answer["Attributes"] == {attribute: str(high)}


def test_setting_attributes_is_all_or_nothing(sqs, queue):
    with pytest.raises(sqs.exceptions.InvalidAttributeValue):
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={
            "VisibilityTimeout": "99", "DelaySeconds": "901"})
    answer = sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=["VisibilityTimeout", "DelaySeconds"])
    assert answer["Attributes"] == {"VisibilityTimeout": "30", "DelaySeconds": "0"}


def test_creating_again_compares_only_what_is_supplied_with_current_values(sqs, name):
    def create(**attributes):
        return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    queue = create(VisibilityTimeout="10", DelaySeconds="1")
    assert create() == create(DelaySeconds="1") == create(VisibilityTimeout="010") == queue
    with pytest.raises(sqs.exceptions.QueueNameExists, match="attribute VisibilityTimeout"):
        create(VisibilityTimeout="11", DelaySeconds="1")
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "11"})
    assert create(VisibilityTimeout="11") == queue
    with pytest.raises(sqs.exceptions.QueueNameExists, match="attribute VisibilityTimeout"):
        create(VisibilityTimeout="10")


def test_listing_pages_in_order_of_names(sqs, name):
    urls = [sqs.create_queue(QueueName=f"{name}-list-{n}")["QueueUrl"] for n in (2, 0, 4, 1, 3)]
    prefix = f"{name}-list-"
    assert sqs.list_queues(QueueNamePrefix=prefix)["QueueUrls"] == sorted(urls)
    pages = list(sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2}))
    assert [page["QueueUrls"] for page in pages] == [
        sorted(urls)[:2], sorted(urls)[2:4], sorted(urls)[4:]]
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=prefix.upper())


def test_a_deleted_queue_and_its_handles_are_gone_even_under_the_same_name(sqs, name):
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    for body in ("a", "b"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    [message] = receive(sqs, queue)
    sqs.delete_queue(QueueUrl=queue)
    for call in (lambda: receive(sqs, queue), lambda: sqs.delete_queue(QueueUrl=queue),
                 lambda: sqs.send_message(QueueUrl=queue, MessageBody="x"),
                 lambda: sqs.get_queue_url(QueueName=name)):
        with pytest.raises(sqs.exceptions.QueueDoesNotExist):
            call()
    assert sqs.create_queue(QueueName=name)["QueueUrl"] == queue
    assert counts(sqs, queue) == (0, 0, 0)
    with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def test_purge_takes_all_that_was_sent_before_and_nothing_after(sqs, queue):
    for body in ("hidden", "visible"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    sqs.send_message(QueueUrl=queue, MessageBody="delayed", DelaySeconds=900)
    [hidden] = receive(sqs, queue)
    assert counts(sqs, queue) == (1, 1, 1)
    sqs.purge_queue(QueueUrl=queue)
    assert counts(sqs, queue) == (0, 0, 0)
    sqs.send_message(QueueUrl=queue, MessageBody="after")
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=hidden["ReceiptHandle"])
    assert [m["Body"] for m in receive(sqs, queue)] == ["after"]


def test_a_queue_is_found_by_any_url_that_ends_in_account_and_name(sqs, queue):
    account, name = queue.split("/")[-2:]
    for url in (f"http://elsewhere:1/{account}/{name}", f"https://x/{account}/{name}/",
                f"http://x/queue/us-east-1/{account}/{name}", f"{account}/{name}", name):
        sqs.send_message(QueueUrl=url, MessageBody=url)
    assert counts(sqs, queue) == (5, 0, 0)


def test_the_resource_api(server, name):
    sqs = server.resource()
    queue = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "60"})
    assert sqs.get_queue_by_name(QueueName=name).url == queue.url
    queue.send_message(MessageBody=BODY, MessageAttributes=ATTRIBUTES)
    queue.send_messages(Entries=[
        {"Id": "1", "MessageBody": "one"}, {"Id": "2", "MessageBody": "2"}])
    messages = queue.receive_messages(MaxNumberOfMessages=10, MessageAttributeNames=["All"],
                                      AttributeNames=["All"], WaitTimeSeconds=1)
    assert [m.body for m in messages] == [BODY, "one", "2"]
    assert messages[0].message_attributes == ATTRIBUTES
    assert messages[0].attributes["ApproximateReceiveCount"] == "1"
    messages[0].change_visibility(VisibilityTimeout=0)
    [again] = queue.receive_messages()
    assert again.body == BODY
    again.delete()
    answer = queue.delete_messages(Entries=[
        {"Id": m.message_id, "ReceiptHandle": m.receipt_handle} for m in messages[1:]])
    assert len(answer["Successful"]) == 2
    queue.reload()
    assert queue.attributes["VisibilityTimeout"] == "60"
    assert queue.attributes["ApproximateNumberOfMessages"] == "0"
    assert queue.attributes["ApproximateNumberOfMessagesNotVisible"] == "0"
    queue.set_attributes(Attributes={"MessageRetentionPeriod": "60"})
    queue.purge()
    queue.delete()
    assert queue.url not in [q.url for q in sqs.queues.filter(QueueNamePrefix=name)]


def test_a_client_with_retries_needs_none(server, name):
    sqs = server.sqs(retries=3)
    answer = sqs.create_queue(QueueName=name)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    started = time.monotonic()
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as e:
        sqs.get_queue_url(QueueName=name + "-missing")
    assert e.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert time.monotonic() - started < LATE


@pytest.fixture
def guarded(new_server, tmp_path):
    """A server behind TLS, with credentials of two accounts."""
    server = new_server("--credentials", write_keys(tmp_path / "keys", OWNER, STRANGER),
                        "--account", "111122223333", *tls(tmp_path)).start()
    server.certificate = str(tmp_path / "pair.pem")
    server.secure = f"https://127.0.0.1:{server.port}"
    yield server
    server.stop()


OWNER = Key("OWNER", "s/1+=", settings={"account": "111122223333"})
STRANGER = Key("STRANGER", "s2", "token==", settings={
    "account": "444455556666", "role": "r", "session": "s"})


def tls(directory):
    certificate, secret = make_pair(directory, "pair")
    return "--tls-certificate", certificate, "--tls-key", secret


def test_the_resource_api_signed_and_over_tls(guarded, name):
    def resource(key):
        made = boto3.session.Session(
            aws_access_key_id=key.id, aws_secret_access_key=key.secret,
            aws_session_token=key.token, region_name="us-east-1").resource(
                "sqs", endpoint_url=guarded.secure, verify=guarded.certificate)
        check_digests(made.meta.client)
        return made

    queue = resource(OWNER).create_queue(QueueName=name)
    assert queue.url == f"{guarded.secure}/111122223333/{name}"
    theirs = resource(STRANGER).Queue(queue.url)
    with pytest.raises(theirs.meta.client.exceptions.ClientError, match="AccessDenied"):
        theirs.send_message(MessageBody=BODY)
    queue.add_permission(Label="l", AWSAccountIds=["444455556666"],
                         Actions=["SendMessage", "GetQueueUrl"])
    theirs.send_message(MessageBody=BODY, MessageAttributes=ATTRIBUTES)
    assert resource(STRANGER).get_queue_by_name(
        QueueName=name, QueueOwnerAWSAccountId="111122223333").url == queue.url
    [message] = queue.receive_messages(MessageAttributeNames=["All"])
    assert (message.body, message.message_attributes) == (BODY, ATTRIBUTES)
    message.delete()
    queue.remove_permission(Label="l")
    with pytest.raises(theirs.meta.client.exceptions.ClientError, match="AccessDenied"):
        theirs.send_message(MessageBody=BODY)


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_a_signed_client_with_retries_needs_none(guarded, name, mode):
    sqs = guarded.sqs(key=OWNER, url=guarded.secure, verify=guarded.certificate,
                      retries={"total_max_attempts": 4, "mode": mode})
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    for number in range(30):
        answer = sqs.send_message(QueueUrl=queue, MessageBody=str(number),
                                  MessageAttributes=ATTRIBUTES)
        assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    drain(sqs, queue, 30)
    # A denial is no reason to try again.
    stranger = guarded.sqs(key=STRANGER, url=guarded.secure, verify=guarded.certificate,
                           retries={"total_max_attempts": 4, "mode": mode})
    with pytest.raises(stranger.exceptions.ClientError, match="AccessDenied") as denial:
        stranger.send_message(QueueUrl=queue, MessageBody="m")
    assert denial.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_a_certificate_that_signs_itself_must_be_named(guarded):
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        guarded.sqs(key=OWNER, url=guarded.secure).list_queues()


@pytest.mark.skipif(QUERY, reason="this client is older than the variable")
def test_an_endpoint_from_the_environment(server, monkeypatch, name):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    assert boto3.client("sqs").create_queue(QueueName=name)["QueueUrl"] == (
        f"{server.url}/000000000000/{name}")
