"""The semantic conventions as rows: which attributes mean the same, which are nobody's business, which are Amplitude's keys.

Names are our own constants: the semantic-conventions package is pinned exactly by every instrumentation and must not be a dependency.
Registry: https://opentelemetry.io/docs/specs/semconv/registry/attributes/ (v1.44). Where a row has two names, the stable one is first.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import Final

from otel_amplitude.events import KEYS

# --- what decides ------------------------------------------------------------------------------------------------------------

EVENT_TYPE: Final = "amplitude.event_type"
SKIP: Final = "amplitude.skip"
# Another Amplitude SDK has sent this span itself.
EMITTED: Final = "amplitude.sdk.emitted"

METHOD: Final = ("http.request.method", "http.method")
ROUTE: Final = "http.route"
STATUS: Final = ("http.response.status_code", "http.status_code")
TARGET: Final = ("url.path", "http.target")
URL: Final = ("url.full", "http.url")
SCHEME: Final = ("url.scheme", "http.scheme")
PROTOCOL: Final = "network.protocol.name"
USER_AGENT: Final = ("user_agent.original", "http.user_agent")
SYNTHETIC: Final = "user_agent.synthetic.type"
PEER: Final = ("client.address", "network.peer.address", "net.peer.ip")
# A header, as captured on the span.
FORWARDED_FOR: Final = "x-forwarded-for"
# Tornado's instrumentation sets no http.route; its span name is `GET /users/{uid}`, or `GET` when nothing matched.
TORNADO: Final = "tornado.handler"

# --- what an event carries ---------------------------------------------------------------------------------------------------

# property ← attributes, the first that is there
TELEMETRY_PROPERTIES: Final = (
    ("method", METHOD),
    ("route", (ROUTE,)),
    ("status_code", STATUS),
    ("error_type", ("error.type",)),
)
RESOURCE_PROPERTIES: Final = (
    ("service", ("service.name",)),
    ("service_version", ("service.version",)),
    ("environment", ("deployment.environment.name", "deployment.environment")),
)
# service.name of a process that was given none: "unknown_service:python"
UNKNOWN_SERVICE: Final = "unknown_service"
# property that keeps the name an event would have had, beyond `max_event_types`
ORIGINAL_NAME: Final = "original_event_type"
OTHER_NAME: Final = "(other)"
DEFAULT_NAME: Final = "HTTP Request"

# --- amplitude.<field> → key of the event (HTTP V2 page, "Event keys") -------------------------------------------------------

_ELSEWHERE: Final = frozenset(
    {"event_type", "user_id", "device_id", "session_id", "event_properties", "user_properties", "groups", "group_properties"}
)
_KINDS: Final[dict[str, type]] = {
    "time": dt.datetime,
    **dict.fromkeys(("event_id", "quantity"), int),
    **dict.fromkeys(("price", "revenue", "location_lat", "location_lng"), float),
    **dict.fromkeys(("plan", "ingestion_metadata"), dict),
    "$skip_user_properties_sync": bool,
}
FIELDS: Final[dict[str, tuple[str, type]]] = {
    f"amplitude.{name}": (key, _KINDS.get(key, str))
    for name, key in (
        *((key, key) for key in KEYS if key not in _ELSEWHERE),
        ("product_id", "productId"),
        ("revenue_type", "revenueType"),
        ("skip_user_properties_sync", "$skip_user_properties_sync"),
    )
}
# On the span and the log record these are the resolver's (room `identity`); a span event has no resolver but this table.
IDENTITY_FIELDS: Final[dict[str, tuple[str, type]]] = {
    "amplitude.user_id": ("user_id", str),
    "amplitude.device_id": ("device_id", str),
    "amplitude.session_id": ("session_id", dt.tzinfo),
}
# `amplitude.<group>.<name>` and a map under `amplitude.<group>`; `extra` goes to the middleware, never to Amplitude.
MAPS: Final = ("event_properties", "user_properties", "groups", "group_properties", "extra")
REVENUE_FIELDS: Final[dict[str, tuple[str, type]]] = {
    name: FIELDS[f"amplitude.{name}"] for name in ("price", "quantity", "revenue", "product_id", "revenue_type", "currency")
}

# --- what is not the application's own ---------------------------------------------------------------------------------------

# First words of the registry's names, and of what the Python instrumentations add.
TELEMETRY_NAMESPACES: Final = frozenset(
    """
    amplitude android aiohttp artifact asgi aspnetcore aws az azure browser cassandra celery cicd client cloud cloudevents
    cloudfoundry code container cpu cpython db deployment destination device disk django dns dotnet elasticsearch enduser error
    event exception faas falcon feature_flag file flask gcp gen_ai geo go graphql grpc heroku host http hw ios jinja2 jsonrpc jvm
    k8s kafka kestrel linux llm log mainframe mcp message messaging net network nfs nodejs oci onc_rpc openai openinference
    openshift opentelemetry opentracing oracle oracle_cloud oracledb os otel peer pool pprof process profile rpc security_rule server
    service session signalr source state system telemetry test thread tls tornado traceloop url user user_agent v8js vcs webengine
    wsgi zos
    """.split()  # noqa: SIM905 -- ninety quotes say no more
)
# `app` is the registry's too, yet it is what applications are told to use as their own prefix: only these are telemetry.
TELEMETRY_PREFIXES: Final = ("app.build_id", "app.crash.", "app.installation.", "app.jank.", "app.screen.", "app.widget.")
# Names an event property may not have: Amplitude's own.
RESERVED_PROPERTIES: Final = ("$", "[Amplitude]", "[Agent]")

# Log records with these names are telemetry of OpenTelemetry's own conventions, some with prompts inside.
REGISTERED_EVENTS: Final = re.compile(
    r"(?:app|aws|az|azure|browser|db|device|exception|feature_flag|gen_ai|hw|http|k8s|mcp|messaging|otel|rpc|session|system)(?:\.|$)"
)

# --- sensitive names ---------------------------------------------------------------------------------------------------------

# Long patterns are texts here: `re` compiles and keeps them at first use, which an import need not pay for.
_SENSITIVE_ANYWHERE: Final = (
    r"passw|passphrase|query[-_.]?string|secret|authori[sz]ation|cookie|e[-_]?mail|(?<!micro)(?<!head)(?<!smart)phone|credential|api[-_.]?key|(?:access|private)[-_.]?key"
    r"|credit[-_.]?card|card[-_.]?(?:number|no$)|social[-_.]?security"
    r"|(?:first|last|full|sur|middle|maiden)[-_.]?name|birth[-_.]?(?:day|date)|date[-_.]?of[-_.]?birth|(?:street|postal|home|ip)[-_.]?address"
    r"|account[-_.]?(?:number|n[or](?![a-z]))|(?<!syn)tax[-_.]?(?:number|id(?![a-z]))"
)
_SENSITIVE_WORDS: Final = frozenset(
    {"auth", "bearer", "card", "csrf", "cvc", "cvv", "dob", "iban", "jwt", "mail", "oauth", "otp", "pin", "pwd", "ssn"}
    | {"token", "xsrf", "passcode", "passport", "sessionid", "sid", "stacktrace", "traceback", "headers"}
)
# In an application's own names only: the address of a server and the ip of a pod are about nobody, and those of people are listed below.
_SENSITIVE_OWN_WORDS: Final = frozenset({"addr", "address", "addresses", "ip", "ips", "ipv4", "ipv6", "prompt", "prompts"})
_SENSITIVE_ATTRIBUTES: Final = (
    r"(?:http\.(?:url|target|request\.(?:header|body)|response\.(?:header|body)|client_ip|user_agent)|url\.(?:full|query|path|original)"
    r"|user|enduser|session|client\.address|source\.address|net\.(?:peer|sock\.peer)\.(?:ip|addr)|network\.peer\.address|user_agent\.original"
    r"|exception\.(?:message|stacktrace)|db\.(?:statement|query\.text|query\.parameter|operation\.parameter|user)|gen_ai|llm|traceloop"
    r"|openinference|process\.(?:command|environment_variable)|messaging\.message\.body|rpc\.(?:request|response)\.metadata"
    r"|rpc\.\w+\.(?:request|response)\.metadata|graphql\.document|feature_flag\.context|log\.record\.original)(?:\.|_args|_line|$)"
)
_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def is_own(name: str) -> bool:
    """Say whether an attribute is the application's own: outside every namespace of OpenTelemetry, and no name of Amplitude's.

    >>> is_own("cart.total"), is_own("http.route"), is_own("app.cart"), is_own("app.installation.id")
    (True, False, True, False)
    """
    namespace, dot, _ = name.partition(".")
    return not ((dot and namespace in TELEMETRY_NAMESPACES) or name.startswith((*TELEMETRY_PREFIXES, *RESERVED_PROPERTIES)))


@lru_cache(maxsize=4_096)
def is_sensitive(name: str) -> bool:
    """Say whether the name of an attribute promises a secret, or something about a person nobody asked for (delivery S14, S15).

    >>> [is_sensitive(name) for name in ("userPassword", "card.number", "url.query", "cart.total", "cardinality", "user.email")]
    [True, True, True, False, False, True]
    """
    name = name[:2_048]
    lowered = name.lower()
    words = {word.lower() for word in _WORDS.findall(name)}
    return (
        re.search(_SENSITIVE_ANYWHERE, lowered) is not None
        or re.match(_SENSITIVE_ATTRIBUTES, lowered) is not None
        or not words.isdisjoint(_SENSITIVE_WORDS)
        or (not words.isdisjoint(_SENSITIVE_OWN_WORDS) and is_own(name))
    )


# --- what may not become an automatic event ----------------------------------------------------------------------------------

# Amplitude counts people: a page fetched to see whether it is a page is none.
NOT_AUTOMATIC_METHODS: Final = frozenset({"HEAD", "OPTIONS"})

# Globs over routes: probes of orchestrators and load balancers, and files that a page brings along.
DEFAULT_EXCLUDE: Final = (
    *(
        "/health",
        "/health/*",
        "/api/health",
        "/v?/health",
        "/api/v?/health",
        "*/healthz",
        "*/healthcheck",
        "*/health-check",
        "*/health_check",
    ),
    *("*/livez", "*/readyz", "*/liveness", "*/readiness", "/ready", "/alive", "/ping", "/heartbeat", "/__heartbeat__", "/__lbheartbeat__"),
    *("/-/healthy", "/-/ready", "/metrics"),
    *("/static/*", "/assets/*", "/_next/*", "/.well-known/*", "/favicon.ico", "/robots.txt", "/sitemap*.xml", "/apple-touch-icon*"),
    *("*.css", "*.js", "*.map", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.ico", "*.webp", "*.woff", "*.woff2", "*.ttf"),
)

# User agents that are no person: crawlers, previewers, page testers. Cubot makes phones.
BOTS: Final = (
    r"(?<!cu)bot\b|crawl|spider|slurp|scrapy|facebookexternalhit|facebookcatalog|meta-externalagent|bingpreview|skypeuripreview|url preview|iframely|mediapartners-google"
    r"|apis-google|google-inspectiontool|google-read-aloud|feedfetcher|headlesschrome|phantomjs|lighthouse|pagespeed|gtmetrix|embedly"
    r"|whatsapp/|ia_archiver|archive\.org|perplexity-user|chatgpt-user|claude-user|censysinspect|nmap|masscan|zgrab|nessus|sqlmap"
)
# User agents of monitors and balancers: probes, whatever route they ask for.
PROBES: Final = (
    r"kube-probe|googlehc|elb-healthchecker|amazon-route53-health|health-?check|uptime|pingdom|statuscake|site24x7|checkly|datadog"
    r"/synthetics|datadogsynthetics|newrelicpinger|prometheus|blackbox|consul health|haproxy|zabbix|nagios|check_http"
)
