"""The work that every contender gets: the same spans, with the same attributes and users."""

from __future__ import annotations

from random import Random

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from otel_amplitude.identity._scope import RequestScope, with_scope

USER = "user-{:08d}"
# 15 attributes, about 1.06 KB of JSON once it is an event: what a shop that annotates its checkout puts on a request.
CHOSEN: dict[str, object] = {
    "amplitude.event_type": "Order Placed",
    "http.request.method": "POST",
    "http.route": "/api/v1/shops/{shop_id}/orders",
    "http.response.status_code": 201,
    "cart.number": 0,
    "cart.id": "",
    "cart.total": 129.9,
    "cart.items": 3,
    "cart.currency": "EUR",
    "cart.gift": False,
    "shop.name": "Books and Records, Hamburg Altona",
    "shop.campaign": "newsletter-2026-11-returning-customers-variant-b",
    "shop.experiment": "checkout-redesign/one-page-with-summary-on-the-right",
    "shop.referrer": "https://www.example.com/blog/2026/11/the-twelve-best-novels-of-the-year?utm_source=newsletter",
    "shop.categories": "",
}
# What a database span of the same request has.
NOT_CHOSEN: dict[str, object] = {
    "db.system.name": "postgresql",
    "db.namespace": "shop",
    "db.collection.name": "orders",
    "db.operation.name": "SELECT",
    "db.query.text": "SELECT id, total, currency FROM orders WHERE customer_id = %s ORDER BY created_at DESC LIMIT 20",
    "db.query.summary": "SELECT orders",
    "server.address": "db.internal.example.com",
    "server.port": 5432,
    "db.response.returned_rows": 20,
    "network.peer.address": "10.1.2.3",
    "network.peer.port": 5432,
    "network.transport": "tcp",
    "thread.id": 140_000_000_000_000,
    "thread.name": "MainThread",
    "code.function.name": "shop.orders.recent",
}
# What an instrumentation puts on the span of a request, and an application that follows the conventions about persons.
AUTOMATIC: dict[str, object] = {
    "http.request.method": "POST",
    "http.route": "/api/v1/shops/{shop_id}/orders",
    "http.response.status_code": 201,
    "url.scheme": "https",
    "url.path": "/api/v1/shops/12/orders",
    "server.address": "shop.example.com",
    "server.port": 443,
    "client.address": "203.0.113.7",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0",
    "network.protocol.version": "1.1",
    "user.id": "user-00000042",
    "session.id": "1795300000000",
    "app.installation.id": "5f3b6c1e-8f2a-4d57-9a53-0d3c8f0c9b1a",
}

_CATEGORIES = "fiction crime records jazz classical gift-cards stationery posters used-books signed-editions travel cooking art".split()
Pair = tuple[Span, ReadableSpan]


class _Collector(SpanProcessor):
    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self._open: dict[int, Span] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._open[span.get_span_context().span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        assert context is not None
        self.pairs.append((self._open.pop(context.span_id), span))


def provider() -> TracerProvider:
    """Give a provider as a service has one."""
    resource = Resource.create({"service.name": "shop", "service.version": "2026.11.1", "deployment.environment.name": "production"})
    return TracerProvider(resource=resource, shutdown_on_exit=False)


def request_context(user: str, device: str = "5f3b6c1e-8f2a-4d57-9a53-0d3c8f0c9b1a") -> Context:
    """Give the context of a request whose user is known, as the propagator and `set_user` leave it."""
    scope = RequestScope()
    scope.learn(user_id=user, device_id=device, session_id=1_795_300_000_000)
    return with_scope(scope, Context())


def chosen(count: int, *, attributes: dict[str, object] | None = None, users: int = 500) -> list[Pair]:
    """Give ended server spans that become events, with the numbers 0, 1, 2, … of each user's carts."""
    return _spans(count, SpanKind.SERVER, CHOSEN if attributes is None else attributes, users)


def automatic(count: int) -> list[Pair]:
    """Give ended server spans of requests that nothing names, with the ids of their users in attributes."""
    return _spans(count, SpanKind.SERVER, AUTOMATIC, 500)


def not_chosen(count: int) -> list[Pair]:
    """Give ended client spans that become nothing."""
    return _spans(count, SpanKind.CLIENT, NOT_CHOSEN, 500)


def _spans(count: int, kind: SpanKind, attributes: dict[str, object], users: int) -> list[Pair]:
    collector = _Collector()
    source = provider()
    source.add_span_processor(collector)
    tracer: Tracer = source.get_tracer("bench")
    chance = Random(20261122)
    for number in range(count):
        own: dict[str, object] = attributes
        if "cart.number" in attributes:
            own = {
                **attributes,
                "cart.number": number // users,
                "cart.id": f"{chance.getrandbits(64):016x}",
                "cart.total": chance.randrange(100_000) / 100,
                "cart.items": chance.randrange(1, 9),
                "cart.gift": chance.random() < 0.1,
                "shop.categories": ",".join(chance.sample(_CATEGORIES, 8)),
            }
        tracer.start_span("POST /orders", context=Context(), kind=kind, attributes=own).end()  # type: ignore[arg-type]
    return collector.pairs


def contexts(users: int = 500) -> list[Context]:
    """Give one request context for each user; span number n belongs to user n modulo `users`."""
    return [request_context(USER.format(number)) for number in range(users)]
