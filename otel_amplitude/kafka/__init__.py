"""Kafka: events as records of a topic, by `confluent-kafka` (extra `kafka`); imported only by those who use it.

Nothing here keeps an event: `exporter.KafkaExporter` is one more `BatchExporter`, so queue, spool, retries, order and counters are those of
delivery. `settings` reads what operators set for librdkafka, `topics` checks that topics exist before the first record.
"""
