"""The environment variables of every option, for the command line of `opentelemetry-instrument`.

Each constant becomes an option there: `--exporter_amplitude_server_zone`. The API key is left out, since command lines can be
seen by other users of the machine.
"""

from __future__ import annotations

from otel_amplitude.config import environment_variable, options

globals().update(
    {variable: variable for variable in map(environment_variable, options()) if variable and not variable.endswith(("API_KEY", "HEADERS"))}
)
