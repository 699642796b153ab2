"""Rules of FIFO queues, and of group ids in standard queues, one test each.

Docs/conformance.md has all rules and their tests, those of other files too. What takes minutes is
tested over the same service with a clock that is told, in Tests/PenstockSQSTests/RuleTests.swift.
"""

import hashlib
import re
import string

import pytest

from harness import counts, md5, receive, wait_until
from test_dead_letters import arn, policy, refused
from test_move_tasks import done
from test_rules_messages import ALL, bodies, hide

ALPHABET = string.ascii_letters + string.digits + string.punctuation
ID_RULE = ("Value {} for parameter {name} is invalid. Reason: {name} can only include alphanumeric "
           "and punctuation characters. 1 to 128 in length.")
WRONG_KIND = ("Value {} for parameter {} is invalid. Reason: The request include parameter that is "
              "not valid for this queue type.")
NO_ID = ("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
         "provided explicitly")


def make(sqs, name, **attributes):
    return sqs.create_queue(
        QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true", **attributes})["QueueUrl"]


@pytest.fixture
def fifo(sqs, name):
    return make(sqs, name)


def send(sqs, queue, body, group="g", **more):
    more.setdefault("MessageDeduplicationId", body)
    return sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, **more)


def take(sqs, queue, limit=10, **more):
    return receive(sqs, queue, MaxNumberOfMessages=limit, **more)


def delete(sqs, queue, *messages):
    for message in messages:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


# 5.1


@pytest.mark.parametrize("missing, code, text", [
    ("MessageGroupId", "MissingParameter",
     "The request must contain the parameter MessageGroupId."),
    ("MessageDeduplicationId", "InvalidParameterValue", NO_ID),
])
def test_5_1_a_send_needs_a_group_and_a_deduplication_id(sqs, fifo, missing, code, text):
    message = {"MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    del message[missing]
    refused(sqs, sqs.send_message, code, text, QueueUrl=fifo, **message)
    # In a batch the whole request is refused, and never with MissingParameter.
    whole = {"Id": "1", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "e"}
    refused(sqs, sqs.send_message_batch, "InvalidParameterValue", text, QueueUrl=fifo,
            Entries=[whole, {"Id": "2", **message}])
    assert counts(sqs, fifo) == (0, 0, 0)


@pytest.mark.parametrize("parameter", ["MessageGroupId", "MessageDeduplicationId"])
def test_5_1_the_alphabet_of_ids(sqs, fifo, parameter):
    other = {"MessageGroupId": "MessageDeduplicationId",
             "MessageDeduplicationId": "MessageGroupId"}[parameter]
    for text in (ALPHABET[:128], "!" * 128, "~"):
        sqs.send_message(QueueUrl=fifo, MessageBody="m", **{parameter: text, other: text})
    for text in ("", " ", "a b", "ü", "\x7f", "a" * 129):
        refused(sqs, sqs.send_message, "InvalidParameterValue",
                ID_RULE.format(text, name=parameter), QueueUrl=fifo, MessageBody="m",
                **{parameter: text, other: "good"})
    assert counts(sqs, fifo) == (3, 0, 0)


# 5.2: one group of m1, m2 and m3.


@pytest.fixture
def three(sqs, fifo):
    for body in ("m1", "m2", "m3"):
        send(sqs, fifo, body)
    return fifo


def test_5_2_in_flight_and_a_new_message_is_sent(sqs, three):
    assert bodies(take(sqs, three, 1)) == ["m1"]
    send(sqs, three, "m4")
    assert take(sqs, three) == []


def test_5_2_the_first_of_two_in_flight_is_deleted(sqs, three):
    first, second = take(sqs, three, 2)
    delete(sqs, three, first)
    assert take(sqs, three) == []
    delete(sqs, three, second)
    assert bodies(take(sqs, three)) == ["m3"]


def test_5_2_all_received_ones_are_deleted(sqs, three):
    delete(sqs, three, *take(sqs, three, 2))
    assert bodies(take(sqs, three)) == ["m3"]


@pytest.mark.parametrize("by", ["zero", "time"])
def test_5_2_the_first_of_two_in_flight_comes_back(sqs, three, by):
    first, _ = take(sqs, three, 2, VisibilityTimeout=600)
    hide(sqs, three, first, 0 if by == "zero" else 1)
    wait_until(lambda: counts(sqs, three) == (2, 1, 0), "the end of the timeout")
    assert bodies(take(sqs, three)) == ["m1"]
    assert take(sqs, three) == []


@pytest.mark.parametrize("extended, expected", [
    (0, []), (1, ["m1"]), (2, ["m1", "m2"]), (None, ["m1", "m2", "m3"])])
def test_5_2_all_expired_but_one(sqs, three, extended, expected):
    messages = take(sqs, three, VisibilityTimeout=600)
    for place, message in enumerate(messages):
        if place != extended:
            hide(sqs, three, message, 1)
    left = 3 if extended is None else 2
    wait_until(lambda: counts(sqs, three) == (left, 3 - left, 0), "the end of the timeouts")
    assert bodies(take(sqs, three)) == expected


def test_5_2_a_timeout_of_zero_keeps_the_order(sqs, three):
    for _ in range(3):
        assert bodies(take(sqs, three, VisibilityTimeout=0)) == ["m1", "m2", "m3"]


def test_5_2_a_group_that_was_emptied_works_again(sqs, three):
    for body in ("m4", "m5"):
        delete(sqs, three, *take(sqs, three))
        assert take(sqs, three) == []
        send(sqs, three, body)
        assert bodies(take(sqs, three, VisibilityTimeout=0)) == [body]


def test_5_2_a_delay_of_the_queue_holds_the_group(sqs, name):
    queue = make(sqs, name, DelaySeconds="900")
    for body in ("m1", "m2"):
        send(sqs, queue, body)
        assert take(sqs, queue) == []
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"DelaySeconds": "0"})
    assert bodies(take(sqs, queue)) == ["m1", "m2"]


