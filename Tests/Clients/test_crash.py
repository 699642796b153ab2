"""SIGKILL under load, many times over: nothing acknowledged may be lost, damaged or come back.

Each round, workers send, receive and delete over their own connections until the server is
killed at a random moment. After the restart every message is read and held against a ledger of
what the workers were told. A message

- must be there, exactly once and byte for byte, if its send was acknowledged (or if it was ever
  received) and no delete of it was attempted;
- must not be there if a delete of it was acknowledged, or if an earlier check did not find it;
- may be there otherwise, but then intact.

PENSTOCK_CRASH_ROUNDS sets the number of rounds, PENSTOCK_SEED repeats a run. The seed fixes
what is sent and the moments of the kills, not how the threads take turns.
"""

import base64
import http.client
import os
import random
import threading
import time

from harness import DEADLINE, check_received, md5, md5_of_attributes

WORKERS = 6
SENDS_PER_WORKER = 60  # bounds the work of one round on a fast machine
KEPT = 300  # so many verified messages stay for the next round, at most
LEASE = 1  # seconds that a message stays hidden under load

CHARACTERS = "abc \t\r\n\"\\/<&é߀漢🐝\x7f\ufffd"


class Message:
    def __init__(self, token, body, attributes):
        self.token = token
        self.body = body
        self.attributes = attributes
        self.id = None
        self.exists = False  # acknowledged, received, or found by a check
        self.delete_tried = False
        self.gone_since = None  # when a delete was acknowledged, or a check missed it

    @property
    def expected(self):
        if self.gone_since is not None:
            return "gone"
        return "must" if self.exists and not self.delete_tried else "may"


