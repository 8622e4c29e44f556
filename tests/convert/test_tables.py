"""The tables against what OpenTelemetry itself publishes."""

import importlib
import pkgutil
from collections.abc import Iterator

import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
import pytest

from otel_amplitude.convert import _tables as tables


def registered() -> Iterator[str]:
    """Every attribute name in the installed semantic conventions."""
    for package in (stable, incubating):
        for module in pkgutil.iter_modules(package.__path__):
            names = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
            yield from (value for name, value in names.items() if name.isupper() and isinstance(value, str))


def test_no_registered_attribute_is_an_applications_own() -> None:
    """Semantic conventions reach Amplitude by the fixed table only; `state` is a word too common to be taken."""
    assert {name for name in registered() if tables.is_own(name)} <= {"state"}


@pytest.mark.parametrize("name", ["cart.total", "total", "app.theme", "http", "user", "httpx.kind", "orders.user.count"])
def test_what_applications_name_themselves_is_their_own(name: str) -> None:
    """A namespace is a first word before a dot."""
    assert tables.is_own(name)


@pytest.mark.parametrize(
    "name", ["$set", "[Amplitude] Country", "[Agent] Cost", "amplitude.user_id", "app.installation.id", "celery.state"]
)
def test_names_of_others_are_not(name: str) -> None:
    """Amplitude's names and telemetry are nobody's own."""
    assert not tables.is_own(name)


SENSITIVE = """password userPassword PASSWD client_secret access_token token csrf-token Authorization proxy_authorization cookie set_cookie
email e-mail customer.email phone phone_number mobile_phone card card.number credit_card cardNumber cvv iban ssn api_key apiKey x-api-key
private_key access.key first_name lastName full_name date_of_birth birthday street_address ip_address jwt pin otp session_credentials
http.url http.target url.full url.query url.path http.request.header.cookie http.response.header.set_cookie http.request.body.text
user.id user.name enduser.id session.id client.address net.peer.ip network.peer.address user_agent.original exception.message
exception.stacktrace db.statement db.query.text db.query.parameter.0 gen_ai.input.messages llm.prompts process.command_args
process.command_line graphql.document rpc.grpc.request.metadata.x query_string stacktrace
prompt chat.prompts userPrompt ip visitor_ip clientIp IPAddress login.ips ipv4 remote_addr address shipping.address BillingAddress addresses
account_number bankAccountNumber account.no accountNr tax_id customerTaxId tax-number""".split()
HARMLESS = """total cart.items discard microphone headphones company companion pinned cardinality tokens_used http.route http.request.method
url.scheme user_agent.name db.system.name error.type order.discount scorecard passenger mailbox author compass
zip tip.amount shipping ship_to recipe promptly account account_notes account.normal taxi.distance taxidermy syntax_id tax.total
server.address k8s.pod.ip host.ip network.local.address mcp.prompt.name""".split()


@pytest.mark.parametrize("name", SENSITIVE)
def test_sensitive_names_are_known(name: str) -> None:
    """Secrets, and what is about a person, by name (security rules S14 and S15)."""
    assert tables.is_sensitive(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_pass(name: str) -> None:
    """A word inside another word is no reason."""
    assert not tables.is_sensitive(name)


@pytest.mark.parametrize(
    ("name", "is_registered"),
    [
        *[(name, True) for name in ("gen_ai.client.inference.operation.details", "exception", "session.start", "feature_flag.evaluation")],
        *[(name, True) for name in ("app.crash", "browser.web_vital")],
        *[(name, False) for name in ("Signed Up", "application.started", "order.paid")],
    ],
)
def test_registered_event_names_are_telemetry(name: str, is_registered: bool) -> None:
    """Log records under OpenTelemetry's own names are no product events."""
    assert (tables.REGISTERED_EVENTS.match(name) is not None) is is_registered