# 5.3


def test_5_3_a_run_is_drained_before_the_next_group(sqs, fifo):
    for body in ("g1a", "g2a", "g1b", "g1c"):
        send(sqs, fifo, body, body[:2])
    assert bodies(take(sqs, fifo)) == ["g1a", "g1b", "g1c", "g2a"]


def test_5_3_a_group_that_was_served_goes_to_the_back(sqs, fifo):
    for group in ("g1", "g2"):
        send(sqs, fifo, group, group)
    served = take(sqs, fifo)
    send(sqs, fifo, "g3", "g3")
    for message in served:
        hide(sqs, fifo, message, 0)
    assert bodies(take(sqs, fifo)) == ["g3", "g1", "g2"]


def test_5_3_groups_are_in_flight_side_by_side(sqs, fifo):
    for group in "abc":
        for number in "12":
            send(sqs, fifo, group + number, group)
    firsts = [take(sqs, fifo, 1)[0] for _ in range(3)]
    assert sorted(bodies(firsts)) == ["a1", "b1", "c1"]
    assert take(sqs, fifo) == []
    delete(sqs, fifo, firsts[1])
    assert bodies(take(sqs, fifo)) == [firsts[1]["Body"][0] + "2"]


# 5.4


@pytest.mark.parametrize("scope, is_repeated", [("queue", True), ("messageGroup", False)])
def test_5_4_the_key_of_deduplication(sqs, name, scope, is_repeated):
    queue = make(sqs, name, DeduplicationScope=scope)
    first = send(sqs, queue, "m", "g", MessageDeduplicationId="d")
    assert send(sqs, queue, "n", "g", MessageDeduplicationId="d")["MessageId"] \
        == first["MessageId"]
    other = send(sqs, queue, "m", "h", MessageDeduplicationId="d")
    assert (other["MessageId"] == first["MessageId"]) == is_repeated


def test_5_4_the_id_by_content_is_the_sha_256_of_the_body(sqs, name):
    queue = make(sqs, name, ContentBasedDeduplication="true")
    message = {"QueueUrl": queue, "MessageBody": "same", "MessageGroupId": "g"}
    first = sqs.send_message(**message)
    # Attributes do not count.
    attribute = {"k": {"DataType": "String", "StringValue": "x"}}
    again = sqs.send_message(MessageAttributes=attribute, **message)
    assert again["MessageId"] == first["MessageId"]
    # An id that is given wins; one that equals an earlier hash is a repetition.
    other = sqs.send_message(MessageDeduplicationId="mine", **message)
    assert other["MessageId"] != first["MessageId"]
    digest = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"
    assert digest == hashlib.sha256(b"same").hexdigest()
    assert send(sqs, queue, "x", MessageDeduplicationId=digest)["MessageId"] == first["MessageId"]
    found = take(sqs, queue, **ALL)
    assert [m["Attributes"]["MessageDeduplicationId"] for m in found] == [digest, "mine"]


@pytest.mark.parametrize("after", ["receive", "delete", "move"])
def test_5_4_a_send_is_remembered_whatever_became_of_it(sqs, name, after):
    dead = make(sqs, f"{name}-dead")
    queue = make(sqs, name, RedrivePolicy=policy(arn(sqs, dead), 1))
    first = send(sqs, queue, "m")
    message, = take(sqs, queue, VisibilityTimeout=0 if after == "move" else 600)
    if after == "delete":
        delete(sqs, queue, message)
    if after == "move":
        assert take(sqs, queue) == [] and counts(sqs, dead) == (1, 0, 0)
    again = send(sqs, queue, "m")
    for member in ("MessageId", "SequenceNumber"):
        assert again[member] == first[member]
    assert counts(sqs, queue) == (0, 1 if after == "receive" else 0, 0)


