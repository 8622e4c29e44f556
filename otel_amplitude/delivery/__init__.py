"""Delivery: accepted events, in order, to exactly one end each; knows nothing of what they are sent to.

Theory of operation
===================

Problem. An event is *accepted* by a thread of the application, which must not wait. It must be sent in the order of its ids, survive faults
of server and disk, and be counted exactly once, also when the process is killed, forks, or ends.

The picture::

    application threads          worker (one thread)                    senders            server
    ───────────────────          ───────────────────                    ───────            ──────
    take ─► append lock ─► queue of segments ─► reader ─► dispatcher ─► batch ─► send ─► request
                 │         (memory or file)                  │    ▲                          │
                 └─ one write, with a spool                  │    └──── answer (a message) ◄─┘
                                                             ├─► notes ─► callbacks thread ─► logs, metrics, on_result
                              disk thread ◄── jobs ──────────┘
                              load, remove, sync, adopt ── messages ─► worker

One queue of segments. Accepted events lie in a list of segments; a segment is in memory or in a file. List order is event order. The number of
an event is the number of its segment and its position in it.

One owner. The worker owns all state but that of the queue's end; other threads send it messages: functions that it calls.

One rule for order (`lines`). An event may enter a request when none of its ids is held and every earlier unsettled event of each of its
ids is in the same request, before it. So no id is ever in two requests at once.

Threads
-------

=================  =====================================================================  ===========================================
thread             may do                                                                 may not do
=================  =====================================================================  ===========================================
application        append under the lock (with a spool: one write); wake the worker       network, other files, raise
worker             everything that changes state: read, decide, settle, count             wait for anything but its mailbox
disk thread        all file work but the append                                           change state: it posts messages
senders            `send_batch`; ask the retry policy, one sender at a time; post         change state
callbacks thread   call observers, in order                                               change state
=================  =====================================================================  ===========================================

Locks: three. *append* (`Queue._lock`, re-entrant) guards the end of the queue. *policy* (`Senders._policy_lock`) lets one sender at a time
ask the user's retry policy. *running* (`Worker._running`) is held by the thread that does the turns: the worker for its life, or a caller of
`flush` or `shutdown` where no thread can be started. The worker's thread takes it itself, so that a caller that is interrupted while it
starts one holds nothing. Reading counters needs none. Nothing rests on the GIL.

A signal handler may raise in a caller that waits (Ctrl-C), and a fork in C may come at any moment. So one thread waits for another by a
`Signal` and gets messages from a `Mailbox`, both over `queue.SimpleQueue`, and threads are started by `_thread` (`threads`). A message that
raises is applied again, three times in all; what raises in a turn is reported as `delivery.failed`, and the turns go on.

Shared names
------------

A name that is not here belongs to one thread. *Replaced* means: by one assignment of a new value, so that reading it needs no lock.

===========================================  ==========================================================================================
written                                      names
===========================================  ==========================================================================================
under the append lock                        `Queue.segments`, `totals`, `disk_refusal` (replaced), `refused`, `cached_*`, `reserved_*`,
                                             `_tail`, `_next_seq`, `_grant`, `_caches`, `_aside`, `_appending`, `_arrived_bytes`, `_wake_at*`;
                                             `Segment.parcels` (filled), `times`, `size`, `sealed`, and `count`: the store that commits an
                                             append; `SegmentFile.size`, `starts`; `Spool._own`, `_roots`, `_removed`
by the worker                                `Worker.books`, `Queue.crowded` (replaced), `Queue.freed_*`; `Segment.states`, `read`, `head`,
                                             `resolved`, `lined`, `flying` and its flags; `Segment.parcels` (emptied by position, never
                                             iterated); `Segment.file` of a sealed segment; `Callbacks._results`, `_posted`
by the thread that does the turns            `Worker._runner`, `_has_thread`
by a thread that starts the worker           `Worker._was_started`, `_start_not_before`: a race of two starts one thread too many, which ends
by the disk thread                           `SegmentFile.synced`, its marks, descriptors; `Spool._holdings`, `_foreign`, `used`
by the callbacks thread                      `Callbacks.reported`, `done`, `in_users_code`
once                                         `Queue.closed`, `Worker.ended`, `over`, `ended_clean`, `BatchExporter._closed`
===========================================  ==========================================================================================

The life of one event
---------------------

`take` appends it under the lock; with a spool it is in a file then, and the parcel itself stays in memory too while half of the bound is
free, so that it is not read back. The reader gives it in its order; the dispatcher puts it into the request that is being put together, or
passes it over: then it stands in line. The batch goes to a sender, the answer comes back as a message. An acknowledged event is resolved:
it leaves memory at once; its file is removed when all in it are resolved, and its low-water mark moves until then.

The life of one 429. The answer names ids: their events are held. They stand first in their lines again, and leave the memory if they lie in
a file and half of the memory is in use. What the answer did not name is sent again at once. When the hold ends, the first event of each line
is next; if it is not in memory, the disk thread loads it and those behind it.

The life of one adopted segment. The disk thread takes the lock of a directory whose process ended, reads its segments, and puts them into
the list: before everything else at the first look, at the end later. While some of the first look are unread, new events of ids that have
none there share the requests (`reader`); all of it is read before any of it is sent. What is in flight of an adopted segment is noted in
its header, for a second: an event whose sending ends the process does so at once. After two ends with the same first
event in flight those events are sent in small groups, that one by itself, with nothing else in flight; after three it is moved to
`quarantine/`.

A disk that fails. A failed append seals the file; the event and those behind it go to a segment in memory. The disk is tried again after
1, 2, 4 … 30 s; then appends go to a new file, and the disk thread writes what memory holds before it to files of their own.

Rules that must never be broken
-------------------------------

1. An event is resolved only by an answer that names it, or by a reason of the closed list; `Dispatcher._end` is the only way out.
2. The worker never waits for the append lock: an append may hang in a write.
3. Nothing is called under the append lock that may block but that one write, and the making of the file for it.
4. Counters are published before flushes are set and before observers are called.
5. What is read from a file is one event, or it never leaves the disk.
"""
