"""How a service is made to send its events here: the steps that the page and the command line show, for each framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_amplitude.sandbox._contract import Json

# One key wherever one is shown. It has the form of a real one, and any key will do here.
KEY = "0123456789abcdef0123456789abcdef"
_NAME = "OTEL_EXPORTER_AMPLITUDE_"


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework.

    Attributes:
        title: as its users write it.
        packages: what pip installs beside `otel-amplitude` and the framework.
        start: the command that starts the service.
        user: the code that says who is logged in.
        where: where that code belongs.
        environment: more variables.
    """

    title: str
    packages: tuple[str, ...]
    start: str
    user: str
    where: str
    environment: tuple[tuple[str, str], ...] = ()


def _instrumentation(name: str) -> tuple[str, ...]:
    return ("opentelemetry-distro", f"opentelemetry-instrumentation-{name}")


FRAMEWORKS = (
    Framework(
        "Flask",
        _instrumentation("flask"),
        "opentelemetry-instrument flask --app shop run",
        "otel_amplitude.set_user(session['customer'])",
        "in a function with @app.before_request",
    ),
    Framework(
        "FastAPI",
        _instrumentation("fastapi"),
        "opentelemetry-instrument uvicorn shop:app",
        "otel_amplitude.set_user(user.id)",
        "in the dependency that finds the user",
    ),
    Framework(
        "Django",
        _instrumentation("django"),
        "opentelemetry-instrument python manage.py runserver --noreload",
        "MIDDLEWARE += ['otel_amplitude.frameworks.django.AmplitudeMiddleware']",
        "at the end of the settings",
        (("DJANGO_SETTINGS_MODULE", "shop.settings"), (f"{_NAME}USER_ID_FORMAT", "user-{id}")),
    ),
    Framework(
        "Starlette",
        _instrumentation("starlette"),
        "opentelemetry-instrument uvicorn shop:app",
        "otel_amplitude.set_user(request.user.id)",
        "in the endpoint",
    ),
    Framework(
        "aiohttp",
        _instrumentation("aiohttp-server"),
        "opentelemetry-instrument python shop.py",
        "otel_amplitude.set_user(request['user'])",
        "in the handler, or in a middleware of the application",
    ),
    Framework(
        "Celery",
        _instrumentation("celery"),
        "opentelemetry-instrument celery --app shop worker",
        "otel_amplitude.get_instance().log_event({'event_type': 'Invoice Sent', 'user_id': user_id})",
        "in the task: a task is no request, so it names its event",
    ),
    Framework(
        "Script",
        (),
        "python shop.py",
        "otel_amplitude.get_instance().log_event({'event_type': 'Report Built', 'user_id': 'u-12345'})",
        "after otel_amplitude.configure()",
    ),
)


def guide(url: str) -> Json:
    """Give the steps for each framework, for a sandbox at `url`."""
    return {"key": KEY, "frameworks": [_steps(framework, f"{url}/2/httpapi") for framework in FRAMEWORKS]}


def _steps(framework: Framework, upload: str) -> Json:
    packages = " ".join(("otel-amplitude", *framework.packages))
    return {
        "title": framework.title,
        "install": f"pip install {packages}",
        "environment": [f"export {name}={value}" for name, value in environment(framework, upload)],
        "start": framework.start,
        "user": framework.user,
        "where": framework.where,
    }


def environment(framework: Framework, upload: str) -> list[tuple[str, str]]:
    """Give the variables that a service needs, with what each has by default left out."""
    zero_code = (
        ("OTEL_TRACES_EXPORTER", "amplitude"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "amplitude_parentbased_always_on"),
    )
    return [
        *(zero_code if framework.packages else ()),
        ("OTEL_SERVICE_NAME", "shop"),
        (f"{_NAME}API_KEY", KEY),
        (f"{_NAME}SERVER_URL", upload),
        *framework.environment,
    ]
