"""The Query protocol, by hand, against the same queues as a JSON client."""

import http.client
import urllib.parse
import xml.etree.ElementTree as ElementTree

import pytest

from harness import ALL, ATTRIBUTES, BODY, md5, receive

SPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


class Forms:
    """Sends forms and reads XML; an answer is its element `…Result`, namespace cut off."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def raw(self, method, path, fields, headers=None):
        body = urllib.parse.urlencode(fields)
        if method == "GET":
            self.connection.request("GET", f"{path}?{body}", headers=headers or {})
        else:
            kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
            self.connection.request(method, path, body, {**kind, **(headers or {})})
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()

    def call(self, action, path="/", method="POST", **fields):
        status, headers, body = self.raw(method, path, {"Action": action, **fields})
        root = ElementTree.fromstring(body)
        assert headers["Content-Type"] == "text/xml"
        assert root.find(f".//{SPACE}RequestId").text == headers["x-amzn-RequestId"]
        assert status == 200, body
        assert root.tag == f"{SPACE}{action}Response"
        return root.find(f"{SPACE}{action}Result")

    def error(self, action, path="/", method="POST", **fields):
        status, _, body = self.raw(method, path, {"Action": action, **fields})
        root = ElementTree.fromstring(body)
        assert root.tag == f"{SPACE}ErrorResponse"
        error = root.find(f"{SPACE}Error")
        return status, text(error, "Type"), text(error, "Code"), text(error, "Message")


def text(element, name):
    found = element.find(f"{SPACE}{name}")
    return None if found is None else found.text


def path_of(url):
    return urllib.parse.urlsplit(url).path


@pytest.fixture
def forms(server):
    forms = Forms(server.port)
    yield forms
    forms.connection.close()


def attribute_fields():
    import base64
    fields = {}
    for number, (name, value) in enumerate(ATTRIBUTES.items(), 1):
        start = f"MessageAttribute.{number}"
        fields[f"{start}.Name"] = name
        fields[f"{start}.Value.DataType"] = value["DataType"]
        if "StringValue" in value:
            fields[f"{start}.Value.StringValue"] = value["StringValue"]
        else:
            fields[f"{start}.Value.BinaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return fields


def test_what_a_form_sends_json_receives(forms, sqs, queue):
    sent = forms.call("SendMessage", path_of(queue), MessageBody=BODY, **attribute_fields())
    assert text(sent, "MD5OfMessageBody") == md5(BODY)
    [message] = receive(sqs, queue, **ALL)
    assert message["Body"] == BODY
    assert message["MessageAttributes"] == ATTRIBUTES
    assert message["MD5OfMessageAttributes"] == text(sent, "MD5OfMessageAttributes")


def test_what_json_sends_a_form_receives_and_deletes(forms, sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody=BODY, MessageAttributes=ATTRIBUTES)
    result = forms.call("ReceiveMessage", path_of(queue), method="GET", WaitTimeSeconds="5", **{
        "AttributeName.1": "All", "MessageAttributeName.1": "*"})
    message = result.find(f"{SPACE}Message")
    assert text(message, "Body") == BODY and text(message, "MD5OfBody") == md5(BODY)
    names = {text(each, "Name") for each in message.findall(f"{SPACE}MessageAttribute")}
    assert names == set(ATTRIBUTES)
    assert forms.call("DeleteMessage", QueueUrl=queue,
                      ReceiptHandle=text(message, "ReceiptHandle")) is None
    counts = forms.call("GetQueueAttributes", path_of(queue), **{"AttributeName.1": "All"})
    values = {text(each, "Name"): text(each, "Value")
              for each in counts.findall(f"{SPACE}Attribute")}
    assert values["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_errors_name_the_code_that_json_names_in_its_header(forms, raw, queue):
    for action, fields in [
            ("SendMessage", {"QueueUrl": queue}),
            ("ReceiveMessage", {"QueueUrl": queue, "MaxNumberOfMessages": 11}),
            ("DeleteMessage", {"QueueUrl": queue, "ReceiptHandle": "x"}),
            ("GetQueueUrl", {"QueueName": "none"}),
            ("CreateQueue", {"QueueName": "bad name"})]:
        status, _, code, _ = raw.error(action, fields)
        assert forms.error(action, **fields)[:3] == (status, "Sender", code), action


def test_a_get_of_a_queue_path_is_deleted_by_its_url(forms, sqs, name):
    url = forms.call("CreateQueue", QueueName=name).find(f"{SPACE}QueueUrl").text
    assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == url
    assert forms.call("DeleteQueue", path_of(url), method="GET") is None
    assert forms.error("PurgeQueue", path_of(url))[2].endswith("NonExistentQueue")


def test_a_batch_of_ten_by_form(forms, sqs, queue):
    fields = {}
    for number in range(1, 11):
        start = f"SendMessageBatchRequestEntry.{number}"
        fields |= {f"{start}.Id": f"e{number}", f"{start}.MessageBody": f"m{number}"}
    fields["SendMessageBatchRequestEntry.3.MessageBody"] = "\x08"
    result = forms.call("SendMessageBatch", path_of(queue), **fields)
    good = [text(each, "Id") for each in result.findall(f"{SPACE}SendMessageBatchResultEntry")]
    assert good == [f"e{number}" for number in range(1, 11) if number != 3]
    [bad] = result.findall(f"{SPACE}BatchResultErrorEntry")
    assert (text(bad, "Id"), text(bad, "SenderFault"), text(bad, "Code")) == (
        "e3", "true", "InvalidMessageContents")


def test_without_an_action_there_is_nothing(forms, queue):
    for path in ("/", path_of(queue)):
        status, headers, body = forms.raw("GET", path, {})
        assert (status, headers["Content-Type"]) == (404, "text/xml")
        assert body == b"<UnknownOperationException/>"


def test_an_empty_list_of_a_form_is_empty(forms, queue):
    path = path_of(queue)
    assert len(forms.call("GetQueueAttributes", path, AttributeName="")) == 0
    nothing = forms.call("ReceiveMessage", path, AttributeName="", MessageAttributeName="")
    assert len(nothing) == 0
    empty = forms.error("SendMessageBatch", path, SendMessageBatchRequestEntry="")
    assert empty[2].endswith("EmptyBatchRequest")
    absent = forms.error(
        "AddPermission", path, Label="l", ActionName="", **{"AWSAccountId.1": "444455556666"})
    assert absent[2] == "MissingParameter"


def test_a_web_page_cannot_use_a_server_without_credentials(forms, queue):
    path = path_of(queue)
    for headers in ({"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for method in ("GET", "POST"):
            status, _, body = forms.raw(method, path, {"Action": "PurgeQueue"}, headers)
            assert status == 403 and b"AccessDenied" in body
    status, _, _ = forms.raw("GET", path, {"Action": "PurgeQueue"}, {"Sec-Fetch-Site": "none"})
    assert status == 200
