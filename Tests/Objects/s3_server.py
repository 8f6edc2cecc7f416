#!/usr/bin/env python3
"""A server of S3 on loopback for tests: moto's, behind a proxy that checks every signature with botocore and makes faults on demand.

    s3_server.py [BUCKET ...]

Prints one line of JSON, {"url", "region", "access_key_id", "secret_access_key", "session_token"}, and serves until its standard input
ends. Besides S3 the proxy answers

    PUT /_faults                   the faults to make: a list of objects as `Fault` describes; replaces the ones before
    GET /_log                      the requests since the last call: a list of {"method", "path", "status", "fault", "at"}
    GET /_objects?BUCKET/PREFIX    {KEY: SHA-256} of the objects whose keys begin so, the keys without it, by moto itself
"""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import logging
import re
import socket
import struct
import sys
import threading
import time

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
REGION = "eu-test-1"
ACCESS_KEY_ID = "AKIDTESTTESTTESTTEST"
SECRET_ACCESS_KEY = "test/secret+key/of/forty/characters00000"
SESSION_TOKEN = "session/token+of==the/tests"


class Fault:
    """One way in which requests go wrong.

    `kind`: one of the methods of `Handler` that begin with `fault_`; `method` and `path`: regular expressions of the requests meant;
    `times`: so many of them; `skip`: after so many others; further fields are the kind's own.
    """

    def __init__(self, kind, method=".*", path="", times=1, skip=0, **fields):
        self.kind, self.method, self.path, self.times, self.skip, self.fields = kind, method, path, times, skip, fields

    def takes(self, method, path):
        if self.times <= 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class State:
    lock = threading.Lock()
    faults, log = [], []
    moto_port, client = 0, None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        self.serve()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_):
        pass

    # MARK: Requests

    def serve(self):
        with State.lock:
            own = self.path.startswith("/_")
            fault = None if own else next((fault for fault in State.faults if fault.takes(self.command, self.path)), None)
        length = int(self.headers.get("content-length", 0))
        if fault and fault.kind == "cut_upload":
            self.rfile.read(length // 2)
            self.note(0, fault)
            return self.cut()
        body = self.rfile.read(length)
        if own:
            return self.control(body)
        wrong = self.problem_with_signature(body)
        if wrong:
            self.note(403, None)
            return self.error(403, *wrong)
        if fault:
            return getattr(self, f"fault_{fault.kind}")(fault, body)
        self.answer(self.forward(body), None)

    def control(self, body):
        if self.path == "/_faults":
            with State.lock:
                State.faults = [Fault(**fields) for fields in json.loads(body)]
            return self.reply(200, b"{}")
        if self.path == "/_log":
            with State.lock:
                log, State.log = State.log, []
            return self.reply(200, json.dumps(log).encode())
        found = {}
        bucket, prefix = self.path.partition("?")[2].split("/", 1)
        for page in State.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                # One may be deleted while the others are read.
                with contextlib.suppress(State.client.exceptions.NoSuchKey):
                    content = State.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                    found[item["Key"][len(prefix):]] = hashlib.sha256(content).hexdigest()
        self.reply(200, json.dumps(found).encode())

    def problem_with_signature(self, body):
        """None, or the code and message of S3's answer to a request that is not signed as it should be."""
        digest = hashlib.sha256(body).hexdigest()
        found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w+)",
                             self.headers.get("authorization", ""))
        if not found or found[1] != ACCESS_KEY_ID or found[3] != REGION:
            return "InvalidAccessKeyId", "The access key or region is not known"
        if self.headers.get("x-amz-content-sha256") != digest:
            return "XAmzContentSHA256Mismatch", "The body is not the one that was signed"
        if self.headers.get("x-amz-security-token") != SESSION_TOKEN:
            return "InvalidToken", "The session token is not known"
        moment = time.strptime(self.headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ")
        if abs(time.time() - time.mktime(moment) + time.timezone) > 900:
            return "RequestTimeTooSkewed", "The clocks differ too much"
        names = found[4].split(";")
        if "host" not in names or any(name.lower().startswith("x-amz-") and name.lower() not in names for name in self.headers):
            return "AccessDenied", "A field is not signed"
        request = AWSRequest(self.command, f"http://{self.headers['host']}{self.path}",
                             headers={name: self.headers[name] for name in names}, data=body)
        request.context["timestamp"] = self.headers["x-amz-date"]
        signer = S3SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN), "s3", REGION)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        if signer.signature(text, request) != found[5]:
            return "SignatureDoesNotMatch", f"The signature is another one; signed is {text!r}"
        checksum = self.headers.get("x-amz-checksum-sha256")
        if checksum and checksum != base64.b64encode(hashlib.sha256(body).digest()).decode():
            return "BadDigest", "The checksum is another one"
        return None

    def forward(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", State.moto_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "content-length")}
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.getheaders(), content

    # MARK: Answers

    def note(self, status, fault):
        with State.lock:
            State.log.append({"method": self.command, "path": self.path, "status": status, "fault": fault.kind if fault else None,
                              "at": time.monotonic()})

    def answer(self, answer, fault, cut_after=None):
        status, headers, content = answer
        self.note(status, fault)
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length", len(content))
        self.send_header("content-length", length if self.command == "HEAD" else len(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut_after is None else content[:cut_after])
        if cut_after is not None:
            self.cut()

    def reply(self, status, content, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", len(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status, code, message, headers=()):
        content = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
        self.reply(status, content.encode(), [("content-type", "application/xml"), *headers])

    def cut(self):
        """Breaks the connection with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    # MARK: Faults

    def fault_slow_down(self, fault, _):
        after = fault.fields.get("retry_after")
        self.note(503, fault)
        self.error(503, "SlowDown", "Please reduce your request rate.", [] if after is None else [("retry-after", str(after))])

    def fault_error(self, fault, _):
        self.note(fault.fields["status"], fault)
        self.error(fault.fields["status"], fault.fields["code"], fault.fields.get("message", "a message"))

    def fault_cut_after_upload(self, fault, body):
        self.forward(body)
        self.note(0, fault)
        self.cut()

    def fault_late_answer(self, fault, body):
        answer = self.forward(body)
        self.note(0, fault)
        time.sleep(fault.fields["seconds"])
        self.answer(answer, fault)

    def fault_cut_download(self, fault, body):
        answer = self.forward(body)
        self.answer(answer, fault, cut_after=len(answer[2]) // 2)

    def fault_wrong_bytes(self, fault, body):
        status, headers, content = self.forward(body)
        damaged = bytes([content[0] ^ 1]) + content[1:] if content else b"x"
        self.answer((status, headers, damaged), fault)

    def fault_longer(self, fault, body):
        status, headers, content = self.forward(body)
        self.answer((status, headers, content + b"more"), fault)

    def fault_hang(self, fault, _):
        self.note(0, fault)
        time.sleep(fault.fields["seconds"])
        self.cut()

    def fault_slow(self, fault, body):
        time.sleep(fault.fields["seconds"])
        self.answer(self.forward(body), fault)

    def fault_damaged_upload(self, fault, _):
        self.note(400, fault)
        self.error(400, "BadDigest", "The checksum did not match what was received")

    def fault_late_list(self, fault, body):
        status, headers, content = self.forward(body)
        self.answer((status, headers, re.sub(rb"<Contents>.*</Contents>", b"", content, flags=re.DOTALL)), fault)

    def fault_old_dates(self, fault, body):
        status, headers, content = self.forward(body)
        old = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - fault.fields.get("seconds", 2 * 86400))).encode()
        self.answer((status, headers, re.sub(rb"<LastModified>[^<]*", b"<LastModified>" + old, content)), fault)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass  # a client that has gone


def main():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, State.moto_port = moto.get_host_and_port()
    State.client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{State.moto_port}", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x",
        config=Config(s3={"addressing_style": "path"}))
    for bucket in sys.argv[1:] or ["images"]:
        State.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({
        "url": f"http://127.0.0.1:{server.server_port}", "region": REGION, "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY, "session_token": SESSION_TOKEN}), flush=True)
    sys.stdin.read()
    server.shutdown()
    moto.stop()


if __name__ == "__main__":
    main()
