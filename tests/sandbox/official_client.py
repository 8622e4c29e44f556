"""Amplitude's own Python client, unchanged, against the URL given: one event, one identify, one group; ends when all have arrived."""

import sys
import threading

from amplitude import Amplitude, BaseEvent, EventOptions, Identify

arrived = threading.Semaphore(0)
client = Amplitude("some-key")
client.configuration.server_url = sys.argv[1]
client.configuration.flush_interval_millis = 10
client.configuration.callback = lambda _event, code, _message: arrived.release() if code == 200 else None
person = EventOptions(user_id="customer-py", device_id="device-py")
client.track(BaseEvent("Python", user_id="customer-py", device_id="device-py", event_properties={"n": 1}))
client.identify(Identify().set("plan", "pro").add("orders", 2), person)
client.group_identify("org", "python", Identify().set("size", 5), person)
# Not shutdown() at once: this client forgets what waits for a retry when the program ends.
for _ in range(3):
    if not arrived.acquire(timeout=20):
        sys.exit("not everything arrived")
client.shutdown()
