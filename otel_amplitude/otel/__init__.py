"""Where OpenTelemetry hands us its telemetry."""
