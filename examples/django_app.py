"""A Django site in one file: the user who is logged in comes from one line in MIDDLEWARE.

OTEL_EXPORTER_AMPLITUDE_API_KEY=… python django_app.py 127.0.0.1:8000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor

import otel_amplitude

otel_amplitude.configure(user_id_format="user-{id}", flush_on_sigterm=True)  # a primary key 1 is the browser's user-1
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="of the example",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(tempfile.mkdtemp()) / "db.sqlite3"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "otel_amplitude.frameworks.django.AmplitudeMiddleware",
    ],
)
DjangoInstrumentor().instrument()
django.setup()


def log_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    login(request, user)
    return HttpResponse("welcome\n")


def order(request: HttpRequest, number: int) -> HttpResponse:
    otel_amplitude.set_user(request.user.pk)  # the middleware tells after the view; the span in it ends before
    with trace.get_tracer("shop").start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "order.number": number})
    return HttpResponse(f"{request.user.get_username()} paid order {number}\n")


urlpatterns = [path("login", log_in), path("orders/<int:number>", order)]

if __name__ == "__main__":
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0)
    User.objects.create_user("alice", password="wonderland")
    call_command("runserver", sys.argv[1], use_reloader=False, skip_checks=True)
