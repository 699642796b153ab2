"""The wire itself: headers, absent or empty members, and the exact errors, without an SDK."""

import email.utils
import json
import re

import pytest

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SQS = "com.amazonaws.sqs#"
FRAMEWORK = "com.amazon.coral.service#"


def error(status, kind, code, text):
    """What an error must be; the text may be None where none is specified."""
    return status, kind, code, text


MISSING_QUEUE = error(400, SQS + "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue",
                      "The specified queue does not exist.")


def invalid(text):
    return error(400, FRAMEWORK + "InvalidParameterValueException", "InvalidParameterValue", text)


def missing(name):
    return error(400, FRAMEWORK + "MissingRequiredParameterException", "MissingParameter",
                 f"The request must contain the parameter {name}.")


def attribute_name(name):
    return error(400, SQS + "InvalidAttributeName", "InvalidAttributeName",
                 f"Unknown Attribute {name}.")


def attribute_value(name):
    return error(400, SQS + "InvalidAttributeValue", "InvalidAttributeValue",
                 f"Invalid value for the parameter {name}.")


def batch(kind, text):
    return error(400, SQS + kind, "AWS.SimpleQueueService." + kind, text)


def bad_handle(handle):
    return error(404, SQS + "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid",
                 f'The input receipt handle "{handle}" is not a valid receipt handle.')


def check(got, expected):
    status, kind, code, text = expected
    assert got[:3] == (status, kind, code), got
    if text is not None:
        assert got[3] == text


NOT_FOR_QUEUE_TYPE = (
    "Value d for parameter MessageDeduplicationId is invalid. Reason: The request includes a "
    "parameter that is not valid for this queue type.")
BAD_NAME = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
BAD_ID = ("A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
          "It can be at most 80 letters long.")
BAD_CHARACTER = error(
    400, SQS + "InvalidMessageContents", "InvalidMessageContents",
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
    "#xE000 to #xFFFD | #x10000 to #x10FFFF")


def test_headers_of_a_success(raw, queue):
    status, headers, body = raw.post(
        json.dumps({"QueueUrl": queue}).encode(), "AmazonSQS.ReceiveMessage")
    assert (status, body) == (200, b"{}")
    assert headers["Content-Type"] == "application/x-amz-json-1.0"
    assert headers["Content-Length"] == "2"
    assert UUID.fullmatch(headers["x-amzn-RequestId"])
    assert email.utils.parsedate_to_datetime(headers["Date"])
    _, again, _ = raw.post(json.dumps({"QueueUrl": queue}).encode(), "AmazonSQS.ReceiveMessage")
    assert again["x-amzn-RequestId"] != headers["x-amzn-RequestId"]


def test_headers_of_an_error(raw):
    status, headers, answer = raw.call("GetQueueUrl", QueueName="missing")
    assert status == 400
    assert answer == {"__type": SQS + "QueueDoesNotExist",
                      "message": "The specified queue does not exist."}
    assert headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    assert headers["Content-Type"] == "application/x-amz-json-1.0"
    assert UUID.fullmatch(headers["x-amzn-RequestId"])


def test_actions_without_output_answer_with_an_empty_body(raw, queue):
    def empty(action, **members):
        body = json.dumps({"QueueUrl": queue, **members}).encode()
        status, headers, answer = raw.post(body, "AmazonSQS." + action)
        assert (status, answer, headers["Content-Length"]) == (200, b"", "0"), action
        assert headers["Content-Type"] == "application/x-amz-json-1.0"

    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x")
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    empty("ChangeMessageVisibility", ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=9)
    empty("DeleteMessage", ReceiptHandle=message["ReceiptHandle"])
    empty("SetQueueAttributes", Attributes={"DelaySeconds": "0"})
    empty("PurgeQueue")
    empty("DeleteQueue")