def test_5_4_a_repetition_answers_with_the_digests_of_what_it_brought(sqs, fifo):
    first = send(sqs, fifo, "first", MessageDeduplicationId="d")
    attribute = {"k": {"DataType": "String", "StringValue": "x"}}
    again = send(sqs, fifo, "second", MessageDeduplicationId="d", MessageAttributes=attribute)
    assert again["MessageId"] == first["MessageId"]
    assert again["MD5OfMessageBody"] == md5("second")
    assert again["MD5OfMessageAttributes"] == "a45daa70926828a2f0a1db3418e6feb4"
    assert bodies(take(sqs, fifo)) == ["first"]


def test_5_4_repetitions_within_a_batch(sqs, fifo):
    sent = sqs.send_message_batch(QueueUrl=fifo, Entries=[
        {"Id": str(n), "MessageBody": str(n), "MessageGroupId": "g",
         "MessageDeduplicationId": str(n % 2)} for n in range(4)])["Successful"]
    assert [entry["Id"] for entry in sent] == ["0", "1", "2", "3"]
    for member in ("MessageId", "SequenceNumber"):
        assert [entry[member] for entry in sent[2:]] == [entry[member] for entry in sent[:2]]
    assert bodies(take(sqs, fifo)) == ["0", "1"]


def test_5_4_moves_neither_ask_nor_fill_the_memory_of_their_target(sqs, name):
    dead = make(sqs, f"{name}-dead")
    queue = make(sqs, name, RedrivePolicy=policy(arn(sqs, dead), 1))
    # The target knows the id already, and takes the message all the same.
    send(sqs, dead, "there", "other", MessageDeduplicationId="known")
    send(sqs, queue, "known")
    send(sqs, queue, "new", "h")
    for _ in range(2):
        take(sqs, queue, VisibilityTimeout=0)
    assert counts(sqs, dead) == (3, 0, 0)
    # It does not know the id of what was moved there.
    assert send(sqs, dead, "sent", "i", MessageDeduplicationId="new")["MessageId"]
    assert counts(sqs, dead) == (4, 0, 0)
    # A move task brings back what the source remembers to have sent.
    sqs.purge_queue(QueueUrl=dead)
    send(sqs, queue, "again")
    for _ in range(2):
        take(sqs, queue, VisibilityTimeout=0)
    sqs.start_message_move_task(SourceArn=arn(sqs, dead))
    assert done(sqs, dead)["ApproximateNumberOfMessagesMoved"] == 1
    assert bodies(take(sqs, queue)) == ["again"]


# 5.5


def test_5_5_sequence_numbers(sqs, fifo):
    sent = [send(sqs, fifo, str(n), "gh"[n % 2])["SequenceNumber"] for n in range(4)]
    sent += [entry["SequenceNumber"] for entry in sqs.send_message_batch(QueueUrl=fifo, Entries=[
        {"Id": str(n), "MessageBody": "m", "MessageGroupId": "g",
         "MessageDeduplicationId": f"b{n}"} for n in range(3)])["Successful"]]
    for number in sent:
        assert re.fullmatch(r"188\d{17}", number)
    assert sent == sorted(set(sent))
    found = take(sqs, fifo, **ALL)
    assert sorted(m["Attributes"]["SequenceNumber"] for m in found) == sent


def test_5_5_a_standard_queue_has_no_sequence_numbers(sqs, queue):
    assert "SequenceNumber" not in sqs.send_message(
        QueueUrl=queue, MessageBody="m", MessageGroupId="g")
    assert "SequenceNumber" not in receive(sqs, queue, **ALL)[0]["Attributes"]


# 5.6


def attempt(sqs, queue, name, **more):
    return take(sqs, queue, ReceiveRequestAttemptId=name, **ALL, **more)


OVER = ("Value a for parameter ReceiveRequestAttemptId is invalid. Reason: The "
        "receiveRequestAttemptId is not valid anymore since the receive call is not retryable.")


def test_5_6_the_same_attempt_gives_the_same_answer(sqs, three):
    first = attempt(sqs, three, "a")
    again = attempt(sqs, three, "a")
    assert again == first
    assert {m["Attributes"]["ApproximateReceiveCount"] for m in again} == {"1"}
    assert attempt(sqs, three, "b") == []


@pytest.mark.parametrize("change", ["delete", "visibility", "expiry"])
def test_5_6_an_attempt_is_over_when_one_of_its_messages_changed(sqs, three, change):
    _, second, _ = attempt(sqs, three, "a", VisibilityTimeout=1 if change == "expiry" else 600)
    if change == "delete":
        delete(sqs, three, second)
    elif change == "visibility":
        hide(sqs, three, second, 600)
    else:
        wait_until(lambda: counts(sqs, three) == (3, 0, 0), "the end of the timeouts")
    refused(sqs, sqs.receive_message, "InvalidParameterValue", OVER,
            QueueUrl=three, ReceiveRequestAttemptId="a")


