"""A task framework over its SQS transport, unmodified: Celery with kombu and pycurl.

It is run by the interpreter that CELERY_PYTHON names, which has `celery[sqs]`; .ci/run makes one.
"""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from harness import DEADLINE, wait_until

APP = Path(__file__).resolve().parent / "celery_app"
PYTHON = os.environ.get("CELERY_PYTHON")
TASKS = 200


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.skipif(PYTHON is None, reason="CELERY_PYTHON names no interpreter with celery[sqs]")
def test_a_worker_finishes_all_tasks_over_a_kill_of_the_server(new_server, tmp_path):
    port = free_port()
    # The last --port counts.
    server = new_server("--port", port).start()
    notes = tmp_path / "notes"
    notes.touch()
    environment = {
        **os.environ, "BROKER": f"sqs://test:test@127.0.0.1:{port}//", "NOTES": str(notes),
        "TASKS": str(TASKS)}

    def done():
        return {int(line) for line in notes.read_text().split()}

    subprocess.run([PYTHON, "tasks.py"], cwd=APP, env=environment, timeout=DEADLINE, check=True)
    log = open(tmp_path / "worker.log", "w+")
    worker = subprocess.Popen(
        [PYTHON, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "info",
         "--without-gossip", "--without-mingle"],
        cwd=APP, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: len(done()) >= TASKS // 10, "some tasks are done")
        server.kill()
        before = len(done())
        assert before < TASKS, "the server was killed too late to mean anything"
        server.start()
        try:
            wait_until(lambda: done() == set(range(TASKS)), "all tasks are done", 2 * DEADLINE)
        except AssertionError:
            log.seek(0)
            raise AssertionError(f"{len(done())} of {TASKS}, {before} before:\n{log.read()}")
        client = server.sqs()
        [queue] = client.list_queues()["QueueUrls"]
        wait_until(lambda: counts_are_zero(client, queue), "the queue is empty")
    finally:
        worker.terminate()
        try:
            worker.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        log.close()


def counts_are_zero(client, queue):
    values = client.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return all(value == "0" for key, value in values.items() if key.startswith("Approximate"))
