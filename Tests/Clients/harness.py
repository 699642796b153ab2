"""What the tests stand on: a server process, a raw JSON connection, MD5 checks, waiting."""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import botocore
import botocore.config

HERE = Path(__file__).resolve().parent
COMMAND = shlex.split(os.environ.get("PENSTOCK", str(HERE / "../../.build/debug/penstock")))

# Deadlines are generous: they end a hung test, they do not measure speed.
DEADLINE = 60
# How late an event with a due time may arrive on a loaded machine.
LATE = 2.5

# A body and attributes that are easily damaged on the way, and a request for all of them.
BODY = "Grüße 🐝\r\n"
ATTRIBUTES = {
    "city": {"DataType": "String", "StringValue": "Zürich 🐝\r\n\t<&\">"},
    "tags": {"DataType": "String.Array", "StringValue": '["a","b"]'},
    "n": {"DataType": "Number", "StringValue": "-0042.500"},
    "m": {"DataType": "Number.int", "StringValue": "1493147359900"},
    "blob": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    "gzip": {"DataType": "Binary.gzip", "BinaryValue": b"\0"},
}
ALL = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}


def wait_until(condition, what, deadline=DEADLINE):
    """Polls for something that announces itself in no other way; returns its first true value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.05)


class Server:
    """One data directory and the process that serves it, which may be replaced by restarts."""

    def __init__(self, data_dir, *options, wrapper=(), env=None):
        self.data_dir = Path(data_dir)
        self.options = [str(option) for option in options]
        self.wrapper = [str(word) for word in wrapper]
        self.env = {**os.environ, **(env or {})}
        self.process = None
        self.port = None
        self.lines = []

    def command(self, *extra):
        serve = ["serve", "--data-dir", str(self.data_dir), "--host", "127.0.0.1", "--port", "0"]
        return [*self.wrapper, *COMMAND, *serve, *self.options, *extra]

    def spawn(self):
        """Starts the process without waiting for it to listen."""
        assert self.process is None, "already running"
        self.port = None
        self.lines = []
        self.listening = threading.Event()
        self.process = subprocess.Popen(
            self.command(), env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()
        return self

    def start(self):
        self.spawn()
        heard = self.listening.wait(DEADLINE)
        if not heard or self.port is None:
            self.kill()
            raise AssertionError(f"the server did not start to listen:\n{self.output}")
        return self

    def _read(self, process):
        """Keeps the pipe empty, and finds the port in the start-up block."""
        for line in process.stdout:
            self.lines.append(line)
            found = re.search(r"listening on https?://127\.0\.0\.1:(\d+)", line)
            if found and self.port is None:
                self.port = int(found[1])
                self.listening.set()
        self.listening.set()

    @property
    def output(self):
        return "".join(self.lines)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def _reap(self):
        code = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        self.process.stdout.close()
        self.process = None
        return code

    def stop(self, by=signal.SIGTERM):
        """Asks the server to end, and expects that it does so with exit code 0."""
        if self.process is None:
            return
        self.process.send_signal(by)
        try:
            code = self._reap()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {DEADLINE} s after {by.name}:\n{self.output}")
        assert code == 0, f"exit code {code} after {by.name}:\n{self.output}"

    def kill(self):
        """SIGKILL: what is not in the files by now is gone."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def restart(self, end="stop"):
        getattr(self, end)()
        return self.start()

    def memory(self, field="VmRSS"):
        """Bytes of resident memory, now (VmRSS) or at the highest point so far (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024

    def sqs(self, retries=0, key=None, url=None, verify=None, **config):
        """A boto3 client whose every answer is checked against its MD5s."""
        if isinstance(retries, int):
            retries = {"total_max_attempts": retries + 1}
        options = {"retries": retries, "read_timeout": DEADLINE, "connect_timeout": DEADLINE,
                   **config}
        client = _session(key).client(
            "sqs", endpoint_url=url or self.url, verify=verify,
            config=botocore.config.Config(**options))
        check_digests(client)
        speak_alike(client)
        return client

    def resource(self, key=None):
        resource = _session(key).resource(
            "sqs", endpoint_url=self.url,
            config=botocore.config.Config(retries={"total_max_attempts": 1}))
        check_digests(resource.meta.client)
        return resource

    def raw(self, timeout=DEADLINE):
        return Raw(self.port, timeout)

    def socket(self, timeout=DEADLINE):
        return socket.create_connection(("127.0.0.1", self.port), timeout)


@dataclass(frozen=True)
class Key:
    """A profile of the credentials file; `settings` are its lines beside the key itself."""

    id: str
    secret: str
    token: str = None
    settings: dict = field(default_factory=dict)

    @property
    def profile(self):
        lines = [f"[{self.id}]", f"aws_access_key_id = {self.id}",
                 f"aws_secret_access_key = {self.secret}"]
        lines += [f"aws_session_token = {self.token}"] if self.token else []
        return "\n".join([*lines, *(f"{name} = {v}" for name, v in self.settings.items()), ""])


def write_keys(path, *keys):
    replace_file(path, "\n".join(key.profile for key in keys))
    return path


def replace_file(path, text):
    """Puts a file in the place of another in one step."""
    part = Path(path).with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)


TEST_KEY = Key("test", "test")


def _session(key=None):
    key = key or TEST_KEY
    return boto3.session.Session(
        aws_access_key_id=key.id, aws_secret_access_key=key.secret, aws_session_token=key.token,
        region_name="us-east-1")


def _quote(text):
    return urllib.parse.quote(text, safe="-_.~")


class Signature:
    """Version 4 of AWS signatures, by hand: whatever goes into one can be chosen."""

    def __init__(self, key, at=0, region="us-east-1", service="sqs", day=None,
                 terminator="aws4_request"):
        """`at` is in seconds from now; `day` is that of the scope."""
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=at)
        self.key = key
        self.time = now.strftime("%Y%m%dT%H%M%SZ")
        self.scope = [day or self.time[:8], region, service, terminator]

    def of(self, method, path, query, headers, body):
        """The signature of a request whose every header is signed."""
        query = "&".join(sorted(f"{_quote(name)}={_quote(value)}" for name, value in query))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = "\n".join([method, urllib.parse.quote(path, safe="/-_.~"), query, lines,
                             ";".join(sorted(headers)), hashlib.sha256(body).hexdigest()])
        text = "\n".join(["AWS4-HMAC-SHA256", self.time, "/".join(self.scope),
                          hashlib.sha256(request.encode()).hexdigest()])
        secret = ("AWS4" + self.key.secret).encode()
        for part in [*self.scope, text]:
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        return secret.hex()

    @property
    def credential(self):
        return "/".join([self.key.id, *self.scope])

    def headers(self, host, headers=(), body=b"", method="POST", path="/", query=()):
        """The headers of a request, signed in its `Authorization`."""
        headers = {name.lower(): value for name, value in dict(headers).items()}
        headers |= {"host": host, "x-amz-date": self.time}
        if self.key.token:
            headers["x-amz-security-token"] = self.key.token
        signature = self.of(method, path, list(query), headers, body)
        names = ";".join(sorted(headers))
        return {**headers, "Authorization": f"AWS4-HMAC-SHA256 Credential={self.credential}, "
                                            f"SignedHeaders={names}, Signature={signature}"}

    def target(self, host, fields, path="/", expires=300, **more):
        """Path and query of a GET that is signed in its query."""
        query = {**fields, "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                 "X-Amz-Credential": self.credential, "X-Amz-Date": self.time,
                 "X-Amz-Expires": str(expires), "X-Amz-SignedHeaders": "host", **more}
        if self.key.token:
            query["X-Amz-Security-Token"] = self.key.token
        query["X-Amz-Signature"] = self.of("GET", path, query.items(), {"host": host}, b"")
        return f"{path}?" + "&".join(f"{_quote(n)}={_quote(v)}" for n, v in query.items())


class Raw:
    """One keep-alive connection that speaks AWS JSON 1.0 without any help from an SDK."""

    def __init__(self, port, timeout=DEADLINE):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def close(self):
        self.connection.close()

    def post(self, body, target=None, path="/", headers=None):
        """Sends any bytes; returns status, headers and the bytes of the answer."""
        headers = {"Content-Type": "application/x-amz-json-1.0", **(headers or {})}
        if target:
            headers["X-Amz-Target"] = target
        self.connection.request("POST", path, body, headers)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()

    def call(self, action, members=None, **more):
        """Sends one action; returns status, headers and the parsed answer ({} if it is empty)."""
        body = json.dumps({**(members or {}), **more}).encode()
        status, headers, answer = self.post(body, f"AmazonSQS.{action}")
        return status, headers, json.loads(answer) if answer else {}

    def ok(self, action, members=None, **more):
        status, _, answer = self.call(action, members, **more)
        assert status == 200, f"{action}: {status} {answer}"
        return answer

    def error(self, action, members=None, **more):
        """Sends one action that must fail; returns (status, type, query code, text)."""
        return error_of(*self.call(action, members, **more))

    def counts(self, url):
        return counts_of(self.ok("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))


def error_of(status, headers, answer):
    """Takes an error apart, and checks the form that all of them share."""
    assert status >= 400, f"expected an error, got {status} {answer}"
    assert headers["Content-Type"] == "application/x-amz-json-1.0"
    code, fault = headers["x-amzn-query-error"].split(";")
    assert fault == ("Sender" if status < 500 else "Receiver")
    prefix, kind = answer["__type"].split("#")
    assert prefix in ("com.amazonaws.sqs", "com.amazon.coral.service")
    # The real service spells this one differently.
    return status, answer["__type"], code, answer[
        "Message" if code == "AccessDenied" else "message"]


def counts_of(answer):
    """(visible, in flight, delayed) from an answer of GetQueueAttributes."""
    values = answer["Attributes"]
    return tuple(int(values["ApproximateNumberOfMessages" + suffix])
                 for suffix in ("", "NotVisible", "Delayed"))


def request_bytes(action, members, path="/", headers=()):
    """A whole request as bytes, for sockets."""
    body = json.dumps(members).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1",
             "Content-Type: application/x-amz-json-1.0", f"X-Amz-Target: AmazonSQS.{action}",
             f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_answer(connection, status=200):
    """Reads one answer with a Content-Length from a socket, and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"closed before an answer, after {head!r}"
        head += byte
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
    body = b""
    while len(body) < length:
        more = connection.recv(length - len(body))
        assert more, f"closed inside an answer, after {head + body!r}"
        body += more
    return body


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def md5_of_attributes(attributes):
    """The digest over names, types and values; binary values as bytes or as base64 text."""
    def field(data):
        return struct.pack(">I", len(data)) + data

    buffer = b""
    for name in sorted(attributes, key=str.encode):
        attribute = attributes[name]
        buffer += field(name.encode()) + field(attribute["DataType"].encode())
        if attribute["DataType"].startswith("Binary"):
            value = attribute["BinaryValue"]
            value = base64.b64decode(value) if isinstance(value, str) else bytes(value)
            buffer += b"\x02" + field(value)
        else:
            buffer += b"\x01" + field(attribute["StringValue"].encode())
    return hashlib.md5(buffer).hexdigest()


