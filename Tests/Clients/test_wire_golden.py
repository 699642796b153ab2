"""Whole answers, byte for byte: status line, headers, body. What no two runs share is cut out: dates,
ids, handles, times; lengths are checked and cut out where those are in the body.
"""

import json
import re
import urllib.parse

import pytest

from harness import Key, Server, Signature, request_bytes, write_keys

HOST = "localhost:9324"
BASE = f"http://{HOST}/000000000000"
JSON = "application/x-amz-json-1.0"
NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"
CUT = [
    (r"(?<=\nDate: )(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT",
     "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r'(?<="ReceiptHandle":")[A-Za-z0-9+/=]+', "<handle>"),
    (r"(?<=<ReceiptHandle>)[A-Za-z0-9+/=]+", "<handle>"),
    (r"\b1\d{12}\b", "<time>"), (r"\b\d{20}\b", "<sequence>"),
]


def read(connection):
    """One answer, with what changes cut out."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"\r\nContent-Length: (\d+)", head)[1])
    while len(body) < length:
        more = connection.recv(65536)
        assert more, (head, body)
        body += more
    assert len(body) == length
    body = body.decode()
    cut = body
    for pattern, mark in CUT:
        cut = re.sub(pattern, mark, cut)
    head = head.decode()
    for pattern, mark in CUT:
        head = re.sub(pattern, mark, head)
    ids = re.findall(rb"x-amzn-RequestId: (\S+)", data)
    assert len(ids) == 1
    if "<RequestId>" in body:
        assert f"<RequestId>{ids[0].decode()}</RequestId>" in body
    if cut != body:
        head = re.sub(r"Content-Length: \d+", "Content-Length: <n>", head)
    return head.replace("\r\n", "\n"), cut


@pytest.fixture
def connection(server):
    with server.socket() as connection:
        yield connection


@pytest.fixture
def ask(connection):
    """Sends a request in JSON, all of them on one connection."""
    def ask(action, members, path="/"):
        data = request_bytes(action, members, path).replace(b"127.0.0.1", HOST.encode(), 1)
        connection.sendall(data)
        return read(connection)
    return ask


@pytest.fixture
def form(connection):
    """Sends a form."""
    def form(action, path="/", **fields):
        body = urllib.parse.urlencode({"Action": action, "Version": "2012-11-05", **fields})
        connection.sendall((
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: "
            "application/x-www-form-urlencoded; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
        return read(connection)
    return form


@pytest.fixture
def get(connection):
    def get(target, *headers):
        lines = [f"GET {target} HTTP/1.1", f"Host: {HOST}", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return read(connection)
    return get


def json_head(length, status="200 OK", error=None):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {JSON}", "x-amzn-RequestId: <id>"]
    lines += [f"x-amzn-query-error: {error}"] if error else []
    return "\n".join([*lines, f"Content-Length: {length}", "Date: <date>"])


def xml_head(status="200 OK", length="<n>"):
    return (f"HTTP/1.1 {status}\nContent-Type: text/xml\nx-amzn-RequestId: <id>\n"
            f"Content-Length: {length}\nDate: <date>")


def xml(action, result=None):
    inside = "" if result is None else (
        f"<{action}Result>{result}</{action}Result>" if result else f"<{action}Result/>")
    return (f'<?xml version="1.0"?><{action}Response xmlns="{NAMESPACE}">{inside}'
            f"<ResponseMetadata><RequestId><id></RequestId></ResponseMetadata></{action}Response>")


def xml_error(code, message, kind="Sender"):
    return (f'<?xml version="1.0"?><ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{kind}</Type>'
            f"<Code>{code}</Code><Message>{message}</Message><Detail/></Error>"
            "<RequestId><id></RequestId></ErrorResponse>")


MD5_HI = "49f68a5c8493ec2c0bf489821c21fc3b"


def test_a_conversation_in_json(ask, name):
    url = f"{BASE}/{name}"
    text = f'{{"QueueUrl":"{url}"}}'
    assert ask("CreateQueue", {"QueueName": name}) == (json_head(len(text)), text)
    for action, members in [("ReceiveMessage", {}), ("ListQueueTags", {}),
                            ("ListDeadLetterSourceQueues", {}), ("GetQueueAttributes", {})]:
        assert ask(action, {"QueueUrl": url, **members}) == (json_head(2), "{}")
    assert ask("ListQueues", {"QueueNamePrefix": name + "-none"}) == (json_head(2), "{}")
    assert ask("SendMessage", {"QueueUrl": url, "MessageBody": "hi"}) == (
        json_head("<n>"), f'{{"MessageId":"<id>","MD5OfMessageBody":"{MD5_HI}"}}')
    assert ask("ReceiveMessage", {"QueueUrl": url, "VisibilityTimeout": 0}, f"/000000000000/{name}") == (
        json_head("<n>"), f'{{"Messages":[{{"MessageId":"<id>","ReceiptHandle":"<handle>",'
                          f'"MD5OfBody":"{MD5_HI}","Body":"hi"}}]}}')
    head, body = ask("ReceiveMessage", {
        "QueueUrl": url, "MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"]})
    assert head == json_head("<n>")
    assert json.loads(body)["Messages"] == [{
        "MessageId": "<id>", "ReceiptHandle": "<handle>", "MD5OfBody": MD5_HI, "Body": "hi",
        "Attributes": {"SenderId": "000000000000", "SentTimestamp": "<time>",
                       "ApproximateReceiveCount": "2",
                       "ApproximateFirstReceiveTimestamp": "<time>"}}]
    head, body = ask("SendMessageBatch", {"QueueUrl": url, "Entries": [
        {"Id": "ok", "MessageBody": "hi"}]})
    assert (head, json.loads(body)) == (json_head("<n>"), {"Successful": [
        {"Id": "ok", "MessageId": "<id>", "MD5OfMessageBody": MD5_HI}]})
    for action, members in [
            ("SetQueueAttributes", {"Attributes": {"DelaySeconds": "0"}}),
            ("TagQueue", {"Tags": {"a": "b"}}), ("UntagQueue", {"TagKeys": ["a"]}),
            ("AddPermission", {"Label": "l", "AWSAccountIds": ["111122223333"], "Actions": ["*"]}),
            ("RemovePermission", {"Label": "l"}), ("PurgeQueue", {}), ("DeleteQueue", {})]:
        assert ask(action, {"QueueUrl": url, **members}) == (json_head(0), ""), action


def test_errors_in_json(ask, name):
    missing = "AWS.SimpleQueueService.NonExistentQueue;Sender"
    text = ('{"__type":"com.amazonaws.sqs#QueueDoesNotExist",'
            '"message":"The specified queue does not exist."}')
    for members in ({"QueueUrl": f"{BASE}/{name}"}, {"QueueUrl": ""}, {}):
        assert ask("SendMessage", {**members, "MessageBody": "m"}) == (
            json_head(len(text), "400 Bad Request", missing), text)
    text = ('{"__type":"com.amazon.coral.service#InvalidParameterValueException",'
            '"message":"Queue name cannot be empty"}')
    assert ask("CreateQueue", {"QueueName": ""}) == (
        json_head(len(text), "400 Bad Request", "InvalidParameterValue;Sender"), text)
    ask("CreateQueue", {"QueueName": name})
    text = ('{"__type":"com.amazonaws.sqs#ReceiptHandleIsInvalid","message":"The input receipt '
            'handle \\"h\\" is not a valid receipt handle."}')
    assert ask("DeleteMessage", {"QueueUrl": f"{BASE}/{name}", "ReceiptHandle": "h"}) == (
        json_head(len(text), "404 Not Found", "ReceiptHandleIsInvalid;Sender"), text)


def test_a_conversation_in_forms(form, name):
    url, path = f"{BASE}/{name}", f"/000000000000/{name}"
    created = xml("CreateQueue", f"<QueueUrl>{url}</QueueUrl>")
    assert form("CreateQueue", QueueName=name) == (xml_head(), created)
    for action in ("ReceiveMessage", "ListQueueTags", "ListDeadLetterSourceQueues",
                   "GetQueueAttributes"):
        assert form(action, path) == (xml_head(), xml(action, ""))
    assert form("ListQueues", QueueNamePrefix=name + "-none") == (xml_head(), xml("ListQueues", ""))
    head, body = form("SendMessage", path, MessageBody='<a href="x">&\r\n</a>')
    digest = "977780e9857ffc69f3f0752b723434d5"
    assert (head, body) == (xml_head(), xml(
        "SendMessage",
        f"<MessageId><id></MessageId><MD5OfMessageBody>{digest}</MD5OfMessageBody>"))
    head, body = form("ReceiveMessage", path, **{"AttributeName.1": "ApproximateReceiveCount"})
    assert (head, body) == (xml_head(), xml(
        "ReceiveMessage",
        "<Message><MessageId><id></MessageId><ReceiptHandle><handle></ReceiptHandle>"
        f"<MD5OfBody>{digest}</MD5OfBody>"
        "<Body>&lt;a href=&quot;x&quot;&gt;&amp;&#xD;\n&lt;/a&gt;</Body>"
        "<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute></Message>"))
    assert form("GetQueueAttributes", path, **{"AttributeName.1": "DelaySeconds"}) == (
        xml_head(), xml("GetQueueAttributes",
                        "<Attribute><Name>DelaySeconds</Name><Value>0</Value></Attribute>"))
    assert form("TagQueue", path, **{"Tag.1.Key": "a", "Tag.1.Value": "b"}) == (
        xml_head(), xml("TagQueue"))
    assert form("ListQueueTags", path) == (
        xml_head(), xml("ListQueueTags", "<Tag><Key>a</Key><Value>b</Value></Tag>"))
    batch = {f"SendMessageBatchRequestEntry.{n}.{member}": value for n, members in (
        (1, {"Id": "ok", "MessageBody": "hi"}), (2, {"Id": "bad", "MessageBody": "\x08"}))
             for member, value in members.items()}
    head, body = form("SendMessageBatch", path, **batch)
    assert head == xml_head()
    good, bad = ("<SendMessageBatchResultEntry><Id>ok</Id>",
                 "<BatchResultErrorEntry><Id>bad</Id><SenderFault>true</SenderFault>"
                 "<Code>InvalidMessageContents</Code><Message>")
    assert good in body and f"<MD5OfMessageBody>{MD5_HI}</MD5OfMessageBody>" in body and bad in body
    for action, fields in [("SetQueueAttributes", {"Attribute.1.Name": "DelaySeconds",
                                                   "Attribute.1.Value": "0"}),
                           ("UntagQueue", {"TagKey.1": "a"}),
                           ("AddPermission", {"Label": "l", "AWSAccountId.1": "111122223333",
                                              "ActionName.1": "*"}),
                           ("RemovePermission", {"Label": "l"}), ("PurgeQueue", {}),
                           ("DeleteQueue", {})]:
        assert form(action, path, **fields) == (xml_head(), xml(action)), action


def test_errors_in_xml(form, get, name):
    missing = xml_error("AWS.SimpleQueueService.NonExistentQueue",
                        "The specified queue does not exist for this wsdl version.")
    assert form("SendMessage", f"/000000000000/{name}", MessageBody="m") == (
        xml_head("400 Bad Request"), missing)
    assert form("SendMessage", MessageBody="m") == (
        xml_head("404 Not Found"), xml_error(
            "InvalidAddress", f"The address http://{HOST}/ is not valid for this endpoint."))
    for target in (f"/000000000000/{name}?Action=CreateQueue&QueueName=x",
                   f"/000000000000/{name}?Action=ListQueues"):
        action = re.search("Action=([A-Za-z]+)", target)[1]
        assert get(target) == (xml_head("400 Bad Request"), xml_error(
            "InvalidAction", f"The action {action} is not valid for this endpoint."))
    assert form("Nothing") == (xml_head("400 Bad Request"), xml_error(
        "InvalidAction", "The action Nothing is not valid for this endpoint."))
    for target in ("/", f"/000000000000/{name}"):
        for headers in ((), ("Accept: application/json",)):
            assert get(target, *headers) == (
                xml_head("404 Not Found", 28), "<UnknownOperationException/>")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with credentials."""
    directory = tmp_path_factory.mktemp("guarded")
    keys = write_keys(directory / "keys", Key("ID", "secret"))
    server = Server(directory / "data", "--credentials", keys).start()
    yield server
    server.stop()