def test_5_6_an_empty_answer_is_not_remembered(sqs, fifo):
    assert attempt(sqs, fifo, "a") == []
    send(sqs, fifo, "m")
    assert bodies(attempt(sqs, fifo, "a")) == ["m"]


def test_5_6_a_standard_queue_knows_no_attempts(sqs, queue):
    refused(sqs, sqs.receive_message, "InvalidParameterValue",
            WRONG_KIND.format("a", "ReceiveRequestAttemptId"), QueueUrl=queue,
            ReceiveRequestAttemptId="a")


def test_5_6_the_alphabet_of_attempts(sqs, fifo):
    for text in (ALPHABET[:128], "!" * 128):
        assert attempt(sqs, fifo, text) == []
    for text in ("", " ", "ü", "a" * 129):
        refused(sqs, sqs.receive_message, "InvalidParameterValue",
                ID_RULE.format(text, name="ReceiveRequestAttemptId"), QueueUrl=fifo,
                ReceiveRequestAttemptId=text)


# 5.8 and 5.9


def test_5_8_high_throughput_changes_nothing_but_the_key(sqs, name):
    queue = make(sqs, name, DeduplicationScope="messageGroup",
                 FifoThroughputLimit="perMessageGroupId")
    for group in "ab":
        for number in "12":
            send(sqs, queue, number, group)
    first, second = take(sqs, queue, 2)
    assert bodies([first, second]) == ["1", "2"]
    assert bodies(take(sqs, queue, 1)) == ["1"]
    assert take(sqs, queue) == []


def test_5_9_a_group_id_in_a_standard_queue(sqs, queue):
    sent = sqs.send_message(QueueUrl=queue, MessageBody="1", MessageGroupId="g!")
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=[
        {"Id": "2", "MessageBody": "2", "MessageGroupId": "g!"}])["Successful"][0]
    assert "SequenceNumber" not in sent and "SequenceNumber" not in answer
    # No exclusivity: the second comes while the first is in flight.
    for body in "12":
        message, = receive(sqs, queue, MaxNumberOfMessages=1, **ALL)
        assert message["Body"] == body
        assert message["Attributes"]["MessageGroupId"] == "g!"


def test_5_9_a_noisy_tenant_lets_others_go_first(sqs, queue):
    for start in range(0, 60, 10):
        sqs.send_message_batch(QueueUrl=queue, Entries=[
            {"Id": str(n), "MessageBody": str(n), "MessageGroupId": "noisy"}
            for n in range(start, start + 10)])
    taken = sum((receive(sqs, queue, MaxNumberOfMessages=10) for _ in range(4)), [])
    assert bodies(taken) == [str(n) for n in range(40)]
    sqs.send_message(QueueUrl=queue, MessageBody="quiet", MessageGroupId="quiet")
    sqs.send_message(QueueUrl=queue, MessageBody="alone")
    assert bodies(receive(sqs, queue, MaxNumberOfMessages=3)) == ["quiet", "alone", "40"]


@pytest.mark.parametrize("text", ["", " ", "a b", "ü", "a" * 129], ids=repr)
def test_5_9_the_alphabet_of_groups_in_a_standard_queue(sqs, queue, text):
    rule = ID_RULE.format(text, name="MessageGroupId")
    refused(sqs, sqs.send_message, "InvalidParameterValue", rule,
            QueueUrl=queue, MessageBody="m", MessageGroupId=text)
    failed, = sqs.send_message_batch(QueueUrl=queue, Entries=[
        {"Id": "1", "MessageBody": "m", "MessageGroupId": text}])["Failed"]
    assert (failed["Code"], failed["Message"]) == ("InvalidParameterValue", rule)


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_5_9_a_deduplication_id_is_refused_in_a_standard_queue(sqs, queue, batch):
    if not batch:
        refused(sqs, sqs.send_message, "InvalidParameterValue",
                "Value d for parameter MessageDeduplicationId is invalid. Reason: The request "
                "includes a parameter that is not valid for this queue type.",
                QueueUrl=queue, MessageBody="m", MessageDeduplicationId="d")
    else:
        failed, = sqs.send_message_batch(QueueUrl=queue, Entries=[
            {"Id": "1", "MessageBody": "m", "MessageDeduplicationId": "d"}])["Failed"]
        assert failed == {
            "Id": "1", "SenderFault": True, "Code": "InvalidParameterValue",
            "Message": "The request include parameter that is not valid for this queue type"}
    assert counts(sqs, queue) == (0, 0, 0)