def test_what_is_not_there_is_absent_not_empty(raw, queue):
    sent = raw.ok("SendMessage", QueueUrl=queue, MessageBody="x")
    assert set(sent) == {"MessageId", "MD5OfMessageBody"}
    assert UUID.fullmatch(sent["MessageId"])
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    assert set(message) == {"MessageId", "ReceiptHandle", "MD5OfBody", "Body"}
    assert raw.ok("ReceiveMessage", QueueUrl=queue, MessageSystemAttributeNames=["All"]) == {}
    assert raw.ok("ListQueues", QueueNamePrefix="no-such-prefix") == {}
    assert set(raw.ok("ListQueues", QueueNamePrefix="queue")) == {"QueueUrls"}
    assert raw.ok("GetQueueAttributes", QueueUrl=queue) == {}
    assert raw.ok("GetQueueAttributes", QueueUrl=queue, AttributeNames=[]) == {}
    handle = message["ReceiptHandle"]
    good = {"Id": "a", "ReceiptHandle": handle, "VisibilityTimeout": 9}
    bad = {"Id": "a", "ReceiptHandle": "x", "VisibilityTimeout": 9}
    for action in ("ChangeMessageVisibilityBatch", "DeleteMessageBatch"):
        assert raw.ok(action, QueueUrl=queue, Entries=[good]) == {"Successful": [{"Id": "a"}]}
        assert set(raw.ok(action, QueueUrl=queue, Entries=[bad])) == {"Failed"}
    answer = raw.ok("SendMessageBatch", QueueUrl=queue, Entries=[{"Id": "a", "MessageBody": "x"}])
    assert set(answer) == {"Successful"}
    assert set(answer["Successful"][0]) == {"Id", "MessageId", "MD5OfMessageBody"}
    answer = raw.ok("SendMessageBatch", QueueUrl=queue, Entries=[{"Id": "a", "MessageBody": "\0"}])
    [failed] = answer.pop("Failed")
    assert answer == {}
    assert failed == {"Id": "a", "SenderFault": True, "Code": "InvalidMessageContents",
                      "Message": BAD_CHARACTER[3]}


def test_null_is_absent_and_unknown_members_are_ignored(raw, queue):
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x", DelaySeconds=None,
           MessageAttributes=None, MessageGroupId=None, Unknown={"a": [1, None]})
    answer = raw.ok("ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=None,
                    MessageAttributeNames=None, VisibilityTimeout=None, AttributeNames=None)
    assert len(answer["Messages"]) == 1


@pytest.mark.parametrize("content_type", [
    "application/x-amz-json-1.0", "Application/X-Amz-Json-1.0; charset=utf-8",
    "application/x-amz-json-1.1",
])
def test_content_types_of_json(raw, queue, content_type):
    body = json.dumps({"QueueUrl": queue}).encode()
    status, headers, answer = raw.post(
        body, "AmazonSQS.ReceiveMessage", headers={"Content-Type": content_type})
    assert (status, answer) == (200, b"{}")
    assert headers["Content-Type"] == "application/x-amz-json-1.0"


def test_the_path_does_not_matter_and_an_empty_body_is_an_empty_object(raw, queue):
    body = json.dumps({"QueueUrl": queue, "MessageBody": "x"}).encode()
    assert raw.post(body, "AmazonSQS.SendMessage", path="/000000000000/other")[0] == 200
    assert raw.counts(queue) == (1, 0, 0)
    assert raw.post(b"", "AmazonSQS.ListQueues")[0] == 200


def test_text_of_a_large_body_escaped_to_several_times_its_size(raw, queue):
    body = "é" * 524_288
    escaped = json.dumps({"QueueUrl": queue, "MessageBody": body})
    assert len(escaped) > 3_000_000
    assert raw.post(escaped.encode(), "AmazonSQS.SendMessage")[0] == 200
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    assert message["Body"] == body


def test_queue_urls_carry_the_host_of_the_request(raw, name):
    body = json.dumps({"QueueName": name}).encode()
    _, _, answer = raw.post(body, "AmazonSQS.CreateQueue", headers={"Host": "queues.example:99"})
    assert re.fullmatch(rf"http://queues\.example:99/\d{{12}}/{name}",
                        json.loads(answer)["QueueUrl"])


QUEUE_ACTIONS = ["DeleteQueue", "GetQueueAttributes", "SetQueueAttributes", "PurgeQueue",
                 "SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage",
                 "DeleteMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch"]