def check_received(message):
    """Checks the digests of one received message."""
    assert message["MD5OfBody"] == md5(message["Body"])
    attributes = message.get("MessageAttributes")
    assert (attributes is None) == (message.get("MD5OfMessageAttributes") is None)
    if attributes is not None:
        assert attributes, "no attributes must be absent, not empty"
        assert message["MD5OfMessageAttributes"] == md5_of_attributes(attributes)


def check_sent(sent, answer):
    """Checks the digests in the answer to one send (or to one entry of a batch)."""
    assert answer["MD5OfMessageBody"] == md5(sent["MessageBody"])
    for ours, theirs in (("MessageAttributes", "MD5OfMessageAttributes"),
                         ("MessageSystemAttributes", "MD5OfMessageSystemAttributes")):
        expected = md5_of_attributes(sent[ours]) if sent.get(ours) else None
        assert answer.get(theirs) == expected, theirs


# True when the installed botocore is one of those that send forms and read XML (before 1.31.81): the
# same tests then hold the Query protocol to the same rules.
QUERY = tuple(int(part) for part in botocore.__version__.split(".")[:3]) < (1, 31, 81)
NO_QUEUE = ("The specified queue does not exist for this wsdl version." if QUERY
            else "The specified queue does not exist.")


def speak_alike(client):
    """Gives the older client the one parameter that came after it."""
    def rename(params, **_):
        if "MessageSystemAttributeNames" in params:
            params["AttributeNames"] = params.pop("MessageSystemAttributeNames")
        return params

    if QUERY:
        client.meta.events.register("provide-client-params.sqs.ReceiveMessage", rename)


