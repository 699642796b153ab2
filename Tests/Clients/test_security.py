"""Who may not, and what is said to them: signatures that are wrong in each way, paths and bodies
that are meant to harm, keys that come and go. No answer and no line of the server holds a secret.
"""

import http.client
import json
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree

import pytest

import test_hostile_http
from harness import (DEADLINE, Background, Key, Server, Signature, drain, error_of, receive,
                     replace_file, wait_until, write_keys)
from test_query import SPACE, text

OWNER, OTHER = "111122223333", "444455556666"
ROOT = Key("OWNERROOT", "secretOwnerRoot/kept+1", settings={"account": OWNER})
STRANGER = Key("STRANGER", "secretStranger/kept+2", settings={"account": OTHER})
BOUND = Key("BOUND", "secretBound/kept+3", settings={
    "account": OWNER, "user": "bound", "policy": json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"}]})})
SESSION = Key("SESSION", "secretSession/kept+4", "tokenOfSession/kept==", settings={
    "account": OWNER, "role": "r", "session": "s", "expires": "2100-01-01T00:00:00Z"})
ENDED = Key("ENDED", "secretEnded/kept+5", "tokenOfEnded/kept==", settings={
    "account": OWNER, "role": "r", "session": "s", "expires": "2020-01-01T00:00:00Z"})
KEYS = [ROOT, STRANGER, BOUND, SESSION, ENDED]
SECRETS = [word for key in KEYS for word in (key.secret, key.token) if word]
MESSAGE = "a body that only its owner may read"
TYPES = {
    "AccessDenied": (403, "AccessDeniedException"),
    "InvalidClientTokenId": (403, "UnrecognizedClientException"),
    "SignatureDoesNotMatch": (403, "InvalidSignatureException"),
    "ExpiredToken": (403, "ExpiredTokenException"),
    "IncompleteSignature": (400, "IncompleteSignatureException"),
    "MalformedInput": (400, "SerializationException"),
    "InvalidAction": (400, "UnknownOperationException"),
    "InvalidAddress": (404, "InvalidAddress"),
    "InvalidParameterValue": (400, "InvalidParameterValueException"),
    "MissingParameter": (400, "MissingRequiredParameterException"),
    "AWS.SimpleQueueService.NonExistentQueue": (400, "QueueDoesNotExist"),
}
MISMATCH = ("The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details.")
NO_KEY = "The security token included in the request is invalid."
NO_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"


def denial(action, user="anonymous", account=OWNER, queue=""):
    return ("AccessDenied", f"User: {user} is not authorized to perform: sqs:{action} on resource: "
            f"arn:aws:sqs:us-east-1:{account}:{queue} because no identity-based policy allows the "
            f"sqs:{action} action")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("security")
    keys = write_keys(directory / "credentials", *KEYS)
    server = Server(directory / "data", "--credentials", keys, "--account", OWNER).start()
    yield server
    assert server.running, f"the server ended by itself:\n{server.output}"
    for secret in [*SECRETS, MESSAGE]:
        assert secret not in server.output
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def secret_queue(server):
    """A queue of the owner with a message, which is there at the end of all tests."""
    sqs = server.sqs(key=ROOT)
    url = sqs.create_queue(QueueName="secret")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=MESSAGE)
    yield url
    [message] = drain(sqs, url, 1)
    assert message["Body"] == MESSAGE


@pytest.fixture
def sqs(server):
    return server.sqs(key=ROOT)


def host(server):
    return f"127.0.0.1:{server.port}"


def exchange(server, method, target, headers, body=b""):
    """Sends a request as it is; returns status, headers and bytes of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        answer = response.read()
        for secret in [*SECRETS, MESSAGE]:
            assert secret.encode() not in answer
        return response.status, response.headers, answer
    finally:
        connection.close()


class JSON:
    @staticmethod
    def make(action, members):
        return {"content-type": "application/x-amz-json-1.0",
                "x-amz-target": f"AmazonSQS.{action}"}, json.dumps(members).encode()

    @staticmethod
    def error(status, headers, answer):
        _, kind, code, message = error_of(status, headers, json.loads(answer))
        if code == "AccessDenied":
            assert list(json.loads(answer)) == ["__type", "Message"]
        if code in TYPES:
            assert (status, TYPES[code][1]) == (TYPES[code][0], kind.split("#")[1])
        return code, message


class QUERY:
    @staticmethod
    def make(action, members):
        return {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, \
            urllib.parse.urlencode({"Action": action, "Version": "2012-11-05", **members}).encode()

    @staticmethod
    def error(status, headers, answer):
        assert headers["Content-Type"] == "text/xml"
        root = ElementTree.fromstring(answer)
        assert root.tag == f"{SPACE}ErrorResponse"
        error = root.find(f"{SPACE}Error")
        code = text(error, "Code")
        assert text(error, "Type") == ("Sender" if status < 500 else "Receiver")
        assert text(root, "RequestId") == headers["x-amzn-RequestId"]
        if code in TYPES:
            assert status == TYPES[code][0]
        return code, text(error, "Message")


@pytest.fixture(params=[JSON, QUERY], ids=["json", "query"])
def wire(request):
    return request.param


@pytest.fixture
def send(server, wire):
    """Sends a signed action, altered after that by `spoil`; returns status, headers, answer."""
    def send(signature, action="ListQueues", members=(), spoil=None, path="/", more=()):
        headers, body = wire.make(action, dict(members))
        request = {"method": "POST", "target": path, "body": body}
        if signature:
            headers = signature.headers(host(server), {**headers, **dict(more)}, body, path=path)
        request["headers"] = headers
        if spoil:
            spoil(request)
        return exchange(server, **request)

    return send


@pytest.fixture
def error(wire, send):
    """As `send`, of a request that must fail; returns code and text."""
    return lambda *args, **more: wire.error(*send(*args, **more))


# Signatures (1.6)


def test_a_right_signature_is_taken(send):
    for key in (ROOT, STRANGER, BOUND, SESSION):
        assert send(Signature(key))[0] == 200


def test_not_signed_is_denied(error):
    assert error(None) == denial("listqueues")


def test_an_unknown_key(error):
    assert error(Signature(Key("NOBODY", "x"))) == ("InvalidClientTokenId", NO_KEY)


def test_a_wrong_secret(error):
    wrong = Signature(Key(ROOT.id, STRANGER.secret))
    assert error(wrong) == ("SignatureDoesNotMatch", MISMATCH)


def set_header(name, value):
    return lambda request: request["headers"].__setitem__(name, value)


def spoil_body(request):
    request["body"] = request["body"].replace(b"List", b"Lisp") + b" "


SPOILED = {
    "body": spoil_body,
    "path": lambda request: request.update(target=f"/{OWNER}/secret"),
    "query": lambda request: request.update(target="/?x=y"),
    "method": lambda request: request.update(method="GET"),
    "type": lambda request: request["headers"].update(
        {"content-type": request["headers"]["content-type"] + "; x=y"}),
    "host": set_header("host", "example.com"),
    "date": lambda request: request["headers"].update(
        {"x-amz-date": request["headers"]["x-amz-date"][:-3] + "59Z"
         if request["headers"]["x-amz-date"][-3:-1] != "59"
         else request["headers"]["x-amz-date"][:-3] + "58Z"}),
    "own header": set_header("x-own", "other"),
    "own header gone": lambda request: request["headers"].pop("x-own"),
    "signature": lambda request: request["headers"].update(Authorization=re.sub(
        "Signature=.*", "Signature=" + "0" * 64, request["headers"]["Authorization"])),
    "short signature": lambda request: request["headers"].update(
        Authorization=request["headers"]["Authorization"][:-1]),
    "names of headers": lambda request: request["headers"].update(
        Authorization=request["headers"]["Authorization"].replace(";x-own", "")),
}


@pytest.mark.parametrize("part", SPOILED)
def test_what_was_altered_after_signing(error, part):
    assert error(Signature(ROOT), spoil=SPOILED[part], more={"x-own": "mine"}) == (
        "SignatureDoesNotMatch", MISMATCH)


def test_the_action_that_was_signed_is_the_one(server, wire, sqs, name):
    # A signed look at queues does not become a deletion of one.
    sqs.create_queue(QueueName=name)

    def spoil(request):
        request["headers"], request["body"] = (
            {**request["headers"], **wire.make("DeleteQueue", members)[0]},
            wire.make("DeleteQueue", members)[1])

    members = {"QueueUrl": f"http://x/{OWNER}/{name}"}
    headers, body = wire.make("GetQueueUrl", {"QueueName": name})
    request = {"method": "POST", "target": "/", "body": body,
               "headers": Signature(ROOT).headers(host(server), headers, body)}
    spoil(request)
    assert wire.error(*exchange(server, **request)) == ("SignatureDoesNotMatch", MISMATCH)
    sqs.delete_queue(QueueUrl=members["QueueUrl"])


@pytest.mark.parametrize("name", ["x-amz-target", "x-amz-security-token", "x-amz-content-sha256"])
def test_headers_that_decide_must_be_signed(server, name):
    headers, body = QUERY.make("ListQueues", {})
    headers = Signature(ROOT).headers(host(server), headers, body)
    answer = exchange(server, "POST", "/", {**headers, name: "AmazonSQS.ListQueues"}, body)
    code, _ = QUERY.error(*answer)
    # A token for a key without one is refused before headers are looked at.
    assert code == ("InvalidClientTokenId" if "token" in name else "SignatureDoesNotMatch")


@pytest.mark.parametrize("at", [-14 * 60, 14 * 60])
def test_a_clock_within_a_quarter_of_an_hour(send, at):
    assert send(Signature(ROOT, at=at))[0] == 200


def test_a_request_is_too_old_after_a_quarter_of_an_hour(error):
    signature = Signature(ROOT, at=-16 * 60)
    code, message = error(signature)
    stamp = r"\d{8}T\d{6}Z"
    assert code == "SignatureDoesNotMatch" and re.fullmatch(
        rf"Signature expired: {signature.time} is now earlier than {stamp} \({stamp} - 15 min\.\)",
        message)


def test_a_request_is_too_early_before_a_quarter_of_an_hour(error):
    signature = Signature(ROOT, at=16 * 60)
    code, message = error(signature)
    stamp = r"\d{8}T\d{6}Z"
    assert code == "SignatureDoesNotMatch" and re.fullmatch(
        rf"Signature not yet current: {signature.time} is still later than {stamp} "
        rf"\({stamp} \+ 15 min\.\)", message)


@pytest.mark.parametrize("scope, message", [
    ({"region": "eu-west-1"}, "Credential should be scoped to a valid region. "),
    ({"service": "sns"}, "Credential should be scoped to correct service: 'sqs'. "),
    ({"terminator": "aws5_request"},
     "Credential should be scoped with a valid terminator: 'aws4_request'."),
    ({"day": "20200101"}, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version "
                          "of date from HTTP: '20200101' != "),
])
def test_a_wrong_scope(error, scope, message):
    code, found = error(Signature(ROOT, **scope))
    assert code == "SignatureDoesNotMatch"
    assert found == message or ("day" in scope and found.startswith(message))


@pytest.mark.parametrize("value", [
    "AWS4-HMAC-SHA256 Credential=bogus", "AWS4-HMAC-SHA256", "Bearer abc", "Basic dGVzdDp0ZXN0",
    "AWS OWNERROOT:c2lnbmF0dXJl", "",
    "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00",
    "AWS4-HMAC-SHA256 Credential=a/20260115/us-east-1/sqs/aws4_request, SignedHeaders=, Signature=0",
    "AWS4-HMAC-SHA256 " + "Credential=a," * 500, "AWS4-HMAC-SHA256 " + "x" * 10_000,
    "AWS4-HMAC-SHA256 Credential=" + "/" * 10_000 + ", SignedHeaders=host, Signature=0",
    "AWS4-HMAC-SHA256 Credential=a/20260115/us-east-1/sqs/aws4_request, SignedHeaders="
    + ";".join(f"h{n}" for n in range(1000)) + ", Signature=0",
])
def test_a_header_that_cannot_be_read(error, value):
    code, message = error(Signature(ROOT), spoil=set_header("Authorization", value))
    assert code == "IncompleteSignature" and len(message) < 400


def test_an_authorization_header_over_the_limit(server):
    before = server.memory()
    for _ in range(20):
        headers = ["X-Amz-Target: AmazonSQS.ListQueues", "Authorization: " + "A" * 200_000]
        assert test_hostile_http.exchange(
            server, test_hostile_http.post(*headers, "Content-Length: 0")) in (None, 400, 413, 431)
    assert server.memory() < before + 64 * 2**20


# Session tokens


def test_a_token_must_be_the_one(error):
    signed = [Key(SESSION.id, SESSION.secret), Key(SESSION.id, SESSION.secret, "wrong"),
              Key(SESSION.id, SESSION.secret, ENDED.token), Key(ROOT.id, ROOT.secret, "toomuch")]
    for key in signed:
        assert error(Signature(key)) == ("InvalidClientTokenId", NO_KEY)


def test_a_token_that_has_ended(error):
    assert error(Signature(ENDED)) == (
        "ExpiredToken", "The security token included in the request is expired.")


# Presigned URLs


@pytest.fixture
def visit(server):
    def visit(key, fields, path="/", spoil=lambda target: target, at=0, **more):
        target = Signature(key, at=at).target(host(server), fields, path, **more)
        return exchange(server, "GET", spoil(target), {})
    return visit


@pytest.mark.parametrize("key", [ROOT, SESSION], ids=["root", "session"])
def test_a_presigned_url_sends_and_receives(server, visit, sqs, name, key):
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    body = "a b&c=d+e/ü%"
    status, _, answer = visit(key, {"Action": "SendMessage", "MessageBody": body}, f"/{OWNER}/{name}")
    assert status == 200
    assert ElementTree.fromstring(answer).tag == f"{SPACE}SendMessageResponse"
    # Whoever has a URL may use it again until it expires.
    target = Signature(key).target(
        host(server), {"Action": "ReceiveMessage", "VisibilityTimeout": "0"}, f"/{OWNER}/{name}")
    for _ in range(2):
        status, _, answer = exchange(server, "GET", target, {})
        assert status == 200
        assert ElementTree.fromstring(answer).find(f".//{SPACE}Body").text == body
    sqs.delete_queue(QueueUrl=queue)


def test_a_presigned_url_of_boto3(server, sqs, name):
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    from harness import QUERY as FORMS
    url = urllib.parse.urlsplit(sqs.generate_presigned_url(
        "send_message", Params={"QueueUrl": queue, "MessageBody": "m"}, HttpMethod="GET"))
    if FORMS:
        assert exchange(server, "GET", f"{url.path}?{url.query}", {})[0] == 200
        assert [m["Body"] for m in receive(sqs, queue)] == ["m"]
    else:
        # It signs headers that a plain GET does not have.
        assert QUERY.error(*exchange(server, "GET", f"{url.path}?{url.query}", {})) == (
            "SignatureDoesNotMatch", MISMATCH)


def test_an_expired_presigned_url(visit):
    code, message = QUERY.error(*visit(ROOT, {"Action": "ListQueues"}, at=-120, expires=60))
    assert code == "SignatureDoesNotMatch" and message.startswith("Signature expired: ")
    assert visit(ROOT, {"Action": "ListQueues"}, at=-3600, expires=7200)[0] == 200
    assert visit(ROOT, {"Action": "ListQueues"}, at=16 * 60)[0] == 403


@pytest.mark.parametrize("change", [
    ("Action=GetQueueUrl", "Action=DeleteQueue"), ("QueueName=secret", "QueueName=other"),
    ("X-Amz-Expires=300", "X-Amz-Expires=3000"), ("/?", f"/{OWNER}/secret?"),
    ("X-Amz-SignedHeaders", "More=1&X-Amz-SignedHeaders")])
def test_a_presigned_url_cannot_be_altered(visit, change):
    fields = {"Action": "GetQueueUrl", "QueueName": "secret"}
    assert visit(ROOT, fields)[0] == 200
    assert QUERY.error(*visit(ROOT, fields, spoil=lambda target: target.replace(*change, 1))) == (
        "SignatureDoesNotMatch", MISMATCH)


@pytest.mark.parametrize("expires", ["0", "604801", "x", ""])
def test_a_presigned_url_is_good_for_a_second_to_a_week(visit, expires):
    code, _ = QUERY.error(*visit(ROOT, {"Action": "ListQueues"}, expires=expires))
    assert code == "IncompleteSignature"


def test_a_request_is_signed_in_one_place(server, visit):
    target = Signature(ROOT).target(host(server), {"Action": "ListQueues"})
    answer = exchange(server, "GET", target, Signature(ROOT).headers(host(server), method="GET"))
    assert QUERY.error(*answer)[0] == "IncompleteSignature"
    twice = visit(ROOT, {"Action": "ListQueues"}, spoil=lambda t: t + "&X-Amz-Credential=other")
    assert QUERY.error(*twice)[0] == "IncompleteSignature"


def test_a_body_beside_a_presigned_url_does_nothing(server, sqs, name):
    sqs.create_queue(QueueName=name)
    target = Signature(ROOT).target(host(server), {"Action": "ListQueues"})
    body = f"Action=DeleteQueue&QueueUrl=/{OWNER}/{name}".encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert exchange(server, "GET", target, kind, body)[0] in (200, 403)
    assert QUERY.error(*exchange(server, "POST", target, kind, body)) == (
        "SignatureDoesNotMatch", MISMATCH)
    more = JSON.make("DeleteQueue", {})[0]
    assert JSON.error(*exchange(server, "GET", target, more, body))[0] == "SignatureDoesNotMatch"
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])


# Permissions


def test_a_denied_action_names_itself_and_shows_nothing(error):
    url = f"http://{OWNER}.example/{OWNER}/secret"
    for key, user in [(None, "anonymous"), (STRANGER, f"arn:aws:iam::{OTHER}:root"),
                      (BOUND, f"arn:aws:iam::{OWNER}:user/bound")]:
        signature = key and Signature(key)
        for action in ("ReceiveMessage", "PurgeQueue", "DeleteQueue", "GetQueueAttributes"):
            assert error(signature, action, {"QueueUrl": url}) == denial(
                action.lower(), user, queue="secret")


def test_the_wrong_account_in_the_address(error):
    for account in (OTHER, "999999999999"):
        assert error(Signature(ROOT), "ReceiveMessage", {"QueueUrl": f"/{account}/secret"}) == denial(
            "receivemessage", f"arn:aws:iam::{OWNER}:root", account, "secret")
    assert error(Signature(STRANGER), "ReceiveMessage", {"QueueUrl": "secret"})[0] == NO_QUEUE


TRICKS = [
    f"/{OWNER}/../{OWNER}/secret", f"/{OWNER}/%2e%2e/{OWNER}/secret", f"/{OTHER}/../secret",
    f"/{OWNER}%2fsecret", f"/{OWNER}/sec%2fret", f"/{OWNER}/..%2f..%2fsecret", f"/{OWNER}/.",
    f"/{OWNER}/..", f"/{OWNER}/%00secret", f"/{OWNER}/secret%00", f"/~{OWNER}/secret",
    f"/{OTHER}/~{OWNER}%2fsecret", f"/{OWNER}/secret/x", f"/x/{OWNER}/secret",
    f"/{OWNER}/Secret", f"/{OWNER}/%c0%aesecret", f"/{OWNER}/secret%20", f"/{OWNER}/" + "s" * 4000,
    "/" + "a/" * 2000, f"/{OWNER}/" + "%2e" * 1000, "/penstock/queues/secret", "/%", "/" + "1" * 5000]


@pytest.mark.parametrize("path", TRICKS, ids=range(len(TRICKS)))
def test_tricks_with_paths(server, path):
    """Nobody gets to the message, and the owner not by an address that is none."""
    for key in (None, STRANGER, ROOT):
        for member in (True, False):
            members = {"QueueUrl": path} if member else {}
            for wire in (JSON, QUERY):
                headers, body = wire.make("ReceiveMessage", members)
                target = "/" if member else path
                if key and target == "/":
                    headers = Signature(key).headers(host(server), headers, body)
                elif key and ".." not in path and "%" not in path and "/." not in path:
                    signed = target if len(target) < 2 else target.rstrip("/") + (
                        "/" if target.endswith("/") else "")
                    headers = Signature(key).headers(host(server), headers, body, path=signed)
                elif key:
                    continue
                status, headers, answer = exchange(server, "POST", target, headers, body)
                code, message = wire.error(status, headers, answer)
                assert code in ("AccessDenied", "InvalidAddress", NO_QUEUE), (code, message)
                assert len(message) < 3000


def test_a_path_may_be_spelled_differently(server, sqs):
    for target in (f"//{OWNER}//secret", f"/{OWNER}/secret/", f"/queue/us-east-1/{OWNER}/secret"):
        canonical = re.sub("/+", "/", target)
        headers, body = QUERY.make("GetQueueAttributes", {"AttributeName.1": "QueueArn"})
        headers = Signature(ROOT).headers(host(server), headers, body, path=canonical)
        status, _, answer = exchange(server, "POST", target, headers, body)
        assert (status, b":secret<" in answer) == (200, True), target


# Bodies


DEEP = 100_000
BOMBS = {
    "deep lists": b'{"QueueUrl":' + b"[" * DEEP, "deep maps": b'{"a":' * DEEP,
    "deep and closed": b"[" * DEEP + b"]" * DEEP,
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "a form": b"Action=ListQueues", "a long number": b'{"MaxResults":-' + b"9" * 1_000_000,
    "half a string": b'{"QueueUrl":"' + b"x" * 2_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bodies_that_are_not_json(server, bomb):
    for key in (None, ROOT):
        headers, body = JSON.make("ListQueues", {})[0], BOMBS[bomb]
        if key:
            headers = Signature(key).headers(host(server), headers, body)
        code, message = JSON.error(*exchange(server, "POST", "/", headers, body))
        assert code == "MalformedInput" and len(message) < 1000


FORMS = {
    "many fields": ("&".join(f"a{n}=b" for n in range(100_000)), "MalformedInput"),
    "many equal fields": ("a=b&" * 100_000, "MalformedInput"),
    "empty fields": ("&" * 1_000_000, None),
    "deep names": ("&".join("a." * 5000 + f"{n}=b" for n in range(100)), None),
    "wide and deep": ("&".join(f"a{n}.b.c.d.e.f.g.h=x" for n in range(9_990)), None),
    "huge numbers": ("&".join(f"AttributeName.{10**n}=All" for n in range(50)), None),
    "a long name": ("a" * 2_000_000 + "=b", None),
    "wrong percent": ("a=%", "MalformedInput"),
    "not unicode": ("a=%ff", "MalformedInput"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_bombs(server, form):
    body, expected = FORMS[form]
    body = b"Action=ListQueues&" + body.encode()
    kind = QUERY.make("ListQueues", {})[0]
    before = server.memory()
    for key in (None, ROOT):
        headers = Signature(key).headers(host(server), kind, body) if key else kind
        answer = exchange(server, "POST", "/", headers, body)
        if key and expected is None:
            assert answer[0] == 200, answer
        else:
            code, message = QUERY.error(*answer)
            assert code == expected or code == "AccessDenied" and expected is None
            assert len(message) < 1000
    assert server.memory() < before + 256 * 2**20


def test_many_bombs_at_once_leave_room_for_others(server, sqs, secret_queue):
    kind = JSON.make("ListQueues", {})[0]
    before = server.memory()
    work = [Background(exchange, server, "POST", "/", kind, b"[" * 1_000_000) for _ in range(16)]
    work += [Background(exchange, server, "POST", "/", QUERY.make("ListQueues", {})[0],
                        "&".join(f"a{n}=b" for n in range(100_000)).encode()) for _ in range(16)]
    sqs.get_queue_attributes(QueueUrl=secret_queue, AttributeNames=["All"])
    assert {each.result()[0] for each in work} == {400}
    assert server.memory() < before + 512 * 2**20


# The credentials file


def works(server, key):
    try:
        server.sqs(key=key).list_queues()
        return True
    except Exception as failure:
        assert failure.response["Error"]["Code"] == "InvalidClientTokenId", failure
        return False


def test_the_file_is_read_again_when_it_changes(new_server, tmp_path):
    one, two = Key("ONE", "secretOne"), Key("TWO", "secretTwo")
    path = write_keys(tmp_path / "credentials", one)
    server = new_server("--credentials", path).start()
    assert works(server, one) and not works(server, two)
    write_keys(path, one, two)
    wait_until(lambda: works(server, two), "a key that was added")
    assert works(server, one)
    # A session that lives on its connection is asked again for each request.
    client = server.sqs(key=one)
    client.list_queues()
    write_keys(path, two)
    wait_until(lambda: not works(server, one), "a key that was removed")
    with pytest.raises(client.exceptions.ClientError, match="InvalidClientTokenId"):
        client.list_queues()
    assert works(server, two)
    write_keys(path, two, Key("ONE", "secretOther"))
    wait_until(lambda: works(server, Key("ONE", "secretOther")), "a key with another secret")
    for secret in ("secretOne", "secretTwo", "secretOther"):
        assert secret not in server.output


@pytest.mark.parametrize("broken", [
    "", "nonsense", "[a]\naws_access_key_id = A\n",
    "[a]\naws_access_key_id = A\naws_secret_access_key = secretNew\npolicy = {\n",
    "[a]\naws_access_key_id = A\naws_secret_access_key = secretNew\naccount = 12\n",
    None])
def test_a_broken_file_leaves_the_keys_as_they_were(new_server, tmp_path, broken):
    old = Key("OLD", "secretOld")
    path = write_keys(tmp_path / "credentials", old)
    server = new_server("--credentials", path).start()
    if broken is None:
        path.unlink()
    else:
        replace_file(path, broken)
    wait_until(lambda: "was not taken" in server.output, "a word about the file")
    assert str(path) in server.output and not re.search("secret[ON]", server.output)
    assert works(server, old) and not works(server, Key("A", "secretNew"))
    write_keys(path, Key("NEW", "secretNew"))
    wait_until(lambda: works(server, Key("NEW", "secretNew")), "the file that was mended")
    assert not works(server, old)


def test_a_broken_file_at_the_start_is_an_error(new_server, tmp_path):
    path = tmp_path / "credentials"
    path.write_text("[a]\naws_access_key_id = A\naws_secret_access_key = secretNew\nplicy = x\n")
    server = new_server("--credentials", path).spawn()
    assert server.process.wait(DEADLINE) != 0
    server.reader.join(DEADLINE)
    assert "line 4" in server.output and "secretNew" not in server.output


# What the server tells about itself


PRIVATE = ["/penstock/metrics", f"/penstock/queues/{OWNER}/secret/peek",
           f"/penstock/queues/{OWNER}/secret/peek?state=any"]


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_strangers_see_nothing_of_the_store(server, path, header):
    # A client of this machine is trusted, unless it is a proxy that speaks for somebody.
    far = {header: "for=192.0.2.1" if header == "Forwarded" else "192.0.2.1"}
    plain, _, query = path.partition("?")
    for key in (None, STRANGER, BOUND, Key(ROOT.id, "wrong"), ENDED):
        signed = Signature(key).headers(
            host(server), method="GET", path=plain,
            query=urllib.parse.parse_qsl(query)) if key else {}
        status, _, answer = exchange(server, "GET", path, {**far, **signed})
        assert (status, sorted(json.loads(answer))) == (403, ["message"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    connection.request("GET", path, headers={**far, **Signature(ROOT).headers(
        host(server), method="GET", path=plain, query=urllib.parse.parse_qsl(query))})
    response = connection.getresponse()
    assert (response.status, b"secret" in response.read() or "peek" in path) == (200, True)
    connection.close()


def test_strangers_see_of_health_the_state_alone(server):
    for path, state in [("live", "live"), ("ready", "ready")]:
        answer = exchange(
            server, "GET", f"/penstock/health/{path}", {"X-Forwarded-For": "192.0.2.1"})
        assert (answer[0], json.loads(answer[2])) == (200, {"state": state})
