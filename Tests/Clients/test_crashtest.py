# SPDX-License-Identifier: Apache-2.0
"""`penstock crashtest`: finds nothing in Penstock, and finds what there is to be found in others.

A checker that never complains proves nothing, so half of these runs are of systems that lose
messages: an endpoint that writes by a timer, and ones that write without a sync.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import COMMAND, DEADLINE, HERE, wait_until

FORGETFUL = f"exec {sys.executable} {HERE / 'forgetful.py'} {{port}} {{data}}"
ENDPOINT = "http://127.0.0.1:{port}"


def crashtest(directory, *options):
    """Runs a crash test; returns exit status, report and what it said on the way."""
    command = [*COMMAND, "crashtest", "--json", "--directory", str(directory),
               *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert not mounts_below(directory), "left a file system mounted"
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    check(report)
    assert report["broken"] == (done.returncode == 1)
    return done.returncode, report, done.stderr


def check(report):
    """Every message is in one group, and the totals are the sums of the phases."""
    ran = [phase for phase in report["phases"] if "skipped" not in phase]
    assert ran and not report["interrupted"]
    for phase in ran:
        counts = phase["counts"]
        assert counts["submitted"] == (
            counts["acknowledged"] + counts["rejected"] + counts["unanswered"]), phase
        assert counts["acknowledged"] == (
            counts["recovered"] + counts["deleted"] + counts["deletedUnanswered"]
            + counts["setAside"] + counts["lost"] + counts["resurrected"] - counts["resurrectedUnacknowledged"]), phase
        assert counts["acknowledged"] > 0, phase
        assert "endedEarly" not in phase, phase
    for name, total in report["totals"].items():
        assert total == sum(phase["counts"][name] for phase in report["phases"])


def phase_of(report, name):
    [phase] = [phase for phase in report["phases"] if phase["name"] == name]
    if "skipped" in phase:
        pytest.skip(f"{name}: {phase['skipped']}")
    return phase


def mounts_below(directory):
    """Mount points within a directory."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1].startswith(str(directory))]


def test_penstock_loses_nothing(tmp_path):
    status, report, said = crashtest(
        tmp_path, "--phases", "kill,power,faults,full", "--kills", 3, "--rounds", 3)
    assert status == 0, report
    assert [phase["name"] for phase in report["phases"]] == ["kill", "power", "faults", "full"]
    assert all(report["totals"][name] == 0 for name in ("lost", "resurrected", "unknown"))
    assert all(phase["refused"] == 0 for phase in report["phases"])
    assert phase_of(report, "kill")["rounds"] == 3
    assert f"seed {report['seed']}" in said.splitlines()[0]
    assert "kill: begins" in said
    assert list(tmp_path.iterdir()) == [], "a run without loss leaves nothing"


def test_damage_is_refused_or_what_it_hit_is_named(tmp_path):
    status, report, _ = crashtest(tmp_path, "--phases", "damage", "--rounds", 10)
    phase = phase_of(report, "damage")
    assert status == 0, report
    assert phase["rounds"] == 20
    assert phase["refused"] > 0, phase
    assert phase["examples"] == []


def test_damage_that_is_served_without_a_word_is_found(tmp_path):
    status, report, _ = crashtest(
        # With this seed the file is cut in the first copy of one store, and removed in the other's.
        tmp_path, "--phases", "damage", "--rounds", 1, "--seed", 27, "--command",
        FORGETFUL + " --careless", "--endpoint", ENDPOINT)
    phase = phase_of(report, "damage")
    assert status == 1 and phase["counts"]["lost"] > 0, report
    assert phase["counts"]["setAside"] == 0, "it names nothing"
    assert any("removed log" in example for example in phase["examples"])
    assert any("lost without a word" in example for example in phase["examples"])


@pytest.mark.parametrize("mode,lost", [("", True), (" --eager", False)])
def test_answers_before_the_write_are_found_by_kills(tmp_path, mode, lost):
    status, report, _ = crashtest(
        tmp_path, "--phases", "kill", "--kills", 3, "--command", FORGETFUL + mode,
        "--endpoint", ENDPOINT)
    counts = phase_of(report, "kill")["counts"]
    assert status == (1 if lost else 0), report
    assert (counts["lost"] > 0) == lost
    assert counts["unknown"] == 0
    assert ("kept" in report) == lost, "what was lost is kept for people to look at"


def test_answers_before_the_sync_are_found_by_power_cuts_alone(tmp_path):
    status, report, _ = crashtest(
        tmp_path, "--phases", "kill,power", "--kills", 3, "--rounds", 2, "--durability", "written")
    assert report["durability"].startswith("written")
    kill = phase_of(report, "kill")["counts"]
    assert (kill["lost"], kill["resurrected"], kill["unknown"]) == (0, 0, 0)
    power = phase_of(report, "power")
    assert power["counts"]["lost"] > 0, report
    assert status == 1


def test_a_failed_sync_that_is_ignored_is_found_by_faults_alone(tmp_path):
    status, report, _ = crashtest(
        tmp_path, "--phases", "power,faults", "--rounds", 3, "--command",
        FORGETFUL + " --careless", "--endpoint", ENDPOINT)
    power = phase_of(report, "power")["counts"]
    assert (power["lost"], power["resurrected"], power["unknown"]) == (0, 0, 0), report
    faults = phase_of(report, "faults")
    assert faults["faults"] > 0 and faults["counts"]["lost"] > 0, report
    assert status == 1


def test_a_server_that_never_answers_is_no_pass(tmp_path):
    done = subprocess.run(
        [*COMMAND, "crashtest", "--directory", str(tmp_path), "--phases", "kill", "--kills", "1",
         "--command", "echo no server here; exit 3", "--endpoint", ENDPOINT],
        capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0
    assert "ended with status 3: no server here" in done.stdout


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_reports(tmp_path, by):
    command = [*COMMAND, "crashtest", "--json", "--directory", str(tmp_path), "--rounds", "1000",
               "--phases", "power" if os.geteuid() == 0 else "kill", "--kills", "1000"]
    with open(tmp_path / "said", "w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            # The first server is up when its log says so.
            wait_until(lambda: any(
                "listening" in log.read_text() for log in tmp_path.glob("penstock-*/*.log")
            ) or process.poll() is not None, "a server runs")
            process.send_signal(by)
            out, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            process.wait()
    report = json.loads(out)
    if all("skipped" in phase for phase in report["phases"]):
        pytest.skip(report["phases"][0]["skipped"])
    assert process.returncode == 2 and report["interrupted"], report
    assert report["totals"]["lost"] == 0
    assert not mounts_below(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


@pytest.mark.parametrize("options,text", [
    (["--kills", "0"], "--kills must be from 1"),
    (["--phases", "fire"], "fire"),
    (["--command", "true"], "belong together"),
    (["--directory", "/nowhere/at/all"], "make it first"),
    (["--frobnicate"], "--frobnicate"),
])
def test_wrong_flags_say_what_to_do(options, text):
    done = subprocess.run([*COMMAND, "crashtest", *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ") and text in done.stderr
    assert done.stdout == ""
