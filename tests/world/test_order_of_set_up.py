"""What an application sets up after configure() takes nothing away, or one line names the order."""

from __future__ import annotations

from world import fresh

PROGRAM = """
import logging, otel_amplitude
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing import FakeTransport
from opentelemetry import propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
lines = []
class Lines(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())
logging.getLogger().addHandler(Lines())
KEY = "0" * 32
sent = FakeTransport()
client = otel_amplitude.configure(KEY, transport=sent, upload_interval=0.05)
COOKIE = make_cookie(KEY, "device-1", "user-1234")
def seen():
    client.flush(5)
    replaced = [line for line in lines if line.startswith("propagator.replaced")]
    print([event.get("user_id") for event in sent.events], dict(client.stats().refused), len(replaced))
"""

FLASK = """
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
propagate.set_global_textmap(TraceContextTextMapPropagator())
app = Flask("shop")
FlaskInstrumentor().instrument_app(app)
app.add_url_rule("/", view_func=lambda: "ok")
for _ in range(2):
    app.test_client(use_cookies=False).get("/", headers={"Cookie": COOKIE})
propagate.set_global_textmap(TraceContextTextMapPropagator())
app.test_client(use_cookies=False).get("/", headers={"Cookie": COOKIE})
seen()
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from otel_amplitude.frameworks.starlette import AmplitudeMiddleware
propagate.set_global_textmap(TraceContextTextMapPropagator())
app = Starlette(routes=[Route("/s", lambda request: PlainTextResponse("x"))])
GLUE
StarletteInstrumentor.instrument_app(app)
for _ in range(2):
    TestClient(OUTER, headers={"Cookie": COOKIE}).get("/s")
seen()
"""


def test_a_propagator_that_is_set_later_loses_nothing_under_flask() -> None:
    """aws-otel-community#30, opentelemetry-python#4679, sentry-python#4408: a line of their instructions, further down; and once more."""
    assert fresh.run(PROGRAM + FLASK) == "['user-1234', 'user-1234', 'user-1234'] {} 1\n"


def test_a_propagator_that_is_set_later_loses_one_request_elsewhere() -> None:
    """Where the first request cannot be read any more, it is refused and counted, and the second is right."""
    program = PROGRAM + STARLETTE.replace("GLUE", "").replace("OUTER", "app")
    assert fresh.run(program) == "['user-1234'] {'no_identity': 1} 1\n"


def test_a_propagator_that_is_set_later_loses_nothing_with_the_glue() -> None:
    """The glue reads the headers itself, on either side of the instrumentation."""
    inside = STARLETTE.replace("GLUE", "app.add_middleware(AmplitudeMiddleware)").replace("OUTER", "app")
    around = STARLETTE.replace("GLUE", "").replace("OUTER", "AmplitudeMiddleware(app)")
    for program in (inside, around):
        assert fresh.run(PROGRAM + program) == "['user-1234', 'user-1234'] {} 1\n"


PROVIDER = """
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
for _ in range(2):
    trace.set_tracer_provider(TracerProvider())
    set_logger_provider(LoggerProvider())
print([line.split()[:2] for line in lines if line.startswith("provider.refused")])
"""


def test_a_provider_that_is_set_later_is_named() -> None:
    """opentelemetry-python#4679: the application's exporters see nothing, and OpenTelemetry only says that it is not allowed."""
    expected = [["provider.refused", "reason=TracerProvider"], ["provider.refused", "reason=LoggerProvider"]]
    assert fresh.run(PROGRAM + PROVIDER) == f"{expected}\n"


ABSENT = """
from opentelemetry import trace
propagate.set_global_textmap(TraceContextTextMapPropagator())
attributes = {"http.request.method": "GET", "http.route": "/a", "http.response.status_code": 200}
client.resolver.resolve(attributes, None)
print([("IDENTITY_HEADERS" in line, "set_global_textmap" in line) for line in lines if line.startswith("identity.missing")])
"""


def test_the_hint_does_not_advise_headers_that_are_not_read() -> None:
    """aws-otel-community#30: while our propagator is absent, identity_headers cannot work."""
    assert fresh.run(PROGRAM + ABSENT) == "[(False, True)]\n"
