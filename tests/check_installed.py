"""Run by `nox -s package` in an environment that holds nothing but the wheel: does what was installed work?"""

from __future__ import annotations

import importlib.util
from importlib.metadata import distribution, version
from pathlib import Path

import otel_amplitude

assert otel_amplitude.__version__ == version("otel-amplitude")
folder = Path(otel_amplitude.__file__).parent
assert "site-packages" in folder.parts, folder
for needed in ("py.typed", "sandbox/page/index.html"):
    assert (folder / needed).is_file(), needed

for name in otel_amplitude.__all__:
    getattr(otel_amplitude, name)

ours = list(distribution("otel-amplitude").entry_points)
assert len(ours) >= 10, ours
for point in ours:
    optional = point.group in ("opentelemetry_instrumentor", "pytest11")
    needed_module = {"opentelemetry_instrumentor": "opentelemetry.instrumentation", "pytest11": "pytest"}.get(point.group, "")
    if optional and importlib.util.find_spec(needed_module) is None:
        continue
    point.load()

metadata = distribution("otel-amplitude").metadata
assert metadata["License-Expression"] == "Apache-2.0"
assert set(metadata.get_all("Provides-Extra") or ()) == {"fast", "cli", "otlp"}

amplitude = otel_amplitude.init("0123456789abcdef0123456789abcdef", dry_run=True)
assert amplitude.log_event({"event_type": "Installed", "user_id": "u-12345"}, timeout=5).outcome == "acknowledged"
assert amplitude.shutdown()
print(f"otel-amplitude {otel_amplitude.__version__}: {len(ours)} entry points work")