@pytest.mark.parametrize("action", QUEUE_ACTIONS)
def test_a_queue_that_is_missing_or_not_named(raw, queue, action):
    wrong = queue.replace("/queue-", "/QUEUE-")
    for members in ({}, {"QueueUrl": ""}, {"QueueUrl": wrong}, {"QueueUrl": "http://h/"},
                    {"QueueUrl": re.sub(r"/\d{12}/", "/999999999999/", queue)}):
        check(raw.error(action, members), MISSING_QUEUE)


@pytest.mark.parametrize("action, members, expected", [
    ("SendMessage", {}, missing("MessageBody")),
    ("SendMessage", {"MessageBody": ""}, missing("MessageBody")),
    ("SendMessage", {"MessageBody": "\0"}, BAD_CHARACTER),
    ("SendMessage", {"MessageBody": "\x08"}, BAD_CHARACTER),
    ("SendMessage", {"MessageBody": "\x13"}, BAD_CHARACTER),
    ("SendMessage", {"MessageBody": "\uffff"}, BAD_CHARACTER),
    ("SendMessage", {"MessageBody": "x", "DelaySeconds": 901}, invalid(
        "Value 901 for parameter DelaySeconds is invalid. "
        "Reason: DelaySeconds must be >= 0 and <= 900.")),
    ("SendMessage", {"MessageBody": "x", "DelaySeconds": -1}, invalid(
        "Value -1 for parameter DelaySeconds is invalid. "
        "Reason: DelaySeconds must be >= 0 and <= 900.")),
    ("SendMessage", {"MessageBody": "x", "MessageGroupId": "a b"}, invalid(
        "Value a b for parameter MessageGroupId is invalid. Reason: MessageGroupId can only "
        "include alphanumeric and punctuation characters. 1 to 128 in length.")),
    ("SendMessage", {"MessageBody": "x", "MessageDeduplicationId": "d"},
     invalid(NOT_FOR_QUEUE_TYPE)),
    ("SendMessage", {"MessageBody": "x", "MessageSystemAttributes": {
        "Other": {"DataType": "String", "StringValue": "x"}}},
     invalid("Message system attribute name 'Other' is invalid.")),
    ("ReceiveMessage", {"MaxNumberOfMessages": 0}, invalid(
        "Value 0 for parameter MaxNumberOfMessages is invalid. "
        "Reason: Must be between 1 and 10, if provided.")),
    ("ReceiveMessage", {"MaxNumberOfMessages": 11}, invalid(
        "Value 11 for parameter MaxNumberOfMessages is invalid. "
        "Reason: Must be between 1 and 10, if provided.")),
    ("ReceiveMessage", {"WaitTimeSeconds": 21}, invalid(
        "Value 21 for parameter WaitTimeSeconds is invalid. "
        "Reason: Must be >= 0 and <= 20, if provided.")),
    ("ReceiveMessage", {"VisibilityTimeout": 43201}, invalid(
        "Value 43201 for parameter VisibilityTimeout is invalid. "
        "Reason: Must be >= 0 and <= 43200, if provided.")),
    ("ReceiveMessage", {"AttributeNames": ["Nonsense"]}, attribute_name("Nonsense")),
    ("DeleteMessage", {}, missing("ReceiptHandle")),
    ("DeleteMessage", {"ReceiptHandle": "garbage"}, bad_handle("garbage")),
    ("ChangeMessageVisibility", {"VisibilityTimeout": 1}, missing("ReceiptHandle")),
    ("ChangeMessageVisibility", {"ReceiptHandle": "x"}, missing("VisibilityTimeout")),
    ("ChangeMessageVisibility", {"ReceiptHandle": "x", "VisibilityTimeout": 43201}, invalid(
        "Value 43201 for parameter VisibilityTimeout is invalid. "
        "Reason: Must be between 0 and 43200.")),
    ("ChangeMessageVisibility", {"ReceiptHandle": "x", "VisibilityTimeout": 1}, bad_handle("x")),
    ("GetQueueAttributes", {"AttributeNames": ["Nonsense"]}, attribute_name("Nonsense")),
    ("SetQueueAttributes", {}, missing("Attribute.Name")),
    ("SetQueueAttributes", {"Attributes": {}}, missing("Attribute.Name")),
    ("SetQueueAttributes", {"Attributes": {"Nonsense": "1"}}, attribute_name("Nonsense")),
    ("SetQueueAttributes", {"Attributes": {"QueueArn": "x"}}, attribute_name("QueueArn")),
    ("SetQueueAttributes", {"Attributes": {"FifoQueue": "true"}}, attribute_name("FifoQueue")),
    ("SetQueueAttributes", {"Attributes": {"VisibilityTimeout": "43201"}},
     attribute_value("VisibilityTimeout")),
])
def test_errors_of_actions_on_a_queue(raw, queue, action, members, expected):
    check(raw.error(action, QueueUrl=queue, **members), expected)
    assert raw.counts(queue) == (0, 0, 0)


