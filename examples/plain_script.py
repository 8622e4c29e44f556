"""A script whose steps are spans: two of them are events, and one more is logged by hand.

OTEL_EXPORTER_AMPLITUDE_API_KEY=… python plain_script.py
"""

from __future__ import annotations

from opentelemetry import trace

import otel_amplitude

tracer = trace.get_tracer("importer")


def import_file(name: str, rows: int) -> None:
    with tracer.start_as_current_span("import file") as span:
        span.set_attribute("amplitude.event_type", "File Imported")
        span.set_attribute("import.rows", rows)  # an attribute of our own becomes a property
        span.set_attribute("import.password", "hunter2")  # one with a sensitive name does not
        with tracer.start_as_current_span("INSERT"):  # neither annotated nor a request: no event
            print(f"{name}: {rows} rows")


def main() -> None:
    amplitude = otel_amplitude.configure()
    otel_amplitude.set_user("u-12345", groups={"org": "acme"})
    import_file("customers.csv", 120)
    import_file("orders.csv", 3_400)
    amplitude.log_event({"event_type": "Import Finished", "event_properties": {"files": 2}})  # of the same user
    amplitude.identify("u-12345", None, otel_amplitude.Identify().add("imports", 2))
    amplitude.flush()  # at the end of the script it would be done anyway; now the counters say what arrived
    print(amplitude.stats())


if __name__ == "__main__":
    main()
