"""gunicorn's settings: the application is loaded once, then forked. No hooks are needed for otel_amplitude."""

bind = "127.0.0.1:8000"
workers = 2
preload_app = True
control_socket_disable = True
