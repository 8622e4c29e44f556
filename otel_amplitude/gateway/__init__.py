"""A server that takes OTLP over HTTP from SDKs of any language and Collectors, and delivers product events to Amplitude.

Theory of operation
===================

    socket ─► server: one thread for each connection ─► body: chunks and gzip, within limits
                                                          └► intake: request in, answer out
    intake:  items of the request (convert) ─► trace memory: note ids and opt-outs
                                            ─► select items that may be events, read them whole
                                            ─► reserve room for all of them
                                            ─► reader ─► client ─► exporter (spool)  ─► answer

The promise. 200 means that every event of the request is where `--answer` says: on disk, in memory, or acknowledged by Amplitude. Any
other state is 503, and the sender sends the request again. That is safe, because `insert_id` is a function of what was recorded.

Rules that must hold:

* Room for the whole request is reserved before its first event is made. Otherwise a full queue accepts half of a request, and each
  retry of the sender repeats that half.
* Overload is answered by 503 with `Retry-After`, never by 408, 429 or 500: some SDKs give up on those.
* Nothing that a sender writes takes more memory than the limits of `limits.Limits` say. Decoded bytes of all requests together are counted
  by one `limits.Budget`.
* Each item is parsed on its own, so an item that can not be read costs itself and is reported as rejected (partial success).
* Identity is read from attributes alone, since no request scope arrives over OTLP. `traces.TraceMemory` states what is attributed.

Threads. Each connection has a thread of its own; all of them call one `Intake`, which holds no lock while it converts. What is shared has
its own lock: `Budget`, `TraceMemory`, `Counters`, the known resources. Which events a request caused, and what was refused of them, is
kept per thread by `exporter.PerRequest` while the request is read.

Only `intake` knows clients, only `server` knows sockets. A destination other than Amplitude is another `BatchExporter` behind `PerRequest`.
"""
