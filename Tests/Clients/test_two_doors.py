"""The example `two-doors`: one program that serves a store and works on it in process."""

import os
import signal
from pathlib import Path

import botocore.exceptions
import pytest

from harness import COMMAND, DEADLINE, Background, Server, counts, wait_until

EXAMPLE = os.environ.get("TWO_DOORS", str(Path(COMMAND[0]).resolve().with_name("two-doors")))
# What the example hides an order for, and what these tests hide an invoice for.
LEASE = 5
# How often the program is killed, so that some kills come between an invoice and its order's
# deletion.
ROUNDS = 6


class TwoDoors(Server):
    """The example in the place of `penstock serve`."""

    def command(self, *extra):
        return [*self.wrapper, EXAMPLE, str(self.data_dir), *extra]

    def client(self):
        """A client, and the URLs of the two queues, which the example has made."""
        sqs = self.sqs()
        return (sqs, *(sqs.get_queue_url(QueueName=name)["QueueUrl"]
                       for name in ("orders", "invoices")))


@pytest.fixture
def program(tmp_path):
    program = TwoDoors(tmp_path / "data")
    yield program.start()
    program.kill()


def take(sqs, invoices, wait=20):
    """Receives and deletes up to ten invoices; returns their texts by the ids of their orders."""
    messages = sqs.receive_message(
        QueueUrl=invoices, MaxNumberOfMessages=10, WaitTimeSeconds=wait, VisibilityTimeout=LEASE,
        MessageAttributeNames=["order"]).get("Messages", [])
    if messages:
        deleted = sqs.delete_message_batch(QueueUrl=invoices, Entries=[
            {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)])
        assert len(deleted["Successful"]) == len(messages)
    taken = {m["MessageAttributes"]["order"]["StringValue"]: m["Body"] for m in messages}
    assert len(taken) == len(messages), "two invoices for one order"
    return taken


@pytest.mark.parametrize("order, invoice", [
    ("2 tea", "2 tea: 8"), ("  255   coffee ", "255 coffee: 1530"),
    *((text, "an order is a number up to 255, a space, and tea or coffee") for text in (
        "tea", "256 tea", "-1 tea", "1 milk", "1 tea please", "🐝 tea", "a" * 1_048_576)),
], ids=lambda text: text[:20])
def test_an_order_from_outside_becomes_an_invoice(program, order, invoice):
    sqs, orders, invoices = program.client()
    sent = sqs.send_message(QueueUrl=orders, MessageBody=order)
    assert take(sqs, invoices) == {sent["MessageId"]: invoice}
    # The invoice may be here before the order's deletion.
    wait_until(lambda: counts(sqs, orders) == (0, 0, 0), "the order is deleted")
    program.stop()


def test_sigkill_loses_no_order_and_doubles_no_invoice(program):
    submitted, acknowledged, billed = [], {}, {}

    def send_until_killed(sqs, orders):
        while True:
            order = f"{len(submitted) % 256} tea"
            submitted.append(order)
            try:
                sent = sqs.send_message(QueueUrl=orders, MessageBody=order)
            except botocore.exceptions.BotoCoreError:
                return  # the connection broke, or there was nobody to connect to
            acknowledged[sent["MessageId"]] = order

    def bill(sqs, invoices, wait):
        taken = take(sqs, invoices, wait)
        assert not billed.keys() & taken.keys(), "an order has two invoices"
        billed.update(taken)

    for _ in range(ROUNDS):
        sqs, orders, invoices = program.client()
        sender = Background(send_until_killed, program.sqs(), orders)
        goal = len(billed) + 30
        while len(billed) < goal:
            bill(sqs, invoices, 20)
        program.kill()
        sender.result()
        program.start()
    sqs, orders, invoices = program.client()

    def done():
        # In this order: without orders, no more invoices are written.
        ordered = counts(sqs, orders)
        bill(sqs, invoices, 1)
        return ordered == counts(sqs, invoices) == (0, 0, 0)

    wait_until(done, "every order is done, and every invoice is here")
    assert not acknowledged.keys() - billed.keys(), "an order has no invoice"
    for order, text in acknowledged.items():
        count = int(text.split()[0])
        assert billed[order] == f"{count} tea: {4 * count}"
    # One send of each round was under way, with or without effect.
    assert len(submitted) == len(acknowledged) + ROUNDS
    assert len(acknowledged) <= len(billed) <= len(submitted)
    program.stop()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
def test_a_signal_ends_it_cleanly_and_keeps_what_waits(program, by):
    sqs, orders, invoices = program.client()
    sent = {sqs.send_message(QueueUrl=orders, MessageBody=f"{n} coffee")["MessageId"]
            for n in range(50)}
    program.stop(by)
    assert "stopped cleanly" in program.output

    program.start()
    sqs, orders, invoices = program.client()
    taken = {}
    while taken.keys() != sent:
        more = take(sqs, invoices)
        assert more and not taken.keys() & more.keys()
        taken.update(more)
    program.stop()


def test_connections_leave_the_store_its_files(tmp_path):
    # 300 files at most: 44 of them for connections.
    program = TwoDoors(tmp_path / "data", wrapper=["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"])
    program.start()
    try:
        sqs, orders, invoices = program.client()
        sent = sqs.send_message(QueueUrl=orders, MessageBody="1 tea")
        crowd = [program.socket() for _ in range(400)]
        # Beyond the limit they are closed as they come; the last one is.
        assert crowd[-1].recv(1) == b""
        assert len(os.listdir(f"/proc/{program.pid}/fd")) < 150
        assert take(sqs, invoices) == {sent["MessageId"]: "1 tea: 4"}
        for connection in crowd:
            connection.close()
        program.stop()
    finally:
        program.kill()
