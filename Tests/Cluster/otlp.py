"""A collector of spans for tests: takes OTLP over HTTP in JSON and checks it against OpenTelemetry's own protobuf schema."""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDENTIFIERS = ("traceId", "spanId", "parentSpanId")


def _recoded(value):
    """OTLP's JSON has identifiers in hexadecimal, where protobuf's mapping has base64."""
    if isinstance(value, dict):
        return {key: base64.b64encode(bytes.fromhex(member)).decode() if key in IDENTIFIERS else _recoded(member)
                for key, member in value.items()}
    return [_recoded(element) for element in value] if isinstance(value, list) else value


def _attributes(items):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in items}


class Span:
    """One span, with the attributes of its process."""

    def __init__(self, span, resource):
        self.name, self.kind, self.resource = span.name, span.kind, resource
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.start, self.end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
        self.attributes, self.status = _attributes(span.attributes), span.status.code
        self.events = [(event.time_unix_nano / 1e9, event.name, _attributes(event.attributes)) for event in span.events]
        assert len(self.trace) == 32 and len(self.id) == 16 and self.name and self.end >= self.start, span

    @property
    def seconds(self):
        return self.end - self.start

    @property
    def service(self):
        return self.resource["service.name"]


class Collector:
    """What has come; `refuse` requests more are answered with 503."""

    def __init__(self):
        self.spans, self.errors, self.refuse, self.requests = [], [], 0, 0

    def trace(self, trace):
        return [span for span in list(self.spans) if span.trace == trace]

    def take(self, path, content_type, body):
        """The status of the answer."""
        self.requests += 1
        if self.refuse > 0:
            self.refuse -= 1
            return 503
        try:
            assert path == "/v1/traces" and content_type == "application/json", (path, content_type)
            message = json_format.Parse(json.dumps(_recoded(json.loads(body))), ExportTraceServiceRequest())
            for group in message.resource_spans:
                resource = _attributes(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [Span(span, resource) for span in scope.spans]
            return 200
        except Exception as error:  # a test looks at them
            self.errors.append(f"{error}: {body[:500]}")
            return 400


@contextlib.contextmanager
def collector():
    """(address, Collector) of one that runs until the block ends."""
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            status = taken.take(self.path, self.headers["content-type"], body)
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