@pytest.mark.parametrize("action, members, expected", [
    ("CreateQueue", {}, invalid(
        "Value for parameter QueueName is invalid. Reason: Must specify a queue name.")),
    ("CreateQueue", {"QueueName": "a b"}, invalid(BAD_NAME)),
    ("CreateQueue", {"QueueName": "a" * 81}, invalid(BAD_NAME)),
    ("CreateQueue", {"QueueName": "ends.fifo"}, invalid(BAD_NAME)),
    ("CreateQueue", {"QueueName": ""}, invalid("Queue name cannot be empty")),
    ("CreateQueue", {"QueueName": "new", "Attributes": {"FifoQueue": "false"}},
     attribute_name("FifoQueue")),
    ("CreateQueue", {"QueueName": "new", "Attributes": {"Nonsense": "1"}},
     attribute_name("Nonsense")),
    ("CreateQueue", {"QueueName": "new", "Attributes": {"DelaySeconds": "x"}},
     attribute_value("DelaySeconds")),
    ("GetQueueUrl", {}, invalid(
        "Value for parameter QueueName is invalid. Reason: Must specify a queue name.")),
    ("GetQueueUrl", {"QueueName": "new"}, MISSING_QUEUE),
    ("ListQueues", {"MaxResults": 0}, invalid(
        "Value for parameter MaxResults is invalid. "
        "Reason: MaxResults must be an integer between 1 and 1000.")),
    ("ListQueues", {"MaxResults": 1, "NextToken": "garbage"},
     invalid("Invalid or expired next token.")),
    ("NoSuchAction", {}, error(
        400, FRAMEWORK + "UnknownOperationException", "InvalidAction", None)),
])
def test_errors_of_other_actions(raw, action, members, expected):
    check(raw.error(action, members), expected)


BATCHES = [
    ("SendMessageBatch", {"MessageBody": "x"}),
    ("DeleteMessageBatch", {"ReceiptHandle": "x"}),
    ("ChangeMessageVisibilityBatch", {"ReceiptHandle": "x", "VisibilityTimeout": 1}),
]


@pytest.mark.parametrize("action, rest", BATCHES)
def test_errors_of_whole_batches(raw, queue, action, rest):
    entry = action + "RequestEntry"
    cases = [
        ([], batch("EmptyBatchRequest", f"There should be at least one {entry} in the request.")),
        ([str(n) for n in range(11)], batch(
            "TooManyEntriesInBatchRequest",
            "Maximum number of entries per request are 10. You have sent 11.")),
        ([None], missing(f"{entry}.1.Id")),
        (["ok", "not ok"], batch("InvalidBatchEntryId", BAD_ID)),
        ([""], batch("InvalidBatchEntryId", BAD_ID)),
        (["a" * 81], batch("InvalidBatchEntryId", BAD_ID)),
        (["a", "b", "a"], batch("BatchEntryIdsNotDistinct", "Id a repeated.")),
    ]
    for ids, expected in cases:
        check(raw.error(action, QueueUrl=queue, Entries=[{"Id": i, **rest} for i in ids]), expected)
    assert raw.counts(queue) == (0, 0, 0)


def test_a_batch_may_be_one_mebibyte_in_all(raw, queue):
    def entries(size):
        return [{"Id": str(n), "MessageBody": "x" * size} for n in range(4)]

    answer = raw.ok("SendMessageBatch", QueueUrl=queue, Entries=entries(262_144))
    assert len(answer["Successful"]) == 4
    check(raw.error("SendMessageBatch", QueueUrl=queue, Entries=entries(262_145)), batch(
        "BatchRequestTooLong",
        "Batch requests cannot be longer than 1048576 bytes. You have sent 1048580 bytes."))
    assert raw.counts(queue) == (4, 0, 0)


