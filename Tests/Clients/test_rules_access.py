"""Rules of tags, permissions, access and encryption, one test each, named by the part of the API
that it is of. The server has credentials, and every client signs.

Docs/conformance.md has all rules and their tests, those of other files too.
"""

import json

import botocore
import pytest

from harness import NO_QUEUE, TEST_KEY, Key, Server, counts, receive, write_keys
from test_dead_letters import arn, policy, refused
from test_rules_queues import attributes, change
from test_tls import make_pair

OWNER, OTHER, THIRD = "111122223333", "444455556666", "777788889999"
ROOT = Key(TEST_KEY.id, TEST_KEY.secret, settings={"account": OWNER})
STRANGER = Key("STRANGER", "s", settings={"account": OTHER})
BOB = Key("BOB", "b", settings={"account": OTHER, "user": "bob"})
THIRD_ROOT = Key("THIRD", "t", settings={"account": THIRD})
PICKER = Key("PICKER", "p", "token==", settings={
    "account": OTHER, "role": "picker", "session": "robot-7"})


def of_identity(*statements):
    return json.dumps({"Statement": list(statements)})


def allow(actions, resource="*", effect="Allow", **more):
    return {"Effect": effect, "Action": actions, "Resource": resource, **more}


ALICE = Key("ALICE", "a", settings={
    "account": OWNER, "user": "alice", "policy": of_identity(
        allow(["sqs:SendMessage", "sqs:GetQueueUrl"]), allow("sqs:CreateQueue"),
        allow("sqs:TagQueue", Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}),
        allow("sqs:PurgeQueue", effect="Deny"))})
REMOTE = Key("REMOTE", "r", settings={
    "account": OTHER, "user": "remote", "policy": of_identity(allow("sqs:SendMessage"))})
MOVER = Key("MOVER", "m", settings={
    "account": OWNER, "user": "mover", "policy": of_identity(allow("sqs:StartMessageMoveTask"))})
OPEN = Key("OPEN", "o", settings={"account": OWNER, "user": "open"})
KEYS = [ROOT, STRANGER, BOB, THIRD_ROOT, PICKER, ALICE, REMOTE, MOVER, OPEN]
USER = "arn:aws:iam::{}:user/{}".format
ROOT_OF = "arn:aws:iam::{}:root".format
BY_QUEUE = "with an explicit deny in a resource-based policy"
BY_IDENTITY = "with an explicit deny in an identity-based policy"
ALLOWED = ["SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
           "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue"]