class Ledger:
    """What clients know about every message; shared by all workers."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = {}
        self.problems = []
        self.totals = dict.fromkeys(("sent", "received", "deleted", "unknown"), 0)

    def add(self, message):
        with self.lock:
            self.messages[message.token] = message

    def acknowledged(self, message, message_id):
        with self.lock:
            self.totals["sent"] += 1
            if message.id not in (None, message_id):
                self.problems.append(f"{message.token}: acknowledged as {message_id}, "
                                     f"received as {message.id}")
            message.id = message_id
            message.exists = True

    def received(self, answer, asked_at):
        """Checks one delivered message; returns its entry, or None if it is unknown."""
        attributes = answer.get("MessageAttributes", {})
        token = attributes.get("token", {}).get("StringValue")
        with self.lock:
            self.totals["received"] += 1
            message = self.messages.get(token)
            if message is None:
                self.problems.append(f"never sent: {answer['MessageId']} with token {token}")
                return None
            if answer["Body"] != message.body or attributes != message.attributes:
                self.problems.append(f"{token}: damaged")
            if message.id not in (None, answer["MessageId"]):
                self.problems.append(f"{token}: stored twice, {message.id}, {answer['MessageId']}")
            if message.gone_since is not None and message.gone_since < asked_at:
                self.problems.append(f"{token}: came back after its delete was acknowledged")
            message.id = answer["MessageId"]
            message.exists = True
        try:
            check_received(answer)
        except AssertionError:
            self.problems.append(f"{token}: wrong digest")
        return message

    def deleting(self, messages):
        with self.lock:
            for message in messages:
                message.delete_tried = True

    def deleted(self, messages):
        with self.lock:
            self.totals["deleted"] += len(messages)
            for message in messages:
                message.gone_since = message.gone_since or time.monotonic()


class Worker(threading.Thread):
    """Works on one keep-alive connection until the server is gone."""

    def __init__(self, name, server, queue, ledger, seed):
        super().__init__(name=name, daemon=True)
        self.raw = server.raw()
        self.queue = queue
        self.ledger = ledger
        self.random = random.Random(seed)
        self.sends = 0
        self.failure = None

    def run(self):
        try:
            while True:
                kind = self.random.random()
                if self.sends < SENDS_PER_WORKER and kind < 0.4:
                    self.send()
                elif self.sends < SENDS_PER_WORKER and kind < 0.55:
                    self.send_batch()
                else:
                    self.consume()
        except (OSError, http.client.HTTPException):
            pass  # the kill
        except BaseException as failure:
            self.failure = failure
        finally:
            self.raw.close()

    def new_message(self, largest=20000):
        self.sends += 1
        # Sizes spread over the orders of magnitude, so that small messages are common.
        size = int(largest ** self.random.random())
        body = "".join(self.random.choices(CHARACTERS, k=size))
        body = body.encode()[:size].decode(errors="ignore") or "x"
        attributes = {"token": {"DataType": "String", "StringValue": f"{self.name}-{self.sends}"}}
        if self.random.random() < 0.5:
            data = self.random.randbytes(self.random.randint(1, 300))
            attributes["blob"] = {"DataType": "Binary.x",
                                  "BinaryValue": base64.b64encode(data).decode()}
            attributes["n"] = {"DataType": "Number", "StringValue": f"{len(data):05}.50"}
        message = Message(f"{self.name}-{self.sends}", body, attributes)
        self.ledger.add(message)
        return message

    def acknowledged(self, message, answer):
        assert answer["MD5OfMessageBody"] == md5(message.body)
        assert answer["MD5OfMessageAttributes"] == md5_of_attributes(message.attributes)
        self.ledger.acknowledged(message, answer["MessageId"])

    def send(self):
        message = self.new_message()
        self.acknowledged(message, self.raw.ok(
            "SendMessage", QueueUrl=self.queue, MessageBody=message.body,
            MessageAttributes=message.attributes))

    def send_batch(self):
        messages = {str(n): self.new_message() for n in range(self.random.randint(1, 10))}
        answer = self.raw.ok("SendMessageBatch", QueueUrl=self.queue, Entries=[
            {"Id": n, "MessageBody": message.body, "MessageAttributes": message.attributes}
            for n, message in messages.items()])
        assert len(answer["Successful"]) == len(messages), answer
        for entry in answer["Successful"]:
            self.acknowledged(messages[entry["Id"]], entry)

    def consume(self):
        asked_at = time.monotonic()
        answer = self.raw.ok(
            "ReceiveMessage", QueueUrl=self.queue, MessageAttributeNames=["All"],
            MaxNumberOfMessages=self.random.randint(1, 10), WaitTimeSeconds=1)
        got = [(self.ledger.received(m, asked_at), m["ReceiptHandle"])
               for m in answer.get("Messages", [])]
        got = [(message, handle) for message, handle in got if message]
        chosen = [pair for pair in got if self.random.random() < 0.6]
        rest = [pair for pair in got if pair not in chosen]
        if chosen and self.random.random() < 0.5:
            delete_batch(self.raw, self.queue, self.ledger, chosen)
        else:
            for message, handle in chosen:
                self.ledger.deleting([message])
                self.raw.ok("DeleteMessage", QueueUrl=self.queue, ReceiptHandle=handle)
                self.ledger.deleted([message])
        if rest and self.random.random() < 0.3:
            self.raw.ok("ChangeMessageVisibility", QueueUrl=self.queue,
                        ReceiptHandle=rest[0][1], VisibilityTimeout=0)


def in_tens(pairs):
    for start in range(0, len(pairs), 10):
        yield pairs[start:start + 10]


def delete_batch(raw, queue, ledger, pairs):
    messages = [message for message, _ in pairs]
    ledger.deleting(messages)
    answer = raw.ok("DeleteMessageBatch", QueueUrl=queue, Entries=[
        {"Id": str(n), "ReceiptHandle": handle} for n, (_, handle) in enumerate(pairs)])
    assert len(answer["Successful"]) == len(pairs), answer
    ledger.deleted(messages)


def read_everything(raw, queue, ledger):
    """Receives until no message is left that it does not hold itself; returns (entry, handle)s.

    Leases from before the crash end within a second or so. Those taken here do not end before
    the check does, so a message that comes twice is there twice.
    """
    at_first = sum(raw.counts(queue))
    held = {}
    end = time.monotonic() + DEADLINE
    while True:
        asked_at = time.monotonic()
        answer = raw.ok("ReceiveMessage", QueueUrl=queue, MessageAttributeNames=["All"],
                        MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=3600)
        for got in answer.get("Messages", []):
            message = ledger.received(got, asked_at)
            assert message, ledger.problems
            assert message.token not in held, f"{message.token}: there twice"
            held[message.token] = (message, got["ReceiptHandle"])
        counts = raw.counts(queue)
        assert sum(counts) == at_first, f"{at_first} messages became {counts}"
        if counts == (0, len(held), 0):
            return list(held.values())
        assert time.monotonic() < end, f"{counts} messages, but only {len(held)} came"


def check_against_ledger(held, ledger):
    found = {message.token for message, _ in held}
    now = time.monotonic()
    lost = []
    for message in ledger.messages.values():
        if message.token in found:
            if message.expected == "gone":
                ledger.problems.append(f"{message.token}: came back")
            message.delete_tried = False  # whatever was tried has not happened
        elif message.expected == "must":
            lost.append(message.token)
        elif message.expected == "may":
            ledger.totals["unknown"] += 1
            message.gone_since = now
    assert not lost, f"{len(lost)} acknowledged messages are lost: {lost[:20]}"
    assert not ledger.problems, ledger.problems[:20]


def prepare_next_round(raw, queue, ledger, held, dice):
    """Deletes some of what was verified, with acknowledgement, and lets go of the rest."""
    dice.shuffle(held)
    keep = min(KEPT, len(held) // 2)
    for pairs in in_tens(held[keep:]):
        delete_batch(raw, queue, ledger, pairs)
    for pairs in in_tens(held[:keep]):
        answer = raw.ok("ChangeMessageVisibilityBatch", QueueUrl=queue, Entries=[
            {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": 0}
            for n, (_, handle) in enumerate(pairs)])
        assert len(answer["Successful"]) == len(pairs), answer
    assert raw.counts(queue) == (keep, 0, 0)


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(new_server):
    seed = int(os.environ.get("PENSTOCK_SEED") or random.SystemRandom().randrange(2**32))
    rounds = int(os.environ.get("PENSTOCK_CRASH_ROUNDS") or 20)
    print(f"PENSTOCK_SEED={seed} PENSTOCK_CRASH_ROUNDS={rounds}", flush=True)
    dice = random.Random(seed)
    ledger = Ledger()
    # Small segments, so that rounds also end while one segment follows another.
    server = new_server("--segment-size", 1_048_576).start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="crash", Attributes={
        "VisibilityTimeout": str(LEASE)})["QueueUrl"]

    for round in range(1, rounds + 1):
        raw.close()
        workers = [Worker(f"r{round}w{n}", server, queue, ledger, dice.random())
                   for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        time.sleep(dice.uniform(0.02, 1.0))  # the random moment
        server.kill()
        for worker in workers:
            worker.join(DEADLINE)
            assert not worker.is_alive()
            if worker.failure is not None:
                raise worker.failure
        if dice.random() < 0.25:  # a crash while recovering from a crash
            server.spawn()
            time.sleep(dice.uniform(0, 0.2))
            server.kill()

        server.start()
        raw = server.raw()
        held = read_everything(raw, queue, ledger)
        check_against_ledger(held, ledger)
        prepare_next_round(raw, queue, ledger, held, dice)

    raw.close()
    print(ledger.totals)
    assert ledger.totals["sent"] > rounds and ledger.totals["deleted"] > rounds
    server.stop()
