# SPDX-License-Identifier: Apache-2.0
"""A toy SQS endpoint that answers before it writes: what a crash test has to find out.

    forgetful.py PORT DIRECTORY [--eager | --careless]

Every change is a line of JSON in one file. A timer writes them, so a kill takes what was answered
since. With --eager a line is written before its answer and never synced, so a kill takes nothing.
With --careless it is synced too, but nobody looks whether that worked. Leases live in memory only.
"""

import argparse
import hashlib
import http.server
import json
import os
import threading
import time
import uuid

PERIOD = 0.1


class Store:
    def __init__(self, directory, eager, careless):
        self.lock = threading.Lock()
        self.eager = eager or careless
        self.careless = careless
        self.messages = {}  # id: [body, visible at]
        self.exists = False
        self.pending = []
        path = os.path.join(directory, "log")
        if os.path.exists(path):
            self.replay(path)
        self.file = open(path, "ab", buffering=0)
        if not self.eager:
            threading.Thread(target=self.write_by_timer, daemon=True).start()

    def replay(self, path):
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # a torn line was never answered, or is forgotten
                kind, *rest = json.loads(line)
                self.apply(kind, *rest)

    def apply(self, kind, name=None, body=None, visible=0):
        if kind == "queue":
            self.exists = True
        elif kind == "sent":
            self.messages[name] = [body, visible]
        elif kind == "deleted":
            self.messages.pop(name, None)

    def change(self, *record):
        self.apply(*record)
        self.pending.append((json.dumps(record) + "\n").encode())
        if self.eager:
            self.write()

    def write(self):
        lines, self.pending = self.pending, []
        if lines:
            self.file.write(b"".join(lines))
        if lines and self.careless:
            try:
                os.fdatasync(self.file.fileno())
            except OSError:
                pass

    def write_by_timer(self):
        while True:
            time.sleep(PERIOD)
            with self.lock:
                self.write()

    # Actions: each takes the request's members and returns the answer's, or None for an error.

    def queue(self, request):
        return {"QueueUrl": "http://localhost/q"} if self.exists else None

    def create(self, request):
        if not self.exists:
            self.change("queue")
        return self.queue(request)

    def send(self, request):
        name = str(uuid.uuid4())
        visible = time.time() + request.get("DelaySeconds", 0)
        self.change("sent", name, request["MessageBody"], visible)
        return {"MessageId": name, "MD5OfMessageBody": digest(request["MessageBody"])}

    def receive(self, request):
        now, found = time.time(), []
        for name, message in self.messages.items():
            if len(found) == request.get("MaxNumberOfMessages", 1):
                break
            if message[1] <= now:
                message[1] = now + request.get("VisibilityTimeout", 2)
                found.append({"MessageId": name, "ReceiptHandle": name, "Body": message[0],
                              "MD5OfBody": digest(message[0])})
        return {"Messages": found}

    def delete(self, request):
        if request["ReceiptHandle"] in self.messages:
            self.change("deleted", request["ReceiptHandle"])
        return {}

    def hide(self, request):
        message = self.messages.get(request["ReceiptHandle"])
        if message is None:
            return None
        message[1] = time.time() + request["VisibilityTimeout"]
        return {}

    def batch(self, action, request):
        return {"Successful": [{"Id": e["Id"], **action(e)} for e in request["Entries"]]}

    def answer(self, name, request):
        actions = {
            "GetQueueUrl": self.queue, "CreateQueue": self.create, "SendMessage": self.send,
            "ReceiveMessage": self.receive, "DeleteMessage": self.delete,
            "ChangeMessageVisibility": self.hide,
            "SendMessageBatch": lambda r: self.batch(self.send, r),
            "DeleteMessageBatch": lambda r: self.batch(self.delete, r),
        }
        with self.lock:
            return actions[name](request) if name in actions else None


def digest(text):
    return hashlib.md5(text.encode()).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.headers["X-Amz-Target"].split(".")[-1]
        answer = self.server.store.answer(name, request)
        body = json.dumps({"__type": "com.amazonaws.sqs#Refused"} if answer is None else answer)
        self.send_response(400 if answer is None else 200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("directory")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--careless", action="store_true")
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    server.store = Store(options.directory, options.eager, options.careless)
    server.serve_forever()
