"""An HTTP endpoint that the gateway asks, for tests."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def endpoint(answer):
    """Takes JSON on a port of its own; `answer` makes a status and an answer of a path and a question. Yields the address and the
    questions that have come."""
    questions = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            questions.append(question)
            status, found = answer(self.path, question)
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", questions
    finally:
        server.shutdown()
        server.server_close()
