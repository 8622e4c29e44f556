"""A line or two of glue for web frameworks and task queues."""