def string(value="x", kind="String"):
    return {"DataType": kind, "StringValue": value}


@pytest.mark.parametrize("attributes, text", [
    ({f"a{n}": string() for n in range(11)},
     "Number of message attributes [11] exceeds the allowed maximum [10]."),
    ({"a": string("")},
     "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
    ({"a": string("ten", "Number")},
     "Can't cast the value of message (user) attribute 'a' to a number."),
    ({"a..b": string()}, "Message (user) attribute name must not have successive '.' characters."),
    ({"a": string(kind="Text")},
     "The type of message (user) attribute 'a' is invalid. You must use only the following "
     "supported type prefixes: Binary, Number, String."),
    ({"a": {**string(), "BinaryValue": "eA=="}},
     "Message (user) attribute 'a' must have a single value."),
    ({"a": string(kind="Binary")},
     "The message (user) attribute 'a' with type 'Binary' must use field 'Binary'."),
    ({"a": {"DataType": "String", "BinaryValue": "eA=="}},
     "The message (user) attribute 'a' with type 'String' must use field 'String'."),
    ({"a": {}}, None), ({"a": {"StringValue": "x"}}, None), ({"a": {"DataType": "String"}}, None),
    ({"a": string(kind="string")}, None), ({"a": string("\0")}, None),
    ({"a b": string()}, None), ({"a!": string()}, None), ({".a": string()}, None),
    ({"a.": string()}, None), ({"aws.x": string()}, None), ({"Amazon.x": string()}, None),
    ({"a" * 257: string()}, None), ({"a": string(kind="String." + "x" * 250)}, None),
])
def test_bad_message_attributes(raw, queue, attributes, text):
    check(raw.error("SendMessage", QueueUrl=queue, MessageBody="x", MessageAttributes=attributes),
          invalid(text))
    assert raw.counts(queue) == (0, 0, 0)


def test_unusual_message_attributes_that_are_fine(raw, queue):
    attributes = {"attr.1øßä": string(), "a" * 256: string("0" * 38, "Number.float"),
                  "e": string("1.5E-3", "Number"), "x_y-z.1": string("x", "String." + "l" * 200)}
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x", MessageAttributes=attributes)
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"] == attributes


def test_list_values_are_not_supported(raw, queue):
    for field in ("StringListValues", "BinaryListValues"):
        check(raw.error("SendMessage", QueueUrl=queue, MessageBody="x", MessageAttributes={
            "a": {**string(), field: ["eA=="]}}), error(
                400, SQS + "UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation",
                "Message attribute list values in SendMessage operation are not supported."))


def test_visibility_of_a_deleted_message_cannot_be_changed(raw, queue):
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x")
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    handle = message["ReceiptHandle"]
    raw.ok("DeleteMessage", QueueUrl=queue, ReceiptHandle=handle)
    check(raw.error("ChangeMessageVisibility", QueueUrl=queue, ReceiptHandle=handle,
                    VisibilityTimeout=1), invalid(
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist "
        "or is not available for visibility timeout change."))


def test_handles_that_were_changed_or_belong_to_another_queue(raw, queue, name):
    other = raw.ok("CreateQueue", QueueName=name + "-other")["QueueUrl"]
    raw.ok("SendMessage", QueueUrl=queue, MessageBody="x")
    [message] = raw.ok("ReceiveMessage", QueueUrl=queue)["Messages"]
    handle = message["ReceiptHandle"]
    got = raw.error("DeleteMessage", QueueUrl=other, ReceiptHandle=handle)
    check(got, error(404, SQS + "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", None))
    for position in range(0, len(handle) - 4, 3):
        changed = "B" if handle[position] == "A" else "A"
        forged = handle[:position] + changed + handle[position + 1:]
        got = raw.error("DeleteMessage", QueueUrl=queue, ReceiptHandle=forged)
        check(got, error(404, SQS + "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", None))
    for forged in (handle[:-4], handle + "AAAA", "A" * 5000):
        got = raw.error("DeleteMessage", QueueUrl=queue, ReceiptHandle=forged)
        check(got, error(404, SQS + "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", None))
    assert raw.counts(queue) == (0, 1, 0)
