"""The tools on the files of a real server: running, stopped, damaged; and the page about them."""

import json
import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest

from harness import COMMAND, DEADLINE, HERE, drain, receive, wait_until

DOCUMENT = HERE / "../../Docs/tools.md"
# Small enough to be compared at once; large enough that nothing is compacted.
SMALL = ("--segment-size", 1 << 20)
# Soon full, soon compacted.
TINY = ("--segment-size", 64 << 10)


def tool(*words, status=0):
    """Runs a tool with --json; returns what it printed, parsed."""
    done = subprocess.run([*COMMAND, *map(str, words), "--json"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    if words[0] == "inspect" and status != 2:
        return [json.loads(line) for line in done.stdout.splitlines()]
    return json.loads(done.stdout)


def text(*words, status=0):
    """Runs a tool as people do; its output."""
    done = subprocess.run([*COMMAND, *map(str, words)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    assert done.stdout.strip() or done.stderr.strip()
    return done.stdout


def image(directory):
    """Every file and its bytes."""
    return {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}


def segments(directory):
    return sorted(path.name for path in Path(directory).glob("*.seg"))


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def rest(server):
    """Waits for the heartbeat after the last sync: then the server writes no more by itself."""
    wait_until(lambda: [line for line in tool("inspect", server.data_dir, "--records")
                        if line["type"] == "frame"][-1]["kind"] == "heartbeat", "a heartbeat")


def fill(server, count=12, size=100, name="orders"):
    """Sends messages and deletes the first two; returns the client, the queue and the ids."""
    sqs = server.sqs()
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    ids = [sqs.send_message(QueueUrl=queue, MessageBody=f"{n:04} " + "é" * size)["MessageId"]
           for n in range(count)]
    for message in receive(sqs, queue, MaxNumberOfMessages=2, VisibilityTimeout=600):
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return sqs, queue, ids


def test_every_tool_that_looks_works_beside_a_server_and_changes_nothing(new_server):
    server = new_server(*SMALL).start()
    data = server.data_dir
    _, _, ids = fill(server)
    rest(server)
    before = image(data)

    verify = tool("verify", data)
    assert verify["sound"] and verify["opens"]
    stats = tool("stats", data)
    assert stats["lsn"] == verify["lastLSN"]
    assert [(queue["queue"], queue["visible"], queue["leased"]) for queue in stats["queues"]] \
        == [("orders", 10, 0)]
    assert sum(segment["messages"] for segment in stats["segments"]) == 10
    lines = tool("inspect", data, "--records")
    assert {line["type"] for line in lines} == {"segment", "frame", "record"}
    sent = [line for line in lines if line.get("record") == "sent"]
    assert [line["id"] for line in sent] == ids
    history = tool("history", data, "--message", ids[0])
    assert [record["record"] for record in history["records"]] == ["sent", "leased", "deleted"]
    assert tool("history", data, "--message", sent[0]["lsn"]) == history
    assert tool("history", data, "--message", 999999, status=1)["records"] == []
    salvage = tool("salvage", data)
    assert (salvage["messages"], salvage["live"]) == (12, 10)
    assert "in use" in tool("repair", data, status=2)["error"]
    for command in ("verify", "stats", "inspect", "salvage"):
        text(command, data)
    assert image(data) == before
    server.stop()
    assert tool("verify", data)["findings"] == []
    assert tool("repair", data)["actions"] == []


def test_a_backup_under_load_restores_to_its_state_hash(new_server, tmp_path):
    server = new_server(*TINY).start()
    data, backup = server.data_dir, tmp_path / "backup"
    sqs, queue, _ = fill(server, size=500)
    first = segments(data)
    done = threading.Event()
    failures = []

    def load():
        client = server.sqs()
        number = 0
        try:
            while not done.is_set():
                client.send_message(QueueUrl=queue, MessageBody=f"load {number} " + "x" * 3000)
                number += 1
                if number % 10:
                    for message in receive(client, queue):
                        client.delete_message(
                            QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=load)
    thread.start()
    points = []
    try:
        # Until compaction has removed what the first backup saw, and a few times in any case.
        while len(points) < 4 or set(first) & set(segments(data)):
            assert thread.is_alive(), failures
            assert len(points) < 100, "compaction removed nothing"
            points.append(tool("backup", data, backup))
            assert points[-1]["verified"]
            assert tool("verify", data)["sound"]
    finally:
        done.set()
        thread.join(DEADLINE)
    assert not failures
    for number, point in enumerate({point["lsn"]: point for point in points[-3:]}.values()):
        place = tmp_path / f"restored-{number}"
        restored = tool("restore", backup, place, "--lsn", point["lsn"])
        assert (restored["lsn"], restored["stateHash"]) == (point["lsn"], point["stateHash"])
        assert tool("verify", place)["sound"]
        assert tool("stats", place)["stateHash"] == point["stateHash"]
    server.stop()

    # What a server shows from the last one is what the original shows.
    last = tool("backup", data, backup)
    again = tool("backup", data, backup)
    assert again["stateHash"] == last["stateHash"]
    assert (again["copiedFiles"], again["keptFiles"] > 0) == (1, True)
    place = tmp_path / "last"
    assert tool("restore", backup, place)["stateHash"] == last["stateHash"]
    bodies = []
    for directory in (data, place):
        again = new_server(*TINY, data_dir=directory).start()
        sqs = again.sqs()
        queue = sqs.get_queue_url(QueueName="orders")["QueueUrl"]
        visible = int(sqs.get_queue_attributes(
            QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
            ["Attributes"]["ApproximateNumberOfMessages"])
        bodies.append([message["Body"] for message in drain(sqs, queue, visible)])
        again.stop()
    assert bodies[0] == bodies[1]


def test_a_point_in_time_is_restored_and_others_are_refused(new_server, tmp_path):
    server = new_server(*SMALL).start()
    fill(server)
    server.stop()
    backup = tmp_path / "backup"
    point = tool("backup", server.data_dir, backup)
    sent = [line for line in tool("inspect", server.data_dir, "--records")
            if line.get("record") == "sent"]
    for how, value in (("--lsn", sent[4]["lsn"]), ("--time", sent[4]["time"])):
        place = tmp_path / f"restored{how}"
        restored = tool("restore", backup, place, how, value)
        assert sent[4]["lsn"] <= restored["lsn"]
        assert 5 <= restored["messages"] <= len(sent)
    assert "ends with LSN" in tool(
        "restore", backup, tmp_path / "no", "--lsn", point["lsn"] + 1, status=2)["error"]
    tool("restore", backup, tmp_path / "no", "--time", "2199-01-01T00:00:00Z", status=2)
    assert "is there already" in tool("restore", backup, backup, status=2)["error"]
    tool("restore", server.data_dir, tmp_path / "no", status=2)
    tool("backup", server.data_dir, server.data_dir, status=2)
    tool("backup", server.data_dir, tmp_path, status=2)
    assert not (tmp_path / "no").exists()
    flip(backup / segments(backup)[-1], 8300)
    assert tool("restore", backup, tmp_path / "no", status=1)["kind"] == "damaged"
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("what", ["frame", "head", "store", "header", "missing"])
def test_a_damaged_store_is_told_salvaged_and_repaired_or_left(new_server, tmp_path, what):
    server = new_server(*SMALL).start()
    data = server.data_dir
    fill(server)
    server.kill()
    newest = data / segments(data)[-1]
    if what == "frame":
        flip(newest, 4096 * 4 + 100)
    elif what == "header":
        flip(newest, 40)
    elif what == "head":
        (data / "HEAD").write_bytes(bytes(8192))
    elif what == "store":
        flip(data / "STORE", 20)
    else:
        newest.unlink()
    before = image(data)

    verify = tool("verify", data, status=1)
    assert not verify["sound"] and not verify["opens"]
    damages = [each for each in verify["findings"] if each["severity"] == "damage"]
    assert all(each["meaning"] and each["advice"] for each in damages)
    # A start says the same.
    refused = subprocess.run(server.command(), stdin=subprocess.DEVNULL, capture_output=True,
                             text=True, timeout=DEADLINE)
    assert refused.returncode == 1, refused.stderr
    before["LOCK"] = (data / "LOCK").read_bytes()

    export = tmp_path / "export"
    salvage = tool("salvage", data, "--export", export)
    found = [json.loads(line) for line in export.read_text().splitlines()]
    assert len(found) == salvage["messages"] == {"frame": 11, "missing": 0}.get(what, 12)
    assert all(message["body"].endswith("é" * 100) for message in found)
    tool("inspect", data, "--records", status=1 if what in ("frame", "header") else 0)
    tool("history", data, "--message", 3, status=1 if what == "missing" else 0)
    tool("stats", data, status=1)
    tool("backup", data, tmp_path / "backup", status=1)
    assert not (tmp_path / "backup/BACKUP").exists()

    plan = tool("repair", data, status=1)
    assert image(data) == before
    if what in ("store", "header", "missing"):
        assert plan["notRepairable"]
        tool("repair", data, "--apply", status=1)
        assert image(data) == before
        return
    done = tool("repair", data, "--apply")
    assert done["applied"]
    evidence = done["actions"][0]["evidence"]
    damaged = newest.name if what == "frame" else "HEAD"
    assert (data / evidence).read_bytes() == before[damaged]
    assert tool("verify", data)["sound"]
    server.start()
    if what == "frame":
        assert plan["actions"][0]["givenUpFirstLSN"] < plan["actions"][0]["givenUpLastLSN"]
    else:
        assert server.raw().counts(server.raw().ok("GetQueueUrl", QueueName="orders")["QueueUrl"]) \
            == (10, 0, 0)
    server.stop()
    assert tool("verify", data)["sound"]


def test_what_is_no_store_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "letter").write_text("hello")
    for place in (tmp_path, tmp_path / "missing"):
        for command in ("verify", "stats", "inspect", "salvage", "repair"):
            assert tool(command, place, status=2)["kind"] == "unreadable"
        tool("history", place, "--message", 1, status=2)
        tool("backup", place, tmp_path / "backup", status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_progress_is_shown_on_a_terminal_alone(new_server):
    server = new_server(*SMALL).start()
    fill(server)
    server.stop()
    command = [*COMMAND, "verify", str(server.data_dir)]
    quiet = subprocess.run(command, capture_output=True, timeout=DEADLINE)
    assert (quiet.returncode, quiet.stderr) == (0, b"")
    ours, theirs = pty.openpty()
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=DEADLINE)
    os.close(theirs)
    terminal = b""
    try:
        while part := os.read(ours, 65536):
            terminal += part
    except OSError:
        pass  # how a terminal ends
    os.close(ours)
    assert shown.returncode == 0 and shown.stdout == quiet.stdout
    assert b"verifying [" in terminal and terminal.endswith(b"\r\x1b[K")


def shape(output):
    """Output without what differs from run to run: times, ids, hashes and ages."""
    output = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", output)
    output = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", output)
    output = re.sub(r"\b(?=[0-9a-f]*[1-9a-f])[0-9a-f]{16}\b(?!\.)", "HASH", output)
    output = re.sub(r"(chain) [0-9a-f]{8} to [0-9a-f]{8}", r"\1 C to C", output)
    output = re.sub(r"(chain) [0-9a-f]{8} to", r"\1 C to", output)
    output = re.sub(r"oldest \d+ s", "oldest N s", output)
    return re.sub(r'("sentAt"):\d+', r"\1:N", output)


def test_the_page_shows_what_the_commands_print(new_server, tmp_path):
    page = DOCUMENT.read_text()
    blocks = re.findall(r"^```\n\$ (.*)\n((?:.*\n)*?)```$", page, re.MULTILINE)
    shown = {command.split()[1] for command, _ in blocks if command.startswith("penstock ")}
    assert shown == {"stats", "verify", "inspect", "history", "salvage", "backup", "restore",
                     "repair"}
    server = new_server(data_dir=tmp_path / "penstock-data").start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="orders")["QueueUrl"]
    for body in ("one", "two", "three", "four"):
        raw.ok("SendMessage", QueueUrl=queue, MessageBody=body)
    messages = raw.ok("ReceiveMessage", QueueUrl=queue, MaxNumberOfMessages=2)["Messages"]
    raw.ok("DeleteMessage", QueueUrl=queue, ReceiptHandle=messages[0]["ReceiptHandle"])
    rest(server)
    for command, expected in blocks:
        if "dd of=" in command:
            server.kill()
        words = command.replace("penstock ", "", 1)
        if command.startswith("penstock "):
            done = subprocess.run([*COMMAND, *words.split()], cwd=tmp_path, capture_output=True,
                                  text=True, timeout=DEADLINE)
        else:
            done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True,
                                  text=True, timeout=DEADLINE)
        printed = done.stdout + (f"[{done.returncode}]\n" if done.returncode else "")
        assert shape(printed) == shape(expected), (command, done.stderr)