DENIED = ("User: anonymous is not authorized to perform: sqs:sendmessage on resource: "
          "arn:aws:sqs:us-east-1:000000000000:q because no identity-based policy allows the "
          "sqs:sendmessage action")


def test_a_denial_in_both_protocols(guarded):
    text = f'{{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"{DENIED}"}}'
    with guarded.socket() as connection:
        connection.sendall(request_bytes("SendMessage", {"QueueUrl": f"{BASE}/q"}))
        assert read(connection) == (
            json_head(len(text), "403 Forbidden", "AccessDenied;Sender"), text)
        connection.sendall(b"GET /000000000000/q?Action=SendMessage&MessageBody=m HTTP/1.1\r\n"
                           b"Host: x\r\n\r\n")
        assert read(connection) == (xml_head("403 Forbidden"), xml_error("AccessDenied", DENIED))


@pytest.mark.parametrize("key, status, kind, code, message", [
    (Key("NONE", "x"), "403 Forbidden", "UnrecognizedClientException", "InvalidClientTokenId",
     "The security token included in the request is invalid."),
    (Key("ID", "x"), "403 Forbidden", "InvalidSignatureException", "SignatureDoesNotMatch",
     "The request signature we calculated does not match the signature you provided. Check your AWS "
     "Secret Access Key and signing method. Consult the service documentation for details."),
])
def test_a_wrong_signature_in_both_protocols(guarded, key, status, kind, code, message):
    text = f'{{"__type":"com.amazon.coral.service#{kind}","message":"{message}"}}'
    body = b"{}"
    signed = Signature(key).headers(
        "x", {"Content-Type": JSON, "X-Amz-Target": "AmazonSQS.ListQueues"}, body)
    lines = [f"{name}: {value}" for name, value in signed.items()]
    with guarded.socket() as connection:
        connection.sendall("\r\n".join(
            ["POST / HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        assert read(connection) == (json_head(len(text), status, f"{code};Sender"), text)
        target = Signature(key).target("x", {"Action": "ListQueues"})
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read(connection) == (xml_head(status), xml_error(code, message))
