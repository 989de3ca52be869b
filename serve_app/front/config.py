"""HAProxy's configuration, for version 2.8 or later.

    clients ── TLS ──> bounds of time and size ──> the server on loopback
               408 431 413, in the contract's form     health by /readyz; draining loses nothing

A whole request is read before the server sees any of it, so half a request costs the server
nothing. Answers pass as they come.
"""

from collections.abc import Iterator, Sequence

from serve_app.front.errors import LARGE_HEADERS, LONG_URL, OF_HAPROXY, TOO_LARGE, FrontError
from serve_app.front.settings import FrontSettings, Limits

# Of a buffer, beyond the body: the headers, the first line, and room to rewrite them.
_REWRITE_BYTES = 8 * 1024
# HAProxy refuses more by itself, with 400; up to there we say 431.
_MAX_HEADERS = 1000


def render(settings: FrontSettings) -> str:
    """The file's text."""
    sections = (
        _global(settings.limits),
        _defaults(settings.limits),
        _front_end(settings),
        _back_end(settings),
    )
    return "\n\n".join("\n".join(_indented(section)) for section in sections) + "\n"


def _indented(lines: Sequence[str]) -> Iterator[str]:
    yield lines[0]
    yield from (f"    {line}" for line in lines[1:])


def _global(limits: Limits) -> list[str]:
    buffer = limits.body_bytes + limits.header_bytes + _REWRITE_BYTES
    return [
        "global",
        "log stdout format raw local0 info",
        f"maxconn {limits.connections}",
        f"hard-stop-after {limits.drain_s}s",
        f"tune.bufsize {-(-buffer // 1024) * 1024}",
        f"tune.maxrewrite {_REWRITE_BYTES}",
        f"tune.http.maxhdr {_MAX_HEADERS}",
        "tune.h2.max-concurrent-streams 100",
        "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
    ]


def _defaults(limits: Limits) -> list[str]:
    return [
        "defaults",
        "mode http",
        "log global",
        "option httplog",
        "option dontlognull",
        "# A piece of a stream is sent at once, and who leaves ends the work.",
        "option http-no-delay",
        "option abortonclose",
        "# A request is sent once: it may have effects.",
        "retry-on conn-failure",
        "option redispatch",
        "http-reuse never",
        f"timeout http-request {limits.header_s}s",
        f"timeout http-keep-alive {limits.keep_alive_s}s",
        f"timeout client {limits.idle_s}s",
        "timeout connect 5s",
        f"timeout server {limits.reply_s}s",
        "timeout queue 30s",
        "timeout client-fin 5s",
        *(f"http-error status {error.status} {_content(error)}" for error in OF_HAPROXY),
    ]


def _front_end(settings: FrontSettings) -> list[str]:
    limits = settings.limits
    tls = settings.certificate is not None
    by_size = f"{{ req.body_size gt {limits.body_bytes} }}"
    return [
        "frontend moss",
        f"bind {settings.listen}"
        + (f" ssl crt {settings.certificate} alpn h2,http/1.1" if tls else ""),
        f"http-request {_answer(LONG_URL)} if {{ url,length gt {limits.url_length} }}",
        f"http-request {_answer(LARGE_HEADERS)} if {{ req.hdrs,length gt {limits.header_bytes} }}",
        f"http-request {_answer(LARGE_HEADERS)} if {{ req.hdr_cnt() gt {limits.num_headers} }}",
        "# What a body says of its length, and then what has come of it.",
        f"http-request {_answer(TOO_LARGE)} if {by_size}",
        f"http-request wait-for-body time {limits.body_s}s unless METH_GET or METH_HEAD",
        f"http-request {_answer(TOO_LARGE)} if {by_size}",
        "# Nobody but the front says whom it speaks for.",
        "http-request del-header Forwarded",
        "http-request del-header X-Forwarded- -m beg",
        "http-request set-header X-Forwarded-For %[src]",
        f"http-request set-header X-Forwarded-Proto {'https' if tls else 'http'}",
        *(["http-response set-header Strict-Transport-Security max-age=31536000"] if tls else []),
        "default_backend servers",
    ]


def _back_end(settings: FrontSettings) -> list[str]:
    return [
        "backend servers",
        "balance leastconn",
        "# One that drains is not ready: it gets no new request, and ends those that it has.",
        "option httpchk",
        "http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost",
        "http-check expect status 200",
        "default-server check inter 1s fall 2 rise 1 fastinter 500ms",
        *(f"server moss{i} {address}" for i, address in enumerate(settings.back_ends)),
    ]


def _answer(error: FrontError) -> str:
    return f"return status {error.status} {_content(error)} hdr Connection close"


def _content(error: FrontError) -> str:
    headers = ""
    if error.retry_after_s is not None:
        headers += f" hdr Retry-After {error.retry_after_s}"
    if error.is_unknown:
        headers += " hdr X-Should-Retry false"
    return f"content-type application/json string '{error.body}'{headers}"
