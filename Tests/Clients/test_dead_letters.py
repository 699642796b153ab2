"""Dead letters through boto3: policies, the move on the receive that exceeds, what a moved message
keeps, FIFO, a restart."""

import json
import threading

import pytest

from harness import receive

ALL = {"MessageSystemAttributeNames": ["All"]}
POLICY = "Value {} for parameter RedrivePolicy is invalid. Reason: "
ALLOW = "Value {} for parameter RedriveAllowPolicy is invalid. Reason: "
CANNOT = "Amazon SQS can't create the redrive allow policy"


def arn(sqs, queue):
    return sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def counts(sqs, queue):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return [int(found[name]) for name in names]


def policy(target, count):
    return json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": count})


@pytest.fixture
def pair(sqs, name):
    """A queue whose messages go to another after one receive."""
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    queue = sqs.create_queue(
        QueueName=name, Attributes={"RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    return queue, dead


def refused(sqs, call, code, text, **arguments):
    with pytest.raises(sqs.exceptions.ClientError) as refusal:
        call(**arguments)
    error = refusal.value.response["Error"]
    assert (error["Code"], error["Message"]) == (code, text)


def test_the_receive_that_exceeds_moves_the_message(sqs, pair):
    queue, dead = pair
    sent = sqs.send_message(
        QueueUrl=queue, MessageBody="poison",
        MessageAttributes={"k": {"DataType": "String", "StringValue": "v"}})
    first, = receive(sqs, queue, VisibilityTimeout=0, **ALL)
    assert first["Attributes"]["ApproximateReceiveCount"] == "1"
    assert counts(sqs, queue) == [1, 0] and counts(sqs, dead) == [0, 0]
    assert receive(sqs, queue) == []
    assert counts(sqs, queue) == [0, 0] and counts(sqs, dead) == [1, 0]
    moved, = receive(sqs, dead, MessageAttributeNames=["All"], **ALL)
    assert moved["MessageId"] == sent["MessageId"] and moved["Body"] == "poison"
    assert moved["MessageAttributes"]["k"]["StringValue"] == "v"
    attributes = moved["Attributes"]
    assert attributes["ApproximateReceiveCount"] == "2"
    assert attributes["DeadLetterQueueSourceArn"] == arn(sqs, queue)
    for kept in ["SentTimestamp", "ApproximateFirstReceiveTimestamp"]:
        assert attributes[kept] == first["Attributes"][kept]
    # A handle of before names nothing any more, and deleting by it is a success.
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    assert counts(sqs, dead) == [0, 1]
    sqs.delete_message(QueueUrl=dead, ReceiptHandle=moved["ReceiptHandle"])
    assert counts(sqs, dead) == [0, 0]


def test_a_receive_goes_on_behind_what_it_moves(sqs, pair):
    queue, dead = pair
    sqs.send_message(QueueUrl=queue, MessageBody="old")
    receive(sqs, queue, VisibilityTimeout=0)
    sqs.send_message(QueueUrl=queue, MessageBody="new")
    assert [message["Body"] for message in receive(sqs, queue)] == ["new"]
    assert [message["Body"] for message in receive(sqs, dead)] == ["old"]


def test_an_ended_timeout_alone_moves_nothing(sqs, pair):
    queue, dead = pair
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    receive(sqs, queue, VisibilityTimeout=0)
    assert counts(sqs, queue) == [1, 0] and counts(sqs, dead) == [0, 0]


def test_a_long_poll_on_the_dead_letter_queue_wakes(sqs, pair):
    queue, dead = pair
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    receive(sqs, queue, VisibilityTimeout=0)
    found = []
    poll = threading.Thread(target=lambda: found.extend(receive(sqs, dead, WaitTimeSeconds=20)))
    poll.start()
    assert receive(sqs, queue) == []
    poll.join(10)
    assert [message["Body"] for message in found] == ["m"]


def test_a_lower_count_acts_on_receives_of_before(sqs, pair):
    queue, dead = pair
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"RedrivePolicy": policy(arn(sqs, dead), 5)})
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    for _ in range(3):
        assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"RedrivePolicy": policy(arn(sqs, dead), 2)})
    assert receive(sqs, queue) == [] and counts(sqs, dead) == [1, 0]


def test_without_a_policy_or_a_target_messages_stay(sqs, pair):
    queue, dead = pair
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    sqs.delete_queue(QueueUrl=dead)
    for _ in range(3):
        assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": ""})
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert "RedrivePolicy" not in found
    message, = receive(sqs, queue, **ALL)
    assert message["Attributes"]["ApproximateReceiveCount"] == "4"


