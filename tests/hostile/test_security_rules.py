"""Each security rule and the tests that hold it; and those that no other room has."""

from __future__ import annotations

import ast
import importlib.metadata
import json
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from otel_amplitude import Amplitude, Config
from otel_amplitude.errors import TransportError
from otel_amplitude.identity._resolver import IdentityResolver
from otel_amplitude.testing import FakeTransport, answer
from otel_amplitude.transport import Request, RequestsTransport, Response

TESTS = Path(__file__).parent.parent
HERE = "hostile/test_security_rules.py"
KEY = "0123456789abcdef0123456789abcdef"

# The sandbox's own rules (pages, Host, Origin, limits) stand with its tests.
RULES: dict[str, list[str]] = {
    "S1 secrets in logs, reprs and tracebacks": [
        "test_client.py::test_the_key_is_in_no_log_line_and_no_repr",
        "test_log.py::test_secrets_are_hidden_wherever_they_stand",
        "test_config.py::test_the_secret_is_never_shown",
        "test_transport.py::test_neither_request_nor_response_shows_its_content",
        "telemetry/test_logs.py::test_the_key_is_hidden_wherever_a_server_puts_it",
        f"{HERE}::test_what_on_retry_gets_leads_to_no_frame_with_the_key",
    ],
    "S2 redirects": [
        "test_transport.py::test_a_redirect_is_not_followed",
        "test_transport.py::test_a_redirect_with_an_endless_body_is_not_read",
    ],
    "S3 TLS": [
        "test_transport.py::test_old_tls_is_refused",
        "test_transport.py::test_an_unknown_authority_is_refused",
        "test_transport.py::test_a_certificate_for_another_name_is_refused",
        "test_options.py::test_plain_http_needs_a_word",
    ],
    "S4 credentials of the environment": [
        "test_transport.py::test_netrc_is_not_read",
        "test_transport.py::test_the_proxy_of_the_environment_is_used",
    ],
    "S5 the server URL": ["test_config.py::test_a_wrong_value_is_refused_with_option_rule_and_value"],
    "S6 huge answers": [
        "test_transport.py::test_an_endless_body_is_cut",
        "test_transport.py::test_a_compressed_answer_is_not_unpacked",
        "test_faults.py::test_every_event_arrives_after_a_fault",
    ],
    "S7 odd JSON in answers": [
        "test_transport.py::test_only_a_small_flat_json_object_is_one",
        "test_transport.py::test_no_bytes_make_json_raise",
        "wire/test_answers.py::test_every_answer_gives_one_outcome_for_each_parcel",
    ],
    "S8 modes on disk": ["delivery/test_spool_directory.py::test_modes_do_not_depend_on_the_umask"],
    "S9 links and squatting": [
        "delivery/test_spool_directory.py::test_a_symbolic_link_is_refused",
        "delivery/test_spool_directory.py::test_a_directory_of_another_user_is_refused",
        "delivery/test_spool_directory.py::test_an_inner_link_is_not_followed",
        "delivery/test_spool_directory.py::test_planted_files_are_left_alone",
    ],
    "S10 planted content": [
        "delivery/test_segment.py::test_any_bytes_are_read_without_an_exception",
        "delivery/test_segment.py::test_planted_bytes_can_not_cost_minutes",
        "hostile/test_disks.py::test_planted_and_foreign_things_neither_stop_nor_are_sent",
    ],
    "S11 path traversal": [
        "delivery/test_spool_directory.py::test_names_come_from_host_pid_and_chance",
        "delivery/test_spool.py::test_a_fingerprint_is_eight_digits",
    ],
    "S12 data at rest": [
        "delivery/test_spool.py::test_no_secret_and_no_address_is_on_disk",
        "delivery/test_spool.py::test_expired_events_are_counted_not_given",
        "cli/test_spool.py::test_purge_of_a_user",
        "hostile/test_disks.py::test_nothing_on_disk_shows_the_key",
    ],
    "S13 log injection": ["test_log.py::test_a_line_stays_one_line", "test_log.py::test_safe_text_is_printable_and_short"],
    "S14 personal data by default": [
        "convert/test_tables.py::test_sensitive_names_are_known",
        "convert/test_spans.py::test_automatic_events_carry_the_table_only",
        "zero_code/test_privacy.py::test_no_secret_travels_or_is_logged",
    ],
    "S15 URLs": [
        "convert/test_tables.py::test_sensitive_names_are_known",
        "convert/test_spans.py::test_automatic_events_carry_the_table_only",
    ],
    "S16 identifiers from users": [
        "identity/test_resolver.py::test_any_input_gives_ids_amplitude_takes_or_a_reason",
        "identity/test_resolver.py::test_a_long_id_is_hashed",
        "delivery/test_dispatcher.py::test_too_many_held_ids_make_everyone_wait",
    ],
    "S17 slow patterns": [
        "identity/test_cookie.py::test_reading_is_linear",
        "convert/test_routes.py::test_a_hostile_template_costs_little",
    ],
    "S18 complexity of values": [
        "test_values.py::test_depth_is_cut_at_forty_levels",
        "test_values.py::test_lists_that_hold_one_another_many_times_end_soon",
        "test_values.py::test_a_mapping_without_end_ends",
        "test_values.py::test_a_hostile_mapping_costs_itself_only",
        "test_events.py::test_an_event_too_large_is_refused",
    ],
    "S19 always valid JSON": [
        "test_values.py::test_any_map_becomes_json_within_the_limits",
        "test_events.py::test_any_event_ends_in_json_or_in_a_reason",
    ],
    "S20 reserved names": [
        "convert/test_tables.py::test_names_of_others_are_not",
        f"{HERE}::test_an_attribute_can_not_become_a_key_of_the_envelope",
    ],
    "S28 floors of dependencies": [f"{HERE}::test_the_floors_are_those_without_known_holes"],
    "S30 hashes of ids": [
        "identity/test_resolver.py::test_hashes_are_keyed_by_process",
        "middleware/test_redact.py::test_with_a_secret_values_become_keyed_hashes",
        "middleware/test_redact.py::test_the_secret_does_not_show",
    ],
    "S31 variables of the environment": [
        "test_config.py::test_any_environment_is_taken_or_refused_by_name",
        "zero_code/test_hand_over.py::test_wrong_options_disable_us_and_nobody_else",
    ],
    "S32 signals and exit": [
        "test_exit.py::test_somebody_elses_handler_is_left_alone",
        "test_exit.py::test_a_dead_server_does_not_delay_the_end_beyond_its_limit",
        "test_exit.py::test_a_signal_inside_delivery_does_not_lock_up",
    ],
    "S27 templates": [f"{HERE}::test_text_of_a_user_is_never_a_template"],
}


