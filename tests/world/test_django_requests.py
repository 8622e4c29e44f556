"""Django: what runs outside of all middleware, and bodies that stream after the view, belong to their request."""

from __future__ import annotations

from pathlib import Path

from world import fresh

SITE = """
import asyncio, os, sys, warnings
import otel_amplitude
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing import FakeTransport
KEY = "0" * 32
sent = FakeTransport()
import django
from django.conf import settings
MIDDLEWARE = []
if not os.environ.get("DJANGO_SETTINGS_MODULE"):
    settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", MIDDLEWARE=MIDDLEWARE)
from django.core.signals import request_finished, request_started
from django.http import StreamingHttpResponse
from django.urls import path
from opentelemetry.instrumentation.django import DjangoInstrumentor
def note(name):
    client.log_event({"event_type": name})
def synchronous(get_response):
    return lambda request: get_response(request)
def page(request):
    said = dict(request.GET.items())
    def body():
        note("Begun")
        yield "a"
        if "late" in said:
            otel_amplitude.set_user(said["late"])
        yield "b"
        note("Streamed")
    async def steps():
        for part in body():
            await asyncio.sleep(0)
            yield part
    if "user" in said:
        otel_amplitude.set_user(said["user"])
    return StreamingHttpResponse(steps() if hasattr(request, "scope") else body())
urlpatterns = [path("s", page), path("excluded/s", page)]
"""

WSGI = """
client = otel_amplitude.configure(KEY, transport=sent, upload_interval=0.05, log_level="NONE")
request_finished.connect(lambda **_: note("Finished"), weak=False)
os.environ["OTEL_PYTHON_DJANGO_EXCLUDED_URLS"] = "excluded"
DjangoInstrumentor().instrument()
from django.core.wsgi import get_wsgi_application
from werkzeug.test import EnvironBuilder
application = get_wsgi_application()
def visit(url, device):
    body = application(EnvironBuilder(url, headers={"Cookie": make_cookie(KEY, device)}).get_environ(), lambda *_: None)
    list(body)
    body.close()
for folder in ("", "/excluded"):
    visit(folder + "/s?late=alice-1", "device-a")
    visit(folder + "/s?user=bob-123", "device-b")
    visit(folder + "/s", "device-c")
note("Between")
client.flush(5)
print([(e["event_type"][0], e["device_id"][-1], e.get("user_id", "-")) for e in sent.events if e["event_type"] != "HTTP Request"])
"""


def test_bodies_and_signals_under_wsgi() -> None:
    """elastic/apm-agent-python#201, sentry-python#177: without any glue, traced or excluded; what was said late is not the next visitor's."""
    of_one = [("B", "a", "-"), ("S", "a", "alice-1"), ("F", "a", "alice-1")]
    of_two = [(name, "b", "bob-123") for name in "BSF"]
    of_three = [(name, "c", "-") for name in "BSF"]
    # "Between" is refused: it has no request.
    assert fresh.run(SITE + WSGI) == f"{(of_one + of_two + of_three) * 2}\n"


ASGI = """
from otel_amplitude.otel._components import AmplitudeSpanExporter, take_over
from otel_amplitude.otel._instrumentor import AmplitudeInstrumentor
client = AmplitudeSpanExporter(KEY, transport=sent, upload_interval=0.05, log_level="NONE").client
take_over()
for instrumentor in ORDER:
    instrumentor().instrument()
print(sorted(name.rpartition(".")[2] for name in settings.MIDDLEWARE))
from django.core.asgi import get_asgi_application
application = get_asgi_application()
async def visit(number):
    user = f"user-{number}"
    query = f"{'user' if number % 2 else 'late'}={user}".encode()
    scope = {"type": "http", "asgi": {"version": "3.0"}, "method": "GET", "path": "/s", "raw_path": b"/s", "root_path": "", "scheme": "http",
             "query_string": query, "headers": [(b"host", b"x"), (b"cookie", make_cookie(KEY, f"device-{number}").encode())],
             "server": ("x", 80), "client": ("c", 1), "http_version": "1.1"}
    first = [{"type": "http.request", "body": b"", "more_body": False}]
    async def receive():
        return first.pop() if first else await asyncio.sleep(3600)
    async def send(message):
        await asyncio.sleep(0)
    await application(scope, receive, send)
async def main():
    await asyncio.gather(*(visit(number) for number in range(30)))
asyncio.run(main())
client.flush(5)
streamed = [e for e in sent.events if e["event_type"] == "Streamed"]
print(len(streamed), all(e["user_id"].removeprefix("user-") == e["device_id"].removeprefix("device-") for e in streamed))
"""


def test_bodies_under_asgi_with_zero_code(tmp_path: Path) -> None:
    """contrib#4681, sentry-python#3736: Django's signals run in other tasks there, so our instrumentor adds a middleware, as OpenTelemetry's does."""
    site = tmp_path / "site_settings.py"
    for order, own in (("[AmplitudeInstrumentor, DjangoInstrumentor]", ""), ("[DjangoInstrumentor, AmplitudeInstrumentor]", "synchronous")):
        # A synchronous middleware makes all others around it synchronous.
        middleware = [f"__main__.{own}"] if own else []
        site.write_text(f'SECRET_KEY = "x"\nALLOWED_HOSTS = ["*"]\nROOT_URLCONF = "__main__"\nMIDDLEWARE = {middleware}\n')
        out = fresh.run(SITE + ASGI.replace("ORDER", order), DJANGO_SETTINGS_MODULE="site_settings", PYTHONPATH=str(tmp_path))
        assert out == f"{sorted(['ScopeMiddleware', '_DjangoMiddleware', *([own] if own else [])])}\n30 True\n"