def test_a_queue_that_targets_itself_is_accepted(sqs, name):
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"RedrivePolicy": policy(arn(sqs, queue), 1)})
    for body in "ab":
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    assert len(receive(sqs, queue, MaxNumberOfMessages=10, VisibilityTimeout=0)) == 2
    for _ in range(3):
        assert receive(sqs, queue) == []
    assert counts(sqs, queue) == [2, 0]
    sqs.send_message(QueueUrl=queue, MessageBody="c")
    assert [message["Body"] for message in receive(sqs, queue)] == ["c"]


def test_policies_read_back_in_their_canonical_form(sqs, pair):
    queue, dead = pair
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps(
        {"maxReceiveCount": "7", "deadLetterTargetArn": arn(sqs, dead)})})
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(
        {"sourceQueueArns": [arn(sqs, queue)], "redrivePermission": "byQueue"})})
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert found["RedrivePolicy"] == (
        '{"deadLetterTargetArn":"%s","maxReceiveCount":7}' % arn(sqs, dead))
    found = sqs.get_queue_attributes(
        QueueUrl=dead, AttributeNames=["RedriveAllowPolicy"])["Attributes"]
    assert found["RedriveAllowPolicy"] == (
        '{"redrivePermission":"byQueue","sourceQueueArns":["%s"]}' % arn(sqs, queue))
    for permission in ["denyAll", "allowAll"]:
        text = '{"redrivePermission":"%s"}' % permission
        sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": text})
        found = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["All"])["Attributes"]
        assert found["RedriveAllowPolicy"] == text
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": ""})
    found = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["All"])["Attributes"]
    assert "RedriveAllowPolicy" not in found


@pytest.mark.parametrize("text, reason", [
    ("[]", None),
    ("{", None),
    ('{"deadLetterTargetArn":"x"}',
     "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
    ("{}", "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
    ('{"maxReceiveCount":1}',
     "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"x","more":1}',
     "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount]."),
    ('{"maxReceiveCount":0,"deadLetterTargetArn":"x"}',
     "Invalid value for maxReceiveCount: 0, valid values are from 1 to 1000 both inclusive."),
    ('{"maxReceiveCount":"1001","deadLetterTargetArn":"x"}',
     "Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"x"}',
     "Dead-letter target ARN should be fully qualified ARN."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"arn:aws:sns:us-east-1:000000000000:x"}',
     "Only SQS queues are valid resources for deadLetterTargetArn."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"arn:aws:sqs:eu-west-9:000000000000:x"}',
     "Dead-letter target must be in same region as the source."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"arn:aws:sqs:us-east-1:111111111111:x"}',
     "Dead-letter target owner should be same as the source."),
    ('{"maxReceiveCount":1,"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:none"}',
     "Dead letter target does not exist."),
])
def test_a_wrong_redrive_policy_is_refused(sqs, name, text, reason):
    full = "Invalid value for the parameter RedrivePolicy. Reason: " \
        "Redrive policy is not a valid JSON map."
    if reason:
        full = POLICY.format(text) + reason
    refused(sqs, sqs.create_queue, "InvalidParameterValue", full,
            QueueName=name, Attributes={"RedrivePolicy": text})
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    refused(sqs, sqs.set_queue_attributes, "InvalidParameterValue", full,
            QueueUrl=queue, Attributes={"RedrivePolicy": text})


ARN = "arn:aws:sqs:us-east-1:000000000000:x"


@pytest.mark.parametrize("text, reason", [
    ("[]", None),
    ('{"redrivePermission":"some"}', None),
    ('{"redrivePermission":1}', None),
    ('{"redrivePermission":"denyAll","more":1}', None),
    ('{"redrivePermission":"byQueue","sourceQueueArns":["x"]}', None),
    ('{"redrivePermission":"byQueue"}',
     CANNOT + ". When you specify the byQueue permission type, you must also specify one or more "
     "sourceQueueArns values."),
    ('{"redrivePermission":"denyAll","sourceQueueArns":["%s"]}' % ARN,
     "To specify one or more source queue ARNs, you must set redrivePermission to "
     "byQueue."),
    ('{"redrivePermission":"byQueue","sourceQueueArns":%s}' % json.dumps([ARN] * 11),
     "The maximum number of source queue ARNs you can specify is 10."),
])
def test_a_wrong_allow_policy_is_refused(sqs, name, text, reason):
    full = "Invalid value for the parameter RedriveAllowPolicy. Reason: " + CANNOT \
        + ", as it’s in an unsupported format."
    if reason:
        full = ALLOW.format(text) + reason
    refused(sqs, sqs.create_queue, "InvalidParameterValue", full,
            QueueName=name, Attributes={"RedriveAllowPolicy": text})


