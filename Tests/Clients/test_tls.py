"""TLS: certificates made on the spot, their renewal under load, and peers that speak none."""

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time

import boto3
import botocore.config
import pytest

from harness import COMMAND, DEADLINE, Background, read_answer, request_bytes, wait_until


def make_pair(directory, name, key="ec"):
    """A key and a certificate for 127.0.0.1, which signs itself; returns their paths."""
    certificate, secret = directory / f"{name}.pem", directory / f"{name}.key"
    kind = ["rsa:2048"] if key == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", "-subj",
         f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(secret), "-out", str(certificate)],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    return certificate, secret


def context_for(certificate):
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def install(pair, served):
    """Puts a pair where the server looks, each file in one step."""
    for new, old in zip(pair, served):
        part = old.with_suffix(".part")
        part.write_bytes(new.read_bytes())
        os.replace(part, old)


@pytest.fixture(params=["ec", "rsa"])
def pair(tmp_path, request):
    return make_pair(tmp_path, "first", request.param)


@pytest.fixture
def secure(new_server, tmp_path):
    """A server with a pair of its own; its paths are in `served`."""
    pair = make_pair(tmp_path, "first")
    served = tmp_path / "served.pem", tmp_path / "served.key"
    install(pair, served)
    server = new_server(
        "--tls-certificate", served[0], "--tls-key", served[1], "--request-timeout-seconds", 2)
    server.start()
    server.pair, server.served = pair, served
    yield server
    server.stop()


def connect(server, certificate, context=None):
    context = context or context_for(certificate)
    return context.wrap_socket(server.socket(), server_hostname="127.0.0.1")


