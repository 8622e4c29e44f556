"""How the files beside this one were made, with the code of commit 7135637: `PYTHONPATH=THAT_CODE python make.py FOLDER`.

Two processes that accept five events and are killed: none of `whole`'s was sent, two of `part`'s were acknowledged.
"""

from __future__ import annotations

import subprocess
import sys

APP = """
import os, signal, sys, time
from otel_amplitude import Amplitude, Config, Response
kind, folder = sys.argv[1:]
class Part:
    requests = 0
    def send(self, request):
        self.requests += 1
        if kind == "whole" or self.requests > 1:
            time.sleep(60)
        return Response(200, {}, b'{"code":200}')
    def close(self): pass
client = Amplitude(Config("0123456789abcdef0123456789abcdef", server_url="http://127.0.0.1:9/2/httpapi", spool="always", spool_dir=folder,
    transport=Part(), upload_interval=0.01, max_batch_events=2, max_in_flight=1, log_level="NONE"))
for number in range(5):
    assert client.log_event({"event_type": "Order Paid", "user_id": "user-12345", "device_id": f"device-{number % 2}",
        "insert_id": f"{kind}-{number}", "time": 1790000000000 + number, "event_properties": {"total": number, "text": "žluťoučký kůň"}}).accepted
while kind == "part" and client.stats().acknowledged < 2:
    time.sleep(0.01)
time.sleep(1.5)  # the low-water mark is written
os.kill(os.getpid(), signal.SIGKILL)
"""

for kind in ("whole", "part"):
    subprocess.run([sys.executable, "-c", APP, kind, f"{sys.argv[1]}/{kind}"], check=False)
