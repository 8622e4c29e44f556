"""`otel-amplitude worker`: what it asks for before it starts, what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kafka_parts import KEY, Judge, Quiet, event, need_confluent

from otel_amplitude.cli._main import main
from otel_amplitude.cli.worker import _until_signal

VARIABLES = ("OTEL_EXPORTER_AMPLITUDE_API_KEY", "AMPLITUDE_API_KEY", "OTEL_EXPORTER_AMPLITUDE_SPOOL_DIR")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES[1:]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLES[0], KEY)


@pytest.fixture
def cluster() -> tuple[Any, str]:
    """Three brokers in this process, with both topics."""
    kafka = need_confluent()
    made = kafka.Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "x", "partitioner": "murmur2_random"}, logger=Quiet())
    for topic in ("amplitude_events", "amplitude_dead"):
        made.list_topics(topic, timeout=5)
    return made, ",".join(f"{broker.host}:{broker.port}" for broker in made.list_topics(timeout=5).brokers.values())


def run(*words: str) -> int:
    return main(["worker", *words])


def test_without_a_broker_it_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Three ways."""
    assert run() == 3
    assert "no broker is named; give --brokers HOST:9092" in capsys.readouterr().err


def test_without_a_key_it_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In the environment or in a file, never in an argument."""
    monkeypatch.delenv(VARIABLES[0])
    assert run("--brokers", "127.0.0.1:1") == 3
    said = capsys.readouterr().err
    assert f"set {VARIABLES[0]}" in said
    assert "--api-key-file FILE" in said
    assert run("--brokers", "127.0.0.1:1", "--option", f"api_key={KEY}") == 3
    assert KEY not in capsys.readouterr().err


def test_a_secret_in_an_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """And not repeated."""
    assert run("--brokers", "127.0.0.1:1", "--kafka", "sasl.password=hunter2") == 3
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "OTEL_AMPLITUDE_KAFKA_SASL_PASSWORD" in said


def test_a_spool_is_refused_since_the_topic_keeps_the_events(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the variable to unset."""
    monkeypatch.setenv(VARIABLES[2], "/var/spool/amplitude")
    assert run("--brokers", "127.0.0.1:1") == 3
    assert f"the topic keeps the events; unset {VARIABLES[2]}" in capsys.readouterr().err


def test_the_topic_of_dead_letters_is_not_the_one_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """It would never end."""
    assert run("--brokers", "127.0.0.1:1", "--topic", "amplitude_dead") == 3
    assert "give another one, such as --dead-topic amplitude_dead_again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("--max-pending", "5"), ("--rate", "0"), ("--rate", "nan"), ("--until-idle", "-1"), ("--max-pending", "many")], ids=" ".join
)
def test_numbers_are_checked(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The rule is in the message."""
    with pytest.raises(SystemExit) as end:
        run("--brokers", "127.0.0.1:1", *words)
    assert end.value.code == 2
    assert "must be a number from" in capsys.readouterr().err


def test_absent_topics_end_it_with_the_lines_that_create_them(capsys: pytest.CaptureFixture[str]) -> None:
    """One for each."""
    kafka = need_confluent()
    empty = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x"}, logger=Quiet())
    (broker,) = empty.list_topics(timeout=5).brokers.values()
    assert run("--brokers", f"{broker.host}:{broker.port}") == 3
    said = capsys.readouterr().err
    for topic in ("amplitude_events", "amplitude_dead"):
        assert f"kafka-topics.sh --bootstrap-server {broker.host}:{broker.port} --create --topic {topic}" in said
    assert empty.list_topics(timeout=5).topics == {}


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_it_delivers_what_is_there_and_ends_when_it_is_idle(
    cluster: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the key in a file; the result as JSON, and where the dead letter is in words."""
    monkeypatch.delenv(VARIABLES[0])
    (tmp_path / "key").write_text(f"{KEY}\n")
    producer, brokers = cluster
    for number in range(50):
        producer.produce("amplitude_events", event(number, f"user-{number % 5}"), f"user-{number % 5}")
    producer.flush(10)
    words = ("--brokers", brokers, "--api-key-file", str(tmp_path / "key"), "--until-idle", "1", "--kafka", "session.timeout.ms=6000")
    with Judge() as judge:
        assert run(*words, "--option", f"server_url={judge.url}", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (len(judge.seen), found["settled"], found["pending"], sum(found["lag"].values())) == (50, 50, 0, 0)
        producer.produce("amplitude_events", b"poison", "k")
        producer.flush(10)
        assert run(*words, "--option", f"server_url={judge.url}") == 1
    said = capsys.readouterr().err
    assert "1 record written to amplitude_dead (not_json 1)" in said
    assert "worker --topic amplitude_dead --dead-topic amplitude_dead_again --until-idle 30" in said
    assert KEY not in said


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_it_ends_within_seconds_although_the_brokers_do_not_answer(tmp_path: Path) -> None:
    """Leaving the group would wait without end."""
    from kafka_parts import Broker, WorkerProcess, events, wait_until

    need_confluent()
    with Broker() as broker, Judge() as judge:
        broker.make(amplitude_events=2, amplitude_dead=1)
        broker.produce("amplitude_events", events(50, users=5))
        worker = WorkerProcess(broker.address, judge.url, folder=tmp_path)
        try:
            wait_until(lambda: len(judge.seen) == 50, 45)
            broker.stop()
            worker.process.terminate()
            code, _, _ = worker.result(45)
        finally:
            broker.go_on()
            worker.end()
    assert code == 0


def test_the_second_signal_ends_it_as_if_it_was_not_there() -> None:
    """The first one only asks."""
    before = signal.getsignal(signal.SIGTERM)
    with _until_signal() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before


def test_its_help_has_examples_without_the_package() -> None:
    """Only a worker that starts needs the extra."""
    code = (
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from otel_amplitude.cli._main import main\n"
        "import os; os.environ['OTEL_EXPORTER_AMPLITUDE_API_KEY'] = '0' * 32\n"
        "code = main(['worker', '--brokers', '127.0.0.1:1']); print(code)\n"
        "main(['worker', '--help'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout.startswith("3\n")
    assert "otel-amplitude worker --brokers broker1:9092,broker2:9092" in ran.stdout
    assert 'pip install "otel-amplitude[kafka]"' in ran.stderr