def check_digests(client):
    """Makes a boto3 client check every MD5; botocore itself checks none for SQS."""
    def remember(params, context, **_):
        context["sent"] = params

    def after_send(parsed, context, **_):
        if "MessageId" in parsed:
            check_sent(context["sent"], parsed)

    def after_batch(parsed, context, **_):
        entries = {entry["Id"]: entry for entry in context["sent"]["Entries"]}
        for answer in parsed.get("Successful", []):
            check_sent(entries[answer["Id"]], answer)

    def after_receive(parsed, **_):
        for message in parsed.get("Messages", []):
            check_received(message)

    events = client.meta.events
    for action, check in (("SendMessage", after_send), ("SendMessageBatch", after_batch)):
        events.register(f"before-parameter-build.sqs.{action}", remember)
        events.register(f"after-call.sqs.{action}", check)
    events.register("after-call.sqs.ReceiveMessage", after_receive)


class Background(threading.Thread):
    """Runs one call beside the test; `result()` waits for it and passes on what it raised."""

    def __init__(self, call, *args, **kwargs):
        super().__init__(daemon=True)
        self.call = lambda: call(*args, **kwargs)
        self.value = self.failure = self.ended = None
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except BaseException as failure:
            self.failure = failure
        self.ended = time.monotonic()

    def result(self):
        self.join(DEADLINE)
        assert not self.is_alive(), f"still not done after {DEADLINE} s"
        if self.failure is not None:
            raise self.failure
        return self.value


def drain(client, url, expected, wait=5):
    """Receives and deletes until `expected` messages came; each must come once."""
    got = []
    while len(got) < expected:
        messages = client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait, VisibilityTimeout=600,
            MessageAttributeNames=["All"]).get("Messages", [])
        assert messages, f"{len(got)} of {expected} messages came"
        client.delete_message_batch(QueueUrl=url, Entries=[
            {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)])
        got += messages
    assert len({m["MessageId"] for m in got}) == len(got) == expected
    return got


def receive(client, url, **more):
    """The messages of one receive through boto3."""
    return client.receive_message(QueueUrl=url, **more).get("Messages", [])


def counts(client, url):
    """(visible, in flight, delayed) through boto3."""
    return counts_of(client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))
