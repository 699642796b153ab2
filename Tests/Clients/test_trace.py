"""No reply before the sync: what strace saw between the write of a message and its answer.

For every send there must be, in this order: a completed write of the bytes of the message to a
.seg file, a completed fsync or fdatasync of that file that began after it, and only then the first
byte of the answer to the client. (The write may have a descriptor of its own, past the page cache:
a sync is of the file.)
"""

import re
import shutil
import uuid
from pathlib import Path

import pytest

from harness import Background, wait_until

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
SYNCS = ("fdatasync", "fsync")
REPLIES = ("write", "writev", "sendto", "sendmsg")
CALLS = "trace=" + ",".join(sorted({*WRITES, *SYNCS, *REPLIES, "io_uring_enter"}))

# "123 12:00:00.000000 name(5</path>, …" and, when another thread came in between,
# "123 12:00:00.000000 <... name resumed>…"
LINE = re.compile(r"(\d+) +[\d:.]+ (?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)


class Call:
    def __init__(self, name, text, began):
        self.name = name
        self.text = text
        self.began = began  # line numbers stand for time
        self.ended = None
        found = re.match(r"\d+<(.*?)>", text)
        self.path = found[1] if found else ""
        self.result = None


def parse(trace):
    """The calls of a trace, with the lines where each began and ended."""
    calls, unfinished = [], {}
    for number, line in enumerate(trace.splitlines()):
        found = LINE.match(line)
        if not found:
            continue
        thread, resumed, name, text = found.groups()
        if resumed:
            call = unfinished.pop(thread)
            call.text += text
        else:
            call = Call(name, text, number)
            calls.append(call)
            if text.endswith("<unfinished ...>"):
                unfinished[thread] = call
                continue
        call.ended = number
        result = re.search(r"\) += (-?\d+)[^=]*$", text)
        call.result = int(result[1]) if result else None
    return calls


def check_order(calls, marker, message_id):
    [*writes] = [c for c in calls if c.name in WRITES and ".seg" in c.path and marker in c.text]
    assert writes, f"no write to a .seg file carries {marker}"
    write = writes[0]
    assert write.ended is not None and write.result and write.result > 0
    replies = [c for c in calls
               if c.name in REPLIES and ".seg" not in c.path and message_id in c.text]
    assert replies, f"no reply carries {message_id}"
    reply = replies[0]
    assert write.ended < reply.began, "the reply began before the write was complete"
    syncs = [c for c in calls
             if c.name in SYNCS and c.path == write.path
             and c.result == 0 and write.ended < c.began and c.ended < reply.began]
    assert syncs, f"no complete sync of {write.path} between the write and the reply"


def test_no_send_is_answered_before_its_bytes_are_synced(new_server, tmp_path):
    trace = Path(tmp_path / "trace")
    # -D makes strace the grandchild, so that the process started here is the server itself.
    server = new_server(wrapper=[
        "strace", "-D", "-f", "-tt", "-y", "-s", "65536", "-o", trace, "-e", CALLS]).start()
    raw = server.raw()
    queue = raw.ok("CreateQueue", QueueName="traced")["QueueUrl"]
    acknowledged = []  # (marker in the body, message id in the reply)

    def marker():
        return "marker-" + uuid.uuid4().hex

    def send_singles(count, size):
        connection = server.raw()
        sent = []
        for _ in range(count):
            mark = marker()
            answer = connection.ok("SendMessage", QueueUrl=queue, MessageBody=mark + "." * size)
            sent.append((mark, answer["MessageId"]))
        connection.close()
        return sent

    acknowledged += send_singles(20, 10)
    acknowledged += send_singles(3, 10_000)
    # Together, so that several replies wait for one sync.
    for thread in [Background(send_singles, 25, 10) for _ in range(6)]:
        acknowledged += thread.result()
    marks = [marker() for _ in range(10)]
    answer = raw.ok("SendMessageBatch", QueueUrl=queue, Entries=[
        {"Id": str(n), "MessageBody": mark} for n, mark in enumerate(marks)])
    acknowledged += [(mark, entry["MessageId"])
                     for mark, entry in zip(marks, answer["Successful"], strict=True)]
    raw.close()
    pid = server.pid
    server.stop()

    def complete():
        text = trace.read_text(errors="replace")
        return text if re.search(rf"^{pid} .*\+\+\+ exited with", text, re.MULTILINE) else None

    calls = parse(wait_until(complete, "the end of the trace"))
    assert len(acknowledged) == 20 + 3 + 150 + 10
    for mark, message_id in acknowledged:
        check_order(calls, mark, message_id)
