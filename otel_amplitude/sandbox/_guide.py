"""How a service is made to send its events here: the steps that the page and the command line show, for each framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_amplitude.sandbox._contract import Json

# One key wherever one is shown. It has the form of a real one, and any key will do here.
KEY = "0123456789abcdef0123456789abcdef"
_PORT = "8010"  # where `run` looks for a sandbox


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework.

    Attributes:
        title: as its users write it.
        extra: the extra of `otel-amplitude` that brings the instrumentation; empty where none is needed.
        start: the command that starts the service.
        user: the code that says who is logged in.
        where: where that code belongs.
        environment: variables that the service needs.
    """

    title: str
    extra: str
    start: str
    user: str
    where: str
    environment: tuple[tuple[str, str], ...] = ()


FRAMEWORKS = (
    Framework(
        "Flask",
        "flask",
        "flask --app shop run",
        "otel_amplitude.set_user(session['customer'])",
        "in a function with @app.before_request",
    ),
    Framework(
        "FastAPI",
        "fastapi",
        "uvicorn shop:app",
        "otel_amplitude.set_user(user.id)",
        "in the dependency that finds the user",
    ),
    Framework(
        "Django",
        "django",
        "python manage.py runserver",
        "MIDDLEWARE += ['otel_amplitude.frameworks.django.AmplitudeMiddleware']",
        "at the end of the settings",
        (("OTEL_EXPORTER_AMPLITUDE_USER_ID_FORMAT", "user-{id}"),),
    ),
    Framework(
        "Starlette",
        "starlette",
        "uvicorn shop:app",
        "otel_amplitude.set_user(request.user.id)",
        "in the endpoint",
    ),
    Framework(
        "aiohttp",
        "aiohttp",
        "python shop.py",
        "otel_amplitude.set_user(request['user'])",
        "in the handler, or in a middleware of the application",
    ),
    Framework(
        "Celery",
        "celery",
        "celery --app shop worker",
        "otel_amplitude.get_instance().log_event({'event_type': 'Invoice Sent', 'user_id': user_id})",
        "in the task: a task is no request, so it names its event",
    ),
    Framework(
        "Script",
        "",
        "python shop.py",
        "otel_amplitude.get_instance().log_event({'event_type': 'Report Built', 'user_id': 'u-12345'})",
        "after otel_amplitude.configure()",
    ),
)


def guide(url: str) -> Json:
    """Give the steps for each framework, for a sandbox at `url`."""
    return {"key": KEY, "frameworks": [_steps(framework, url) for framework in FRAMEWORKS]}


def _steps(framework: Framework, url: str) -> Json:
    port = url.rpartition(":")[2]
    words = "" if port == _PORT else f"--port {port} "
    return {
        "title": framework.title,
        "install": f"pip install 'otel-amplitude[{framework.extra}]'" if framework.extra else "pip install otel-amplitude",
        "environment": [f"export {name}={value}" for name, value in framework.environment],
        "start": f"otel-amplitude run --sandbox {words}-- {framework.start}",
        "user": framework.user,
        "where": framework.where,
    }