OWNERS = ["AddPermission", "RemovePermission", "CreateQueue", "DeleteQueue", "ListQueues",
          "ListQueueTags", "SetQueueAttributes", "TagQueue", "UntagQueue",
          "StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("access")
    keys = write_keys(directory / "credentials", *KEYS)
    server = Server(directory / "data", "--credentials", keys, "--account", OWNER).start()
    yield server
    assert server.running, f"the server ended by itself:\n{server.output}"
    server.stop()


@pytest.fixture(scope="module")
def clients(server):
    """A client for each key, and one that does not sign."""
    made = {}

    def client(key=None):
        name = key and key.id
        if name not in made:
            made[name] = server.sqs(key=key) if key else server.sqs(
                signature_version=botocore.UNSIGNED)
        return made[name]

    return client


def statement(queue_arn, who, actions="sqs:*", effect="Allow", **more):
    who = who if isinstance(who, dict) or who == "*" else {"AWS": who}
    return {"Effect": effect, "Principal": who, "Action": actions, "Resource": queue_arn, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def let(sqs, queue):
    """Sets the policy of `queue`: each argument is a principal with its other members."""
    queue_arn = arn(sqs, queue)

    def let(*statements):
        change(sqs, queue, Policy=document(*({**statement(queue_arn, "*"), **each}
                                             for each in statements)))

    return let


def denied(sqs, call, action, resource, user, why=None, **arguments):
    with pytest.raises(sqs.exceptions.ClientError) as refusal:
        call(**arguments)
    answer = refusal.value.response
    why = why or f"because no identity-based policy allows the sqs:{action.lower()} action"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert (answer["Error"]["Code"], answer["Error"]["Message"]) == ("AccessDenied", (
        f"User: {user} is not authorized to perform: sqs:{action.lower()} on resource: "
        f"{resource} {why}"))


def may_send(sqs, queue):
    """Whether a send is allowed; any other refusal fails the test."""
    try:
        sqs.send_message(QueueUrl=queue, MessageBody="m")
        return True
    except sqs.exceptions.ClientError as refusal:
        assert refusal.response["Error"]["Code"] == "AccessDenied", refusal
        return False


def tags(sqs, queue):
    return sqs.list_queue_tags(QueueUrl=queue).get("Tags")


def statements(sqs, queue):
    return json.loads(attributes(sqs, queue, "Policy")["Policy"])["Statement"]


# 2.14 tags


def test_2_14_tags_are_merged_overwritten_and_taken_away(sqs, queue):
    assert tags(sqs, queue) is None
    sqs.tag_queue(QueueUrl=queue, Tags={"team": "blue", "Team": "x", "empty": ""})
    sqs.tag_queue(QueueUrl=queue, Tags={"team": "red", "a:b/c=d+e-f@g_h.i j": "ü 1"})
    assert tags(sqs, queue) == {
        "team": "red", "Team": "x", "empty": "", "a:b/c=d+e-f@g_h.i j": "ü 1"}
    sqs.untag_queue(QueueUrl=queue, TagKeys=["team", "unknown"])
    assert set(tags(sqs, queue)) == {"Team", "empty", "a:b/c=d+e-f@g_h.i j"}
    sqs.untag_queue(QueueUrl=queue, TagKeys=["Team", "empty", "a:b/c=d+e-f@g_h.i j"])
    assert tags(sqs, queue) is None


def test_2_14_tags_of_creation(sqs, name):
    queue = sqs.create_queue(QueueName=name, tags={"team": "blue"})["QueueUrl"]
    assert sqs.create_queue(QueueName=name, tags={"team": "red"})["QueueUrl"] == queue
    assert tags(sqs, queue) == {"team": "blue"}


@pytest.mark.parametrize("wrong, text", [
    ({"": "v"}, "Tag keys must be between 1 and 128 characters in length."),
    ({"k" * 129: "v"}, "Tag keys must be between 1 and 128 characters in length."),
    ({"k" * 128: "v" * 257}, "Tag values must be between 0 and 256 characters in length."),
    ({"a,b": "v"}, "Tag keys may only contain unicode letters, digits, whitespace, or one of these "
                   "symbols: _ . : / = + - @"),
    ({"aws:x": "v"}, "Tag keys must not start with aws:, which is reserved."),
    ({"AwS:x": "v"}, "Tag keys must not start with aws:, which is reserved."),
])
def test_2_14_wrong_tags(sqs, queue, name, wrong, text):
    refused(sqs, sqs.tag_queue, "InvalidParameterValue", text, QueueUrl=queue,
            Tags={"good": "1", **wrong})
    refused(sqs, sqs.create_queue, "InvalidParameterValue", text, QueueName=name + "-new",
            tags=wrong)
    assert tags(sqs, queue) is None


def test_2_14_lengths_are_counted_in_characters(sqs, queue):
    full = {"ü" * 128: "ß" * 256}
    sqs.tag_queue(QueueUrl=queue, Tags=full)
    assert tags(sqs, queue) == full


def test_2_14_nothing_to_tag_or_to_untag(sqs, queue):
    refused(sqs, sqs.tag_queue, "MissingParameter", "The request must contain the parameter Tags.",
            QueueUrl=queue, Tags={})
    refused(sqs, sqs.untag_queue, "InvalidParameterValue",
            "Tag keys must be between 1 and 128 characters in length.", QueueUrl=queue, TagKeys=[])


def test_2_14_a_queue_has_fifty_tags(sqs, queue, name):
    fifty = {f"k{n}": str(n) for n in range(50)}
    text = f"Too many tags added for queue {name}."
    sqs.tag_queue(QueueUrl=queue, Tags=fifty)
    sqs.tag_queue(QueueUrl=queue, Tags={"k0": "again"})
    refused(sqs, sqs.tag_queue, "InvalidParameterValue", text, QueueUrl=queue, Tags={"k50": ""})
    assert tags(sqs, queue) == {**fifty, "k0": "again"}
    refused(sqs, sqs.create_queue, "InvalidParameterValue", text.replace(name, name + "-new"),
            QueueName=name + "-new", tags={**fifty, "k50": ""})


# 8.2 AddPermission and RemovePermission


def add(sqs, queue, label="label", accounts=(OTHER,), actions=("SendMessage",)):
    sqs.add_permission(QueueUrl=queue, Label=label, AWSAccountIds=list(accounts),
                       Actions=list(actions))


def test_8_2_the_first_permission_makes_the_recorded_document(sqs, queue):
    add(sqs, queue, "one", [OTHER], ["ReceiveMessage"])
    queue_arn = arn(sqs, queue)
    assert json.loads(attributes(sqs, queue, "Policy")["Policy"]) == {
        "Version": "2008-10-17", "Id": f"{queue_arn}/SQSDefaultPolicy", "Statement": [{
            "Sid": "one", "Effect": "Allow", "Principal": {"AWS": ROOT_OF(OTHER)},
            "Action": "SQS:ReceiveMessage", "Resource": queue_arn}]}


def test_8_2_several_accounts_and_actions_are_lists(sqs, queue):
    add(sqs, queue, "two", [OTHER, THIRD], ["SendMessage", "PurgeQueue"])
    [found] = statements(sqs, queue)
    assert sorted(found["Principal"]["AWS"]) == [ROOT_OF(OTHER), ROOT_OF(THIRD)]
    assert sorted(found["Action"]) == ["SQS:PurgeQueue", "SQS:SendMessage"]


def test_8_2_a_policy_that_is_there_is_extended(sqs, queue):
    own = statement(arn(sqs, queue), "*", "sqs:SendMessage", Sid="own")
    change(sqs, queue, Policy=json.dumps(
        {"Version": "2012-10-17", "Id": "mine", "Statement": own}))
    add(sqs, queue, "more")
    found = json.loads(attributes(sqs, queue, "Policy")["Policy"])
    assert (found["Version"], found["Id"]) == ("2012-10-17", "mine")
    assert found["Statement"][0] == own and found["Statement"][1]["Sid"] == "more"
    sqs.remove_permission(QueueUrl=queue, Label="own")
    assert [each["Sid"] for each in statements(sqs, queue)] == ["more"]


def test_8_2_the_last_permission_takes_the_policy_with_it(sqs, queue, clients):
    add(sqs, queue)
    assert may_send(clients(STRANGER), queue)
    sqs.remove_permission(QueueUrl=queue, Label="label")
    assert attributes(sqs, queue, "Policy") == {}
    assert not may_send(clients(STRANGER), queue)


@pytest.mark.parametrize("action", ["*", *ALLOWED])
def test_8_2_actions_that_can_be_allowed(sqs, queue, action):
    add(sqs, queue, "l", [OTHER], [action])
    assert statements(sqs, queue)[0]["Action"] == f"SQS:{action}"


@pytest.mark.parametrize("action", OWNERS)
def test_8_2_actions_of_the_owner_cannot_be_allowed(sqs, queue, action):
    refused(sqs, sqs.add_permission, "InvalidParameterValue",
            f"Value SQS:{action} for parameter ActionName is invalid. Reason: Only the queue owner "
            "is allowed to invoke this action.",
            QueueUrl=queue, Label="l", AWSAccountIds=[OTHER], Actions=["SendMessage", action])


@pytest.mark.parametrize("changes, code, text", [
    ({"Label": ""}, "MissingParameter", "The request must contain the parameter Label."),
    ({"Label": "used"}, "InvalidParameterValue",
     "Value used for parameter Label is invalid. Reason: Already exists."),
    ({"Label": "a b"}, "InvalidParameterValue",
     "Value a b for parameter Label is invalid. Reason: Can only include alphanumeric characters, "
     "hyphens, or underscores. 1 to 80 in length"),
    ({"Actions": ALLOWED}, "OverLimit", "8 Actions were found, maximum allowed is 7."),
    ({"Actions": ["Frobnicate"]}, "InvalidParameterValue",
     "Value SQS:Frobnicate for parameter ActionName is invalid. Reason: Please refer to the "
     "appropriate WSDL for a list of valid actions. "),
    ({"AWSAccountIds": ["1234"]}, "InvalidParameterValue",
     "Value [1234] for parameter PrincipalId is invalid. Reason: Unable to verify."),
])
def test_8_2_wrong_permissions(sqs, queue, changes, code, text):
    add(sqs, queue, "used")
    refused(sqs, sqs.add_permission, code, text, **{
        "QueueUrl": queue, "Label": "l", "AWSAccountIds": [OTHER], "Actions": ["SendMessage"],
        **changes})
    assert len(statements(sqs, queue)) == 1


@pytest.mark.parametrize("member, text", [
    ("Actions", "The request must contain the parameter ActionName."),
    ("AWSAccountIds", "The request must contain the parameter AWSAccountIds.")])
def test_8_2_a_permission_of_nothing(sqs, queue, member, text):
    refused(sqs, sqs.add_permission, "MissingParameter", text, **{
        "QueueUrl": queue, "Label": "l", "AWSAccountIds": [OTHER], "Actions": ["*"], member: []})


def test_8_2_twenty_statements(sqs, queue):
    for number in range(20):
        add(sqs, queue, str(number))
    refused(sqs, sqs.add_permission, "OverLimit",
            "21 Statements were found, maximum allowed is 20.", QueueUrl=queue, Label="l",
            AWSAccountIds=[OTHER], Actions=["SendMessage"])


def test_8_2_a_label_that_is_not_there(sqs, queue):
    text = "Value none for parameter Label is invalid. Reason: can't find label"
    refused(sqs, sqs.remove_permission, "InvalidParameterValue", text + ".",
            QueueUrl=queue, Label="none")
    add(sqs, queue)
    refused(sqs, sqs.remove_permission, "InvalidParameterValue", text + " on existing policy.",
            QueueUrl=queue, Label="none")


# 8.1 and 3.2, documents


def not_a_policy(sqs, queue, text, code="InvalidAttributeValue"):
    with pytest.raises(sqs.exceptions.ClientError) as refusal:
        change(sqs, queue, Policy=text)
    error = refusal.value.response["Error"]
    assert error["Code"] == code
    return error["Message"]


@pytest.mark.parametrize("text", [
    "x", "[]", "{}", '{"Statement":[]}', '{"Statement":{},"More":1}', '{"Version":"2013-01-01"}'])
def test_8_1_what_is_no_policy(sqs, queue, text):
    reason = not_a_policy(sqs, queue, text)
    assert reason.startswith("Invalid value for the parameter Policy.")
    assert attributes(sqs, queue, "Policy") == {}


@pytest.mark.parametrize("member, value", [
    ("Effect", "Maybe"), ("Effect", None), ("Principal", None), ("Principal", {"AWS": "nobody"}),
    ("Principal", {"Nobody": "*"}), ("Action", None), ("Action", "sns:Publish"), ("Unknown", "x"),
    ("Condition", {"NoOperator": {"aws:SourceIp": "x"}}),
    ("Condition", {"IpAddress": {"aws:SourceIp": "everywhere"}})])
def test_8_1_a_statement_that_is_not_understood_is_refused(sqs, queue, member, value):
    changed = {**statement(arn(sqs, queue), "*"), member: value}
    not_a_policy(sqs, queue, document({n: v for n, v in changed.items() if v is not None}))


@pytest.mark.parametrize("limit, members", [
    (50, lambda n: {"Principal": {"AWS": [f"{number:012}" for number in range(n)]}}),
    (7, lambda n: {"Action": [f"sqs:{action}" for action in ALLOWED[:n]]}),
    (10, lambda n: {"Condition": {
        "StringEquals": {f"aws:PrincipalTag/{k}": "v" for k in range(n)}}}),
])
def test_8_1_limits_of_a_statement(sqs, queue, let, limit, members):
    let(members(limit))
    before = attributes(sqs, queue, "Policy")
    not_a_policy(sqs, queue, document({**statement(arn(sqs, queue), "*"), **members(limit + 1)}))
    assert attributes(sqs, queue, "Policy") == before


def test_8_1_a_policy_has_8192_bytes(sqs, queue):
    def of_size(size, sid=""):
        text = document({**statement(arn(sqs, queue), "*"), "Sid": sid})
        return text if sid else of_size(size, "s" * (size - len(text)))

    change(sqs, queue, Policy=of_size(8192))
    not_a_policy(sqs, queue, of_size(8193))


def test_3_2_a_policy_has_twenty_statements(sqs, queue, name, let):
    many = [statement(arn(sqs, queue), "*", Sid=str(number)) for number in range(21)]
    let(*many[:20])
    text = "21 statements were found in the submitted policy, max allowed is 20"
    refused(sqs, sqs.set_queue_attributes, "OverLimit", text,
            QueueUrl=queue, Attributes={"Policy": document(*many)})
    refused(sqs, sqs.create_queue, "InvalidParameterValue", text,
            QueueName=name + "-new", Attributes={"Policy": document(*many)})


# 8.3 the decision


def test_8_3_another_account_needs_the_queues_policy(sqs, queue, clients, let):
    queue_arn, stranger = arn(sqs, queue), clients(STRANGER)
    for action, call, more in [
            ("SendMessage", stranger.send_message, {"MessageBody": "m"}),
            ("SendMessage", stranger.send_message_batch,
             {"Entries": [{"Id": "a", "MessageBody": "m"}]}),
            ("ReceiveMessage", stranger.receive_message, {}),
            ("DeleteMessage", stranger.delete_message, {"ReceiptHandle": "h"}),
            ("DeleteMessage", stranger.delete_message_batch,
             {"Entries": [{"Id": "a", "ReceiptHandle": "h"}]}),
            ("ChangeMessageVisibility", stranger.change_message_visibility,
             {"ReceiptHandle": "h", "VisibilityTimeout": 0}),
            ("ChangeMessageVisibility", stranger.change_message_visibility_batch,
             {"Entries": [{"Id": "a", "ReceiptHandle": "h", "VisibilityTimeout": 0}]}),
            ("GetQueueAttributes", stranger.get_queue_attributes, {"AttributeNames": ["All"]}),
            ("ListDeadLetterSourceQueues", stranger.list_dead_letter_source_queues, {}),
            ("PurgeQueue", stranger.purge_queue, {})]:
        denied(stranger, call, action, queue_arn, ROOT_OF(OTHER), QueueUrl=queue, **more)
    assert counts(sqs, queue) == (0, 0, 0)


def test_8_3_what_a_policy_can_let_another_account_do(sqs, queue, name, clients, let):
    let({"Principal": {"AWS": OTHER}})
    stranger = clients(STRANGER)
    assert stranger.get_queue_url(
        QueueName=name, QueueOwnerAWSAccountId=OWNER)["QueueUrl"] == queue
    stranger.send_message(QueueUrl=queue, MessageBody="one")
    stranger.send_message_batch(QueueUrl=queue, Entries=[{"Id": "a", "MessageBody": "two"}])
    one, two = (receive(stranger, queue, MessageSystemAttributeNames=["All"])[0] for _ in "12")
    assert one["Attributes"]["SenderId"] == two["Attributes"]["SenderId"] == OTHER
    stranger.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=0)
    stranger.change_message_visibility_batch(QueueUrl=queue, Entries=[
        {"Id": "a", "ReceiptHandle": two["ReceiptHandle"], "VisibilityTimeout": 0}])
    stranger.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    stranger.delete_message_batch(QueueUrl=queue, Entries=[
        {"Id": "a", "ReceiptHandle": two["ReceiptHandle"]}])
    assert counts(stranger, queue) == (0, 0, 0)
    assert "queueUrls" not in stranger.list_dead_letter_source_queues(QueueUrl=queue)
    stranger.purge_queue(QueueUrl=queue)
    assert not may_send(clients(THIRD_ROOT), queue)


def test_8_3_actions_of_the_owner_never_cross_accounts(sqs, queue, clients, let):
    let({"Principal": "*"})
    queue_arn, stranger = arn(sqs, queue), clients(STRANGER)
    for action, call, more in [
            ("AddPermission", stranger.add_permission,
             {"QueueUrl": queue, "Label": "l", "AWSAccountIds": [OTHER], "Actions": ["*"]}),
            ("RemovePermission", stranger.remove_permission, {"QueueUrl": queue, "Label": "l"}),
            ("DeleteQueue", stranger.delete_queue, {"QueueUrl": queue}),
            ("ListQueueTags", stranger.list_queue_tags, {"QueueUrl": queue}),
            ("SetQueueAttributes", stranger.set_queue_attributes,
             {"QueueUrl": queue, "Attributes": {"DelaySeconds": "1"}}),
            ("TagQueue", stranger.tag_queue, {"QueueUrl": queue, "Tags": {"a": "b"}}),
            ("UntagQueue", stranger.untag_queue, {"QueueUrl": queue, "TagKeys": ["a"]}),
            ("StartMessageMoveTask", stranger.start_message_move_task, {"SourceArn": queue_arn}),
            ("ListMessageMoveTasks", stranger.list_message_move_tasks, {"SourceArn": queue_arn})]:
        denied(stranger, call, action, queue_arn, ROOT_OF(OTHER), **more)


def test_8_3_a_move_task_cannot_be_cancelled_by_another_account(sqs, name, clients):
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    queue = sqs.create_queue(QueueName=name, Attributes={
        "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"]
    for body in "abc":
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    receive(sqs, queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    assert receive(sqs, queue, MaxNumberOfMessages=10) == []
    task = sqs.start_message_move_task(
        SourceArn=arn(sqs, dead), MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    stranger = clients(STRANGER)
    denied(stranger, stranger.cancel_message_move_task, "CancelMessageMoveTask", arn(sqs, dead),
           ROOT_OF(OTHER), TaskHandle=task)
    sqs.cancel_message_move_task(TaskHandle=task)


def test_8_3_a_move_task_back_to_the_sources_needs_the_right_to_send_to_them(
        sqs, name, clients):
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    sources = [sqs.create_queue(QueueName=f"{name}-{n}", Attributes={
        "RedrivePolicy": policy(arn(sqs, dead), 1)})["QueueUrl"] for n in range(2)]
    mover, user = clients(MOVER), USER(OWNER, "mover")
    for source in sources:
        denied(mover, mover.start_message_move_task, "SendMessage", arn(sqs, source), user,
               SourceArn=arn(sqs, dead))
        change(sqs, source, Policy=document(
            statement(arn(sqs, source), user, "sqs:SendMessage")))
    mover.start_message_move_task(SourceArn=arn(sqs, dead))


@pytest.mark.parametrize("principal, allowed", [
    ("*", {"STRANGER", "BOB", "PICKER", "THIRD", "nobody"}),
    ({"AWS": "*"}, {"STRANGER", "BOB", "PICKER", "THIRD", "nobody"}),
    ({"AWS": OTHER}, {"STRANGER", "BOB", "PICKER"}),
    ({"AWS": ROOT_OF(OTHER)}, {"STRANGER", "BOB", "PICKER"}),
    ({"AWS": [USER(OTHER, "bob"), THIRD]}, {"BOB", "THIRD"}),
    ({"AWS": f"arn:aws:iam::{OTHER}:role/picker"}, {"PICKER"}),
    ({"AWS": f"arn:aws:sts::{OTHER}:assumed-role/picker/robot-7"}, {"PICKER"}),
    ({"AWS": f"arn:aws:sts::{OTHER}:assumed-role/picker/robot-8"}, set()),
    ({"AWS": USER(THIRD, "bob")}, set()),
    ({"Service": "sns.amazonaws.com"}, set()),
])
def test_8_3_principals(queue, clients, let, principal, allowed):
    let({"Principal": principal})
    keys = [STRANGER, BOB, PICKER, THIRD_ROOT, None]
    assert {key.id if key else "nobody" for key in keys
            if may_send(clients(key), queue)} == allowed


@pytest.mark.parametrize("actions, allowed", [
    ("*", True), ("sqs:*", True), ("SQS:SendMessage", True), ("sqs:sendmessage", True),
    ("sqs:Send*", True), ("sqs:?endMessage", True), (["sqs:PurgeQueue", "sqs:SendMessage"], True),
    ("sqs:ReceiveMessage", False), ("sqs:SendMessag", False), ("sqs:*e", True)])
def test_8_3_actions(queue, clients, let, actions, allowed):
    let({"Action": actions})
    assert may_send(clients(STRANGER), queue) == allowed


def test_8_3_a_batch_needs_the_permission_of_the_single_action(queue, clients, let):
    let({"Action": "sqs:SendMessage"})
    stranger = clients(STRANGER)
    stranger.send_message_batch(QueueUrl=queue, Entries=[{"Id": "a", "MessageBody": "m"}])


@pytest.mark.parametrize("resource, allowed", [
    ("*", True), ("arn:aws:sqs:us-east-1:{account}:{name}", True),
    ("arn:aws:sqs:*:{account}:{name}", True), ("arn:aws:sqs:us-east-1:{account}:q*", True),
    ("arn:aws:sqs:us-east-1:{account}:other", False),
    ("arn:aws:sqs:us-west-2:{account}:{name}", False),
    ("arn:aws:sqs:us-east-1:444455556666:{name}", False),
    ("arn:aws:sns:us-east-1:{account}:{name}", False)])
def test_8_3_resources(queue, name, clients, let, resource, allowed):
    let({"Resource": resource.format(account=OWNER, name=name)})
    assert may_send(clients(STRANGER), queue) == allowed


@pytest.mark.parametrize("condition, allowed", [
    ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
    ({"IpAddress": {"aws:sourceip": ["10.0.0.0/8", "127.0.0.1"]}}, True),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
    ({"NotIpAddress": {"aws:SourceIp": "127.0.0.1/32"}}, False),
    ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, True),
    ({"StringEquals": {"aws:UserAgent": "curl"}}, False),
    ({"StringNotLike": {"aws:UserAgent": "curl*"}}, True),
    ({"Bool": {"aws:SecureTransport": "true"}}, False),
    ({"Bool": {"aws:SecureTransport": "false"}}, False),
    ({"BoolIfExists": {"aws:SecureTransport": "true"}}, True),
    ({"Null": {"aws:SecureTransport": "true"}}, True),
    ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
    ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
    ({"NumericGreaterThan": {"aws:EpochTime": "1577836800"}}, True),
    ({"StringEquals": {"aws:PrincipalAccount": OTHER}}, True),
    ({"StringEquals": {"aws:PrincipalAccount": THIRD}}, False),
    ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{OTHER}:*"}}, True),
    ({"ArnEquals": {"aws:PrincipalArn": USER(OTHER, "bob")}}, False),
    ({"ArnEquals": {"aws:SourceArn": "arn:aws:sns:us-east-1:111122223333:t"}}, False),
    ({"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}, True),
    ({"StringEquals": {"aws:PrincipalAccount": OTHER, "aws:UserAgent": "curl"}}, False),
    ({"StringEquals": {"aws:PrincipalAccount": OTHER},
      "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
])
def test_8_3_conditions(queue, clients, let, condition, allowed):
    let({"Condition": condition})
    assert may_send(clients(STRANGER), queue) == allowed


def test_8_3_an_explicit_deny_wins_over_all(sqs, queue, clients, let):
    queue_arn = arn(sqs, queue)
    let({}, {"Effect": "Deny", "Action": "sqs:SendMessage"})
    for key, user in [(STRANGER, ROOT_OF(OTHER)), (ROOT, ROOT_OF(OWNER)),
                      (OPEN, USER(OWNER, "open")), (None, "anonymous")]:
        client = clients(key)
        denied(client, client.send_message, "SendMessage", queue_arn, user, BY_QUEUE,
               QueueUrl=queue, MessageBody="m")
        assert receive(client, queue) == []


def test_8_3_a_deny_without_tls_locks_nobody_out_of_plain_http(sqs, queue, clients, let):
    let({}, {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}})
    assert may_send(clients(STRANGER), queue) and may_send(sqs, queue)


def test_8_3_secure_transport_over_tls(new_server, tmp_path, name):
    certificate, secret = make_pair(tmp_path, "pair")
    server = new_server(
        "--credentials", write_keys(tmp_path / "keys", ROOT, STRANGER), "--account", OWNER,
        "--tls-certificate", certificate, "--tls-key", secret).start()
    secure = {"url": f"https://127.0.0.1:{server.port}", "verify": str(certificate)}
    sqs, stranger = (server.sqs(key=key, **secure) for key in (ROOT, STRANGER))
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    assert queue == f"https://127.0.0.1:{server.port}/{OWNER}/{name}"
    for value in ("false", "true"):
        change(sqs, queue, Policy=document(statement(
            arn(sqs, queue), "*", Condition={"Bool": {"aws:SecureTransport": value}})))
        assert may_send(stranger, queue) == (value == "true")


def test_8_3_a_request_that_nobody_signed(sqs, queue, clients, let):
    queue_arn, nobody = arn(sqs, queue), clients()
    denied(nobody, nobody.send_message, "SendMessage", queue_arn, "anonymous",
           QueueUrl=queue, MessageBody="m")
    let({"Action": ["sqs:SendMessage", "sqs:ReceiveMessage"]})
    nobody.send_message(QueueUrl=queue, MessageBody="m")
    assert [m["Body"] for m in receive(nobody, queue)] == ["m"]
    denied(nobody, nobody.purge_queue, "PurgeQueue", queue_arn, "anonymous", QueueUrl=queue)
    for action, call, more in [("CreateQueue", nobody.create_queue, {"QueueName": "x"}),
                               ("ListQueues", nobody.list_queues, {})]:
        resource = f"arn:aws:sqs:us-east-1:{OWNER}:{more.get('QueueName', '')}"
        denied(nobody, call, action, resource, "anonymous", **more)


def test_8_3_the_owners_account_may_do_everything(queue, clients):
    user = clients(OPEN)
    assert may_send(user, queue)
    user.tag_queue(QueueUrl=queue, Tags={"a": "b"})
    user.delete_queue(QueueUrl=queue)


def test_8_3_a_policy_of_the_caller_bounds_it(sqs, queue, name, clients, let):
    queue_arn, alice = arn(sqs, queue), clients(ALICE)
    assert may_send(alice, queue)
    denied(alice, alice.receive_message, "ReceiveMessage", queue_arn, USER(OWNER, "alice"),
           QueueUrl=queue)
    let({"Principal": {"AWS": USER(OWNER, "alice")}})
    assert [m["Body"] for m in receive(alice, queue)] == ["m"]
    denied(alice, alice.purge_queue, "PurgeQueue", queue_arn, USER(OWNER, "alice"), BY_IDENTITY,
           QueueUrl=queue)


def test_8_3_tags_in_a_callers_policy(sqs, name, clients):
    alice, queue_arn = clients(ALICE), f"arn:aws:sqs:us-east-1:{OWNER}:{name}"
    denied(alice, alice.create_queue, "TagQueue", queue_arn, USER(OWNER, "alice"),
           QueueName=name, tags={"team": "x", "cost": "y"})
    queue = alice.create_queue(QueueName=name, tags={"team": "x"})["QueueUrl"]
    denied(alice, alice.tag_queue, "TagQueue", queue_arn, USER(OWNER, "alice"),
           QueueUrl=queue, Tags={"cost": "y"})
    alice.tag_queue(QueueUrl=queue, Tags={"team": "z"})
    assert tags(sqs, queue) == {"team": "z"}


def test_8_3_a_foreign_caller_with_a_policy_needs_both(sqs, queue, clients, let):
    remote = clients(REMOTE)
    assert not may_send(remote, queue)
    let({"Principal": {"AWS": OTHER}})
    assert may_send(remote, queue)
    denied(remote, remote.receive_message, "ReceiveMessage", arn(sqs, queue),
           USER(OTHER, "remote"), QueueUrl=queue)


def test_8_3_strangers_are_not_told_what_is_there(sqs, clients):
    url, stranger = "http://x/{}/none".format, clients(STRANGER)
    denied(stranger, stranger.send_message, "SendMessage", f"arn:aws:sqs:us-east-1:{OWNER}:none",
           ROOT_OF(OTHER), QueueUrl=url(OWNER), MessageBody="m")
    denied(stranger, stranger.get_queue_url, "GetQueueUrl", f"arn:aws:sqs:us-east-1:{OWNER}:none",
           ROOT_OF(OTHER), QueueName="none", QueueOwnerAWSAccountId=OWNER)
    for client, account in [(sqs, OWNER), (stranger, OTHER)]:
        refused(client, client.send_message, "AWS.SimpleQueueService.NonExistentQueue", NO_QUEUE,
                QueueUrl=url(account), MessageBody="m")


def test_1_5_accounts_have_queues_of_their_own_under_equal_names(sqs, clients, name):
    stranger = clients(STRANGER)
    ours = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "1"})["QueueUrl"]
    theirs = stranger.create_queue(QueueName=name)["QueueUrl"]
    assert (ours.split("/")[-2:], theirs.split("/")[-2:]) == ([OWNER, name], [OTHER, name])
    assert arn(stranger, theirs) == f"arn:aws:sqs:us-east-1:{OTHER}:{name}"
    stranger.send_message(QueueUrl=theirs, MessageBody="theirs")
    assert counts(sqs, ours) == (0, 0, 0) and counts(stranger, theirs) == (1, 0, 0)
    # A bare name is a queue of the caller.
    assert [m["Body"] for m in receive(stranger, name)] == ["theirs"]
    assert stranger.get_queue_url(QueueName=name)["QueueUrl"] == theirs
    assert sqs.list_queues(QueueNamePrefix=name)["QueueUrls"] == [ours]
    assert stranger.list_queues(QueueNamePrefix=name)["QueueUrls"] == [theirs]
    denied(sqs, sqs.delete_queue, "DeleteQueue", arn(stranger, theirs), ROOT_OF(OWNER),
           QueueUrl=theirs)
    sqs.delete_queue(QueueUrl=ours)
    assert stranger.list_queues(QueueNamePrefix=name)["QueueUrls"] == [theirs]


def test_1_5_lists_hold_queues_of_the_caller_alone(new_server, tmp_path):
    server = new_server(
        "--credentials", write_keys(tmp_path / "keys", *KEYS), "--account", OWNER).start()
    ours, theirs = server.sqs(key=ROOT), server.sqs(key=STRANGER)
    for client in (ours, theirs):
        for number in range(4):
            client.create_queue(QueueName=f"q{number}")
    for client, account in [(ours, OWNER), (theirs, OTHER)]:
        pages = client.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 2})
        found = [url for page in pages for url in page.get("QueueUrls", [])]
        assert found == [f"{server.url}/{account}/q{number}" for number in range(4)]
        for prefix in ("~", f"~{OTHER}/", f"{OTHER}/"):
            assert "QueueUrls" not in client.list_queues(QueueNamePrefix=prefix)
    for bad in (f"~{OTHER}%2Fq0", f"{OWNER}/~{OTHER}%2Fq0", f"{OWNER}/~{OTHER}/q0"):
        refused(ours, ours.send_message, "AWS.SimpleQueueService.NonExistentQueue", NO_QUEUE,
                QueueUrl=bad, MessageBody="m")
    assert not may_send(ours, f"~{OTHER}/q0")


def test_4_4_the_sender_is_who_signed(sqs, queue, clients, let):
    let({})
    for key in (ROOT, STRANGER, BOB, PICKER, None):
        clients(key).send_message(QueueUrl=queue, MessageBody=key.id if key else "nobody")
    found = {}
    for _ in range(5):
        [message] = receive(sqs, queue, MessageSystemAttributeNames=["SenderId"])
        found[message["Body"]] = message["Attributes"]["SenderId"]
    assert (found[ROOT.id], found["STRANGER"]) == (OWNER, OTHER)
    assert found["BOB"].startswith("AIDA")
    assert found["PICKER"].startswith("AROA") and found["PICKER"].endswith(":robot-7")
    assert found["nobody"] not in (OWNER, OTHER)


# 9 and 3.2, encryption as the attributes tell of it, without a key ring


SSE = ["SqsManagedSseEnabled", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds"]


def encryption(sqs, queue):
    found = attributes(sqs, queue, *SSE)
    return tuple(found.get(name) for name in SSE)


def test_9_each_kind_of_encryption_takes_the_place_of_the_other(sqs, queue):
    assert encryption(sqs, queue) == ("false", None, None)
    change(sqs, queue, SqsManagedSseEnabled="true")
    assert encryption(sqs, queue) == ("true", None, None)
    change(sqs, queue, KmsMasterKeyId="testKeyId")
    assert encryption(sqs, queue) == ("false", "testKeyId", "300")
    change(sqs, queue, KmsDataKeyReusePeriodSeconds="60")
    assert encryption(sqs, queue) == ("false", "testKeyId", "60")
    change(sqs, queue, KmsMasterKeyId="")
    assert encryption(sqs, queue) == ("false", None, None)
    change(sqs, queue, KmsMasterKeyId="alias/aws/sqs")
    change(sqs, queue, SqsManagedSseEnabled="true")
    assert encryption(sqs, queue) == ("true", None, None)
    change(sqs, queue, SqsManagedSseEnabled="FALSE")
    assert encryption(sqs, queue) == ("false", None, None)


def test_9_without_a_key_ring_any_key_is_taken_and_nothing_refused(sqs, name):
    key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    queue = sqs.create_queue(QueueName=name, Attributes={
        "KmsMasterKeyId": key, "KmsDataKeyReusePeriodSeconds": "86400"})["QueueUrl"]
    assert encryption(sqs, queue) == ("false", key, "86400")
    assert may_send(sqs, queue)
    assert [m["Body"] for m in receive(sqs, queue)] == ["m"]


def test_3_2_one_kind_of_encryption_at_a_time(sqs, queue, name):
    both = {"SqsManagedSseEnabled": "true", "KmsMasterKeyId": "k"}
    text = ("You can use one type of server-side encryption (SSE) at one time. You can either enable "
            "KMS SSE or SQS SSE.")
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeName", text,
            QueueUrl=queue, Attributes=both)
    refused(sqs, sqs.create_queue, "InvalidAttributeName", text,
            QueueName=name + "-new", Attributes=both)


@pytest.mark.parametrize("attribute, value", [
    ("KmsDataKeyReusePeriodSeconds", "59"), ("KmsDataKeyReusePeriodSeconds", "86401"),
    ("KmsDataKeyReusePeriodSeconds", "x"), ("SqsManagedSseEnabled", "yes"),
    ("SqsManagedSseEnabled", ""), ("KmsMasterKeyId", "k" * 257)])
def test_3_2_values_of_encryption(sqs, queue, attribute, value):
    refused(sqs, sqs.set_queue_attributes, "InvalidAttributeValue",
            f"Invalid value for the parameter {attribute}.",
            QueueUrl=queue, Attributes={attribute: value})