def subject(server, *certificates):
    """The name in the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        context.load_verify_locations(str(certificate))
    with connect(server, None, context) as connection:
        [[(_, name)]] = connection.getpeercert()["subject"]
        return name


def call(connection, action, **members):
    connection.sendall(request_bytes(action, members))
    return json.loads(read_answer(connection) or b"{}")


def test_boto3_over_tls(new_server, tmp_path, pair):
    server = new_server("--tls-certificate", pair[0], "--tls-key", pair[1]).start()
    client = boto3.client(
        "sqs", endpoint_url=f"https://127.0.0.1:{server.port}", verify=str(pair[0]),
        region_name="us-east-1", config=botocore.config.Config(
            retries={"total_max_attempts": 1}, read_timeout=DEADLINE))
    url = client.create_queue(QueueName="q")["QueueUrl"]
    assert url == f"https://127.0.0.1:{server.port}/000000000000/q"
    body = "x" * 1_000_000
    client.send_message(QueueUrl=url, MessageBody=body)
    [message] = client.receive_message(QueueUrl=url)["Messages"]
    assert message["Body"] == body
    assert f"listening on https://127.0.0.1:{server.port}" in server.output
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_protocol_is_agreed_on_and_old_versions_are_not(secure):
    with connect(secure, secure.pair[0]) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert connection.version() == "TLSv1.3"
    context = context_for(secure.pair[0])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(secure, None, context) as connection:
        assert connection.version() == "TLSv1.2"
        call(connection, "CreateQueue", QueueName="q")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(secure, None, context)


def test_a_new_pair_serves_new_connections_and_the_old_ones_stay(secure, tmp_path):
    old = connect(secure, secure.pair[0])
    url = call(old, "CreateQueue", QueueName="q")["QueueUrl"]
    poll = connect(secure, secure.pair[0])
    poll.sendall(request_bytes("ReceiveMessage", {"QueueUrl": url, "WaitTimeSeconds": 20}))
    second = make_pair(tmp_path, "second")
    both = secure.pair[0], second[0]
    assert subject(secure, *both) == "first"
    install(second, secure.served)
    wait_until(lambda: subject(secure, *both) == "second", "new connections see the new pair")
    call(old, "SendMessage", QueueUrl=url, MessageBody="still here")
    [message] = json.loads(read_answer(poll))["Messages"]
    assert message["Body"] == "still here"
    old.close()
    poll.close()


def test_a_broken_pair_changes_nothing(secure, tmp_path):
    second = make_pair(tmp_path, "second")
    third = make_pair(tmp_path, "third", "rsa")
    certificates = secure.pair[0], second[0], third[0]
    for broken, text in (
            (b"", "holds no certificate"), (b"-----BEGIN CERT", "holds no certificate"),
            (second[0].read_bytes(), "does not belong")):
        secure.served[0].write_bytes(broken)
        lines = len(secure.lines)
        wait_until(lambda: any(text in line for line in secure.lines), f"'{text}' is logged")
        assert lines <= len(secure.lines)
        assert subject(secure, *certificates) == "first"
    # Logged once, not with every look.
    count = sum("does not belong" in line for line in secure.lines)
    install(third, secure.served)
    wait_until(lambda: subject(secure, *certificates) == "third", "a whole pair is taken")
    assert count == 1


def test_handshakes_go_on_while_the_pair_is_renewed(secure, tmp_path):
    pairs = [secure.pair, make_pair(tmp_path, "second")]
    certificates = [pair[0] for pair in pairs]
    done = threading.Event()

    def shake_hands():
        names = set()
        while not done.is_set():
            names.add(subject(secure, *certificates))
        return names

    workers = [Background(shake_hands) for _ in range(3)]
    for turn in (1, 0, 1):
        install(pairs[turn], secure.served)
        wanted = ["first", "second"][turn]
        wait_until(lambda: subject(secure, *certificates) == wanted, "the renewal")
    done.set()
    assert set().union(*(worker.result() for worker in workers)) == {"first", "second"}


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 600, os.urandom(4096),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 512,
], ids=["http", "zeros", "noise", "hello"])
def test_what_is_not_tls_is_closed(secure, data):
    with secure.socket() as connection:
        connection.sendall(data)
        try:
            while connection.recv(65536).find(b"HTTP/") >= 0 or connection.recv(65536):
                pass
        except ConnectionError:
            pass
    assert subject(secure, secure.pair[0]) == "first"


def test_a_handshake_that_does_not_go_on_is_ended(secure):
    silent, half = secure.socket(), secure.socket()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = context_for(secure.pair[0]).wrap_bio(
        incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        wrapped.do_handshake()
    half.sendall(outgoing.read()[:50])
    started = time.monotonic()
    for connection in (silent, half):
        assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - started < 30
    # One that is over the handshake, and says nothing or too little, is ended as well.
    with connect(secure, secure.pair[0]) as connection:
        connection.sendall(b"POST / HT")
        assert connection.recv(1) == b""


def test_tls_to_the_plain_port_is_closed(new_server, tmp_path):
    server = new_server().start()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, make_pair(tmp_path, "first")[0])
    server.raw().ok("ListQueues")
    server.stop()


def test_a_client_that_goes_without_farewell(secure):
    url = None
    for _ in range(20):
        connection = connect(secure, secure.pair[0])
        url = call(connection, "CreateQueue", QueueName="q")["QueueUrl"]
        connection.sendall(request_bytes("ReceiveMessage", {"QueueUrl": url,
                                                            "WaitTimeSeconds": 20}))
        socket.socket(fileno=connection.detach()).close()
    with connect(secure, secure.pair[0]) as connection:
        call(connection, "SendMessage", QueueUrl=url, MessageBody="for the living")
        got = wait_until(
            lambda: call(connection, "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=1,
                         VisibilityTimeout=1).get("Messages"), "no dead poll keeps it")
    assert got[0]["Body"] == "for the living"


def test_a_deaf_client_does_not_keep_its_connection(secure):
    with connect(secure, secure.pair[0]) as connection:
        url = call(connection, "CreateQueue", QueueName="q")["QueueUrl"]
        for _ in range(10):
            call(connection, "SendMessage", QueueUrl=url, MessageBody="x" * 1_000_000)
    deaf = connect(secure, secure.pair[0])
    deaf.sendall(request_bytes(
        "ReceiveMessage", {"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0}))
    descriptors = f"/proc/{secure.pid}/fd"

    def sockets():
        links = [os.path.join(descriptors, name) for name in os.listdir(descriptors)]
        return sum(os.path.islink(link) and os.readlink(link).startswith("socket:")
                   for link in links)

    # The one that it listens on is left.
    wait_until(lambda: sockets() == 1, "the connection is ended")
    deaf.close()


def test_starts_that_are_refused(tmp_path):
    first, second = make_pair(tmp_path, "first"), make_pair(tmp_path, "second")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(["openssl", "ec", "-in", str(first[1]), "-aes128", "-passout", "pass:secret",
                    "-out", str(encrypted)], check=True, stderr=subprocess.DEVNULL)
    missing = tmp_path / "missing"
    for certificate, key, text in (
            (missing, first[1], f"cannot read {missing}: No such file or directory"),
            (first[0], missing, f"cannot read {missing}: No such file or directory"),
            (first[0], tmp_path, f"{tmp_path} is no file"),
            (first[0], second[1], "does not belong to the first certificate"),
            (first[1], first[1], f"{first[1]} holds no certificate in PEM"),
            (first[0], first[0], f"{first[0]} holds no private key in PEM"),
            (first[0], encrypted, f"{encrypted} holds no private key in PEM"),
            ("/dev/zero", first[1], "/dev/zero is no file")):
        done = subprocess.run(
            [*COMMAND, "serve", "--data-dir", str(tmp_path / "data"), "--port", "0",
             "--tls-certificate", str(certificate), "--tls-key", str(key)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=DEADLINE)
        assert done.returncode > 0 and text in done.stdout, done.stdout
        assert re.fullmatch(r"Error: .*\n", done.stdout), done.stdout
        assert not (tmp_path / "data").exists()