@cache
def named_in(file: str) -> frozenset[str]:
    """The names of the tests in a file."""
    return frozenset(node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_tests(rule: str) -> None:
    """A test that holds a rule can not vanish unnoticed."""
    assert RULES[rule]
    for node in RULES[rule]:
        file, _, name = node.partition("::")
        assert name in named_in(file), node


def test_the_floors_are_those_without_known_holes() -> None:
    """requests 2.32.4 and urllib3 2.6.3 are the least versions that may be installed beside us."""
    texts = [Requirement(text) for text in importlib.metadata.requires("otel-amplitude") or ()]
    needed = {requirement.name: requirement.specifier for requirement in texts if requirement.marker is None}
    for name, good, bad in (("requests", "2.32.4", "2.32.3"), ("urllib3", "2.6.3", "2.6.2")):
        assert good in needed[name]
        assert bad not in needed[name]


def test_what_on_retry_gets_leads_to_no_frame_with_the_key() -> None:
    """A crash reporter shows the variables of each frame of a traceback, and one of them is the body with the key."""
    given: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        options = {"retry_timeouts": [0.0], "upload_interval": 0, "on_retry": lambda response, _attempt, _last: given.append(response)}
        amplitude = Amplitude(Config(KEY, server_url="http://127.0.0.1:9/2/httpapi", **options))
        amplitude.log_event({"event_type": "X", "user_id": "user-12345"}, timeout=20)
        amplitude.shutdown(1)
    (error,) = given
    while isinstance(error, BaseException):
        assert error.__traceback__ is None
        assert KEY not in str(error) + repr(error.__dict__)
        error = error.__cause__ or error.__context__
    with pytest.raises(TransportError) as raised:
        RequestsTransport().send(Request("http://127.0.0.1:9/", {}, KEY.encode(), 1.0))
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_an_attribute_can_not_become_a_key_of_the_envelope() -> None:
    """Whatever an application, or its user, calls a property, it stays inside `event_properties`."""
    bodies: list[bytes] = []

    def keep(request: Request) -> Response:
        bodies.append(request.body)
        return answer(200)

    amplitude = Amplitude(Config(KEY, transport=FakeTransport(keep), upload_interval=0, compression="none"))
    nasty = {"api_key": "mine", "insert_id": "mine", "events": [], "user_id": "mine", "__proto__": 1, '"}],"api_key":"mine': 1, "$set": 1}
    amplitude.log_event({"event_type": '"}],"x":"', "user_id": "user-12345", "event_properties": nasty})
    assert amplitude.shutdown(20)
    envelope = json.loads(*bodies)
    assert set(envelope) <= {"api_key", "events", "options"}
    assert envelope["api_key"] == KEY
    (event,) = envelope["events"]
    assert event["user_id"] == "user-12345"
    assert event["insert_id"] != "mine"
    assert event["event_type"] == '"}],"x":"'


@pytest.mark.parametrize("text", ["{id}{0.__class__}", "%s%n%(key)s", "{", "${HOME}", "\\g<0>"])
def test_text_of_a_user_is_never_a_template(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither an id, nor what a server says, is expanded by anything."""

    def echo(_request: Request) -> Response:
        return answer(400, error=text, missing_field="time")

    amplitude = Amplitude(Config(KEY, transport=FakeTransport(echo), upload_interval=0, user_id_format="user-{id}"))
    result = amplitude.log_event({"event_type": text, "user_id": f"user-{text}"}, timeout=20)
    amplitude.shutdown(1)
    assert result.outcome == "rejected"
    assert result.event["event_type"] == text
    assert text in caplog.text
    resolver = IdentityResolver(KEY, user_id_format="user-{id}")
    assert resolver.resolve({"enduser.id": text}, None).user_id in (f"user-{text}", None)