def test_the_allow_policy_counts_when_a_source_sets_its_own(sqs, pair, name):
    queue, dead = pair
    sqs.set_queue_attributes(
        QueueUrl=dead, Attributes={"RedriveAllowPolicy": '{"redrivePermission":"denyAll"}'})
    text = policy(arn(sqs, dead), 3)
    refused(sqs, sqs.set_queue_attributes, "InvalidParameterValue",
            POLICY.format(text) + "The dead-letter queue does not allow this source queue.",
            QueueUrl=queue, Attributes={"RedrivePolicy": text})
    # The one that is there goes on.
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "5"})
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    receive(sqs, queue, VisibilityTimeout=0)
    assert receive(sqs, queue) == [] and counts(sqs, dead) == [1, 0]
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(
        {"redrivePermission": "byQueue", "sourceQueueArns": [arn(sqs, queue)]})})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": text})
    refused(sqs, sqs.create_queue, "InvalidParameterValue",
            POLICY.format(text) + "The dead-letter queue does not allow this source queue.",
            QueueName=f"{name}-other", Attributes={"RedrivePolicy": text})


def test_the_sources_of_a_dead_letter_queue_are_listed(sqs, pair, name):
    queue, dead = pair
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [queue]
    assert sqs.list_dead_letter_source_queues(QueueUrl=queue).get("queueUrls", []) == []
    other = sqs.create_queue(QueueName=f"{name}-a", Attributes={
        "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    pages, token = [], {}
    while True:
        page = sqs.list_dead_letter_source_queues(QueueUrl=dead, MaxResults=1, **token)
        pages.append(page["queueUrls"])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert pages == [[queue], [other]]


def test_fifo_dead_letters_open_their_group(sqs, name):
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    dead = sqs.create_queue(QueueName=f"{name}-dead.fifo", Attributes=fifo)["QueueUrl"]
    standard = sqs.create_queue(QueueName=f"{name}-standard")["QueueUrl"]
    text = policy(arn(sqs, standard), 1)
    refused(sqs, sqs.create_queue, "InvalidParameterValue",
            POLICY.format(text) + "Dead-letter queue must be same type of queue as the source.",
            QueueName=f"{name}.fifo", Attributes=fifo | {"RedrivePolicy": text})
    queue = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=fifo | {
        "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    for body in ["poison", "next"]:
        sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId="g")
    first, = receive(sqs, queue, VisibilityTimeout=0, MaxNumberOfMessages=1, **ALL)
    assert [message["Body"] for message in receive(sqs, queue)] == ["next"]
    moved, = receive(sqs, dead, **ALL)
    assert moved["Body"] == "poison" and moved["MessageId"] == first["MessageId"]
    before, after = first["Attributes"], moved["Attributes"]
    for kept in ["MessageGroupId", "MessageDeduplicationId"]:
        assert after[kept] == before[kept]
    assert after["SequenceNumber"] > before["SequenceNumber"]
    assert int(after["SentTimestamp"]) >= int(before["SentTimestamp"])
    assert after["ApproximateReceiveCount"] == "2"
    assert after["DeadLetterQueueSourceArn"] == arn(sqs, queue)


def test_what_was_moved_survives_a_kill(new_server, name):
    server = new_server().start()
    sqs = server.sqs()
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    queue = sqs.create_queue(QueueName=name, Attributes={
        "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    bodies = [f"m{number}" for number in range(20)]
    for body in bodies:
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    for _ in range(2):
        receive(sqs, queue, VisibilityTimeout=0)
    held = receive(sqs, dead, VisibilityTimeout=0)
    assert held
    server.kill()
    server.start()
    sqs = server.sqs()
    dead, queue = (
        sqs.get_queue_url(QueueName=each)["QueueUrl"] for each in (f"{name}-dead", name))
    found = []
    while messages := receive(sqs, dead, **ALL):
        found += messages
    rest = []
    while messages := receive(sqs, queue):
        rest += messages
    while messages := receive(sqs, dead, **ALL):
        found += messages
    assert sorted(m["Body"] for m in found + rest) == sorted(bodies)
    assert {m["MessageId"] for m in held} <= {m["MessageId"] for m in found}
    assert all(m["Attributes"]["DeadLetterQueueSourceArn"] == arn(sqs, queue) for m in found)
