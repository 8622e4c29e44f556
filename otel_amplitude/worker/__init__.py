"""The worker: records of a Kafka topic to where they belong, and offsets committed only behind what was settled.

Theory of operation
===================

Problem. A topic keeps events until they are delivered. A process may be killed at any moment, partitions move between processes, and the
destination may refuse one event, one id or everything. No event may be lost, and the events of one id must arrive in order.

The picture::

    brokers ──► consumer ──► Loop.turn ──► delivery ──► destination          amplitude_events
                   ▲             │  ▲          │
          commit, pause, resume  │  └─ ends ◄──┘ (one deque)
                   └─ Progress ◄─┤
                                 └──► dead letters ──► amplitude_dead

One decision. `progress.Progress` knows, for each assignment of a partition, which offsets were taken and are not settled. What may be
committed is the first of them, else the offset behind the last one taken. It does no I/O and has no clock.

One thread. The loop's thread owns the consumer and the progress: it reads, commits, pauses, and runs the callbacks of a rebalance. The
worker of delivery appends each end to a deque, and the loop takes them from there. Nothing else is shared.

The life of one record
----------------------

`take` notes its offset and hands the event to delivery, together with its place. Acknowledged: settled. Rejected, or given up for a reason
that another try would not change: written to the topic of dead letters, and settled when that is acknowledged. No event at all: a dead letter
as well. Returned, or the process ends: not settled, so the next owner of the partition reads it again.

A rebalance. Revoked: what was not sent is withdrawn, what is in flight is waited for (`REVOKE_SECONDS`), and what was settled is committed.
Lost: everything is withdrawn and nothing is committed, since another worker may have read on. Both owners send the events of an id in
their order, and the new owner begins at or before what the old one settled, so the first arrivals stand in order.

Too much pending. Above `max_pending` every partition is paused, and resumed below half of it. A partition that holds a quarter of it alone
is paused alone: one id that the destination holds must not stop the others.

Rules that must never be broken
-------------------------------

1. An offset is committed only when every record before it is settled.
2. A record is settled by an acknowledgement: of the destination, or of the topic of dead letters.
3. The consumer is asked for records, even when all partitions are paused: without that the group takes this worker for dead.
4. What belongs to a released assignment changes nothing any more.
"""
