"""A Celery application as its documents show one: the broker is a URL, the rest are defaults but
for the times, which are short so that a test is."""

import os

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport_options={
        "region": "us-east-1", "is_secure": False, "visibility_timeout": 3,
        "wait_time_seconds": 1, "polling_interval": 0.05, "queue_name_prefix": "app-"},
    broker_connection_max_retries=None,
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1,
    worker_enable_remote_control=False)


@app.task
def note(number):
    """Leaves a mark that the test finds."""
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{number}\n")


if __name__ == "__main__":
    for number in range(int(os.environ["TASKS"])):
        note.delay(number)
