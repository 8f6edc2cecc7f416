#!/usr/bin/env python3
"""`qwen-image mcp` and the official client of the Model Context Protocol, through real processes, in both of its transports.

    mcp_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import requests
from mcp import Client, MCPError, StdioServerParameters
from PIL import Image

from cluster import Cluster, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
PATIENCE_SECONDS = 180
# How the client agrees on a revision, and on which: the newest that both sides speak, and the last one with a handshake.
MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}


def flags(cluster, *more):
    return ["mcp", "--gateway", cluster.url, *map(str, more)]


@contextlib.asynccontextmanager
async def standard_streams(cluster, *more, mode="auto"):
    """A client of a server that it has started itself."""
    parameters = StdioServerParameters(command=str(BINARIES / "qwen-image"), args=flags(cluster, *more))
    async with Client(parameters, mode=mode, read_timeout_seconds=PATIENCE_SECONDS) as client:
        yield client


class Server:
    """`qwen-image mcp --http`, which ends with the `with` block."""

    def __init__(self, cluster, *more, environment=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.log = cluster.folder / "mcp.log"
        self.arguments = [BINARIES / "qwen-image", *flags(cluster, "--http", f"127.0.0.1:{self.port}", *more)]
        self.environment = {**os.environ, **(environment or {})}

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        serves = lambda: self.process.poll() is not None or b"serving" in self.log.read_bytes()
        wait_until(serves, "served", details=lambda: self.log.read_text(errors="replace"))
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(30) == 0, self.log.read_text(errors="replace")
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("it does not end")

    def post(self, message, session=None, **headers):
        fields = {"accept": "application/json, text/event-stream", **({"mcp-session-id": session} if session else {}), **headers}
        return requests.post(self.url, json=message, headers=fields, timeout=60)


def over_http(url, mode):
    return Client(url, mode=mode, read_timeout_seconds=PATIENCE_SECONDS)


def text(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


def image(result):
    """The first image's bytes."""
    block = next(block for block in result.content if block.type == "image")
    return base64.b64decode(block.data)


def drawn(cluster, **fields):
    """The file that the command line gets."""
    path = cluster.folder / "cli.png"
    result = cluster.generate(path, **fields)
    assert result.returncode == 0, result.stderr
    return path.read_bytes()


async def use_everything(client, cluster):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"generate_image", "edit_image", "get_job", "list_jobs", "cancel_job", "list_models"}, tools
    schema = tools["generate_image"].input_schema
    assert schema["required"] == ["prompt"] and schema["additionalProperties"] is False
    assert schema["properties"]["output_format"]["enum"] == ["png", "webp", "jpeg"] and schema["properties"]["n"]["maximum"] == 10
    models = (await client.call_tool("list_models")).structured_content["data"]
    assert models[0]["id"] == "nano-qwen-image" and models[0]["limits"]["size_multiple"] == 16, models

    reports = []

    async def report(progress, total, message):
        reports.append((progress, total, message))

    made = await client.call_tool("generate_image", {"prompt": "a red heart", "seed": 7, "steps": 60}, progress_callback=report)
    assert not made.is_error, text(made)
    assert image(made) == drawn(cluster, prompt="a red heart", seed=7, steps=60), "the same bytes as by the command line"
    entry = made.structured_content["images"][0]
    job = made.structured_content["job_id"]
    assert entry["seed"] == 7 and entry["mime_type"] == "image/png" and entry["bytes"] == len(image(made)), entry
    assert job in text(made) and made.structured_content["status"] == "succeeded"
    values = [progress for progress, _, _ in reports]
    assert len(values) >= 2 and values == sorted(set(values)) and all(total == 60 for _, total, _ in reports), reports

    # What was made is edited under its job's name.
    edited = await client.call_tool("edit_image", {"prompt": "make the heart blue", "image": job, "seed": 3, "steps": 8})
    assert not edited.is_error and image(edited) != image(made), text(edited)
    again = requests.post(f"{cluster.url}/v1/images/edits", timeout=300, json={
        "prompt": "make the heart blue", "image": base64.b64encode(image(made)).decode(), "seed": 3, "steps": 8})
    assert base64.b64decode(again.json()["data"][0]["b64_json"]) == image(edited)
    address = "data:image/png;base64," + base64.b64encode(image(made)).decode()
    same = await client.call_tool(
        "edit_image", {"prompt": "make the heart blue", "image": address, "seed": 3, "steps": 8, "output_format": "webp"})
    assert Image.open(io.BytesIO(image(same))).format == "WEBP", text(same)

    two = await client.call_tool("generate_image", {"prompt": "a blue star", "n": 2, "seed": 1, "steps": 4, "width": 96, "height": 48})
    assert [entry["seed"] for entry in two.structured_content["images"]] == [1, 2] and "96x48" in text(two)
    second = await client.call_tool(
        "edit_image", {"prompt": "a red star", "image": f"{two.structured_content['job_id']}/1", "strength": 0.5, "steps": 8})
    assert not second.is_error, text(second)

    waiting = await client.call_tool("generate_image", {"prompt": "a blue star", "seed": 1, "steps": 4, "wait": False})
    job = waiting.structured_content["job_id"]
    while (got := await client.call_tool("get_job", {"job_id": job})).structured_content["status"] in ("queued", "running"):
        await asyncio.sleep(0.05)
    assert got.structured_content["status"] == "succeeded" and Image.open(io.BytesIO(image(got))).size == (64, 64)
    assert not any(block.type == "image" for block in (await client.call_tool("get_job", {"job_id": job, "include_images": False})).content)
    page = await client.call_tool("list_jobs", {"limit": 2})
    assert [entry["id"] for entry in page.structured_content["data"]][0] == job and page.structured_content["has_more"]
    ended = await client.call_tool("cancel_job", {"job_id": job})
    assert ended.structured_content["status"] == "succeeded", "it has ended before"


async def send_what_is_wrong(client):
    """The model reads what is wrong and what to do; the program that drives it sees errors of the protocol."""
    for name, arguments, expected in (
            ("generate_image", {}, "prompt is missing"), ("generate_image", {"prompt": "p", "n": 11}, "at most 10"),
            ("generate_image", {"prompt": "p", "seed": "x"}, "a whole number"),
            ("generate_image", {"prompt": "p", "size": "64x64"}, "size is not known"),
            ("generate_image", {"prompt": "p", "output_format": "gif"}, "\"webp\""),
            ("generate_image", {"prompt": "p", "width": 64}, "height"), ("generate_image", {"prompt": "p", "width": 65, "height": 64}, "16"),
            ("generate_image", {"prompt": "p", "model": "none"}, "nano-qwen-image"),
            ("generate_image", {"prompt": "p", "steps": 5000}, "steps"),
            ("edit_image", {"prompt": "p", "image": "/etc/hostname"}, "--allow-directory"),
            ("edit_image", {"prompt": "p", "image": "http://127.0.0.1/a.png"}, "not fetched"),
            ("edit_image", {"prompt": "p", "image": "data:image/png;base64,aGVsbG8="}, "image"),
            ("edit_image", {"prompt": "p", "image": "job-00000000000000000000000000000000"}, "no job"),
            ("get_job", {"job_id": "job-0"}, "no job"), ("cancel_job", {"job_id": "../workers"}, "no job"),
            ("list_jobs", {"limit": 0}, "at least 1")):
        result = await client.call_tool(name, arguments)
        assert result.is_error and expected in text(result), (name, arguments, text(result))
    for name in ("draw", ""):
        try:
            await client.call_tool(name, {})
        except MCPError as error:
            assert error.code == -32602 and "generate_image" in str(error), error
        else:
            raise AssertionError("there is no such tool")


async def cancel(client, cluster):
    """A call that is abandoned ends its job."""
    started = asyncio.Event()

    async def report(progress, total, message):
        if progress > 0:
            started.set()

    call = asyncio.create_task(client.call_tool(
        "generate_image", {"prompt": "a blue star", "steps": 200, "n": 4}, progress_callback=report))
    await asyncio.wait_for(started.wait(), PATIENCE_SECONDS)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    newest = lambda: cluster.get("/v1/jobs?limit=1")[1]["data"][0]["status"]
    await asyncio.to_thread(cluster.wait, lambda: newest() == "cancelled", "cancelled")
    assert not (await client.call_tool("list_models")).is_error, "the connection serves on"


def test_standard_streams():
    async def run(cluster, mode):
        async with standard_streams(cluster, mode=mode) as client:
            assert client.protocol_version == MODES[mode] and client.server_info.name == "qwen-image", client.protocol_version
            await use_everything(client, cluster)
            await send_what_is_wrong(client)
            await cancel(client, cluster)

    with Cluster(BINARIES, NANO) as cluster:
        for mode in MODES:
            asyncio.run(run(cluster, mode))


def test_streamable_http():
    async def run(cluster, server, mode):
        async with over_http(server.url, mode) as client:
            assert client.protocol_version == MODES[mode] and client.server_info.name == "qwen-image", client.protocol_version
            await use_everything(client, cluster)
            await send_what_is_wrong(client)
            await cancel(client, cluster)
            async with over_http(server.url, mode) as other:  # several at a time
                results = await asyncio.gather(*(
                    one.call_tool("generate_image", {"prompt": "a blue star", "seed": seed, "steps": 4})
                    for seed, one in enumerate((client, other, client, other))))
            assert [result.structured_content["images"][0]["seed"] for result in results] == [0, 1, 2, 3]

    with Cluster(BINARIES, NANO) as cluster, Server(cluster) as server:
        for mode in MODES:
            asyncio.run(run(cluster, server, mode))


def test_files_are_read_where_that_is_allowed_and_written_where_asked():
    async def run(cluster, inside, outside, results):
        more = "--allow-directory", inside, "--output-directory", results, "--max-inline-bytes", 100
        async with standard_streams(cluster, *more) as client:
            made = await client.call_tool("generate_image", {"prompt": "a red heart", "seed": 1, "steps": 4})
            entry = made.structured_content["images"][0]
            written = pathlib.Path(entry["path"])
            assert written.parent == results.resolve() and written.stat().st_size == entry["bytes"]
            (link,) = [block for block in made.content if block.type == "resource_link"]
            assert str(link.uri) == written.as_uri() and link.mime_type == "image/png" and link.size == entry["bytes"], link
            (inside / "heart.png").write_bytes(written.read_bytes())
            (outside / "heart.png").write_bytes(written.read_bytes())
            (inside / "link.png").symlink_to(outside / "heart.png")
            for path in (inside / "heart.png", (inside / "heart.png").as_uri()):
                edited = await client.call_tool("edit_image", {"prompt": "a blue heart", "image": str(path), "steps": 4})
                assert not edited.is_error, text(edited)
            for path in (outside / "heart.png", inside / "link.png", f"{inside}/../outside/heart.png", inside, inside / "none.png", "/dev/zero"):
                refused = await client.call_tool("edit_image", {"prompt": "a blue heart", "image": str(path), "steps": 4})
                assert refused.is_error and str(inside.resolve()) in text(refused), (path, text(refused))

    with Cluster(BINARIES, NANO) as cluster:
        folders = [cluster.folder / name for name in ("inside", "outside", "results")]
        for folder in folders:
            folder.mkdir()
        asyncio.run(run(cluster, *folders))


def test_lines_that_are_no_messages():
    """Each is answered, and the next one is served."""
    with Cluster(BINARIES, NANO) as cluster:
        process = subprocess.Popen(
            [BINARIES / "qwen-image", *flags(cluster)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        def ask(line):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        assert ask(b"hello")["error"]["code"] == -32700
        assert ask(b"[]")["error"]["code"] == -32600
        assert ask(b'{"jsonrpc":"1.0","id":1,"method":"ping"}')["error"]["code"] == -32600
        assert ask(b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}')["error"]["code"] == -32600, "not initialized"
        assert ask(b'{"jsonrpc":"2.0","id":3,"method":"nothing"}')["error"]["code"] == -32601
        assert ask(b'{"jsonrpc":"2.0","id":4,"method":"ping","params":[]}')["error"]["code"] == -32602
        assert ask(b'{"jsonrpc":"2.0","id":"five","method":"ping"}') == {"jsonrpc": "2.0", "id": "five", "result": {}}
        begun = ask(b'{"jsonrpc":"2.0","id":6,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{}}}\r')
        assert begun["result"]["protocolVersion"] == "2025-03-26" and begun["result"]["capabilities"] == {"tools": {"listChanged": False}}
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        batch = ask(b'[{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","method":"x"},{"jsonrpc":"2.0","id":8,"method":"x"}]')
        assert [answer["id"] for answer in batch] == [7, 8] and batch[1]["error"]["code"] == -32601, batch
        process.stdin.close()
        assert process.wait(30) == 0


def test_http_is_for_programs_of_this_machine():
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    with Cluster(BINARIES, NANO) as cluster:
        with Server(cluster) as server:
            begun = server.post(initialize)
            session = begun.headers["mcp-session-id"]
            assert begun.json()["result"]["protocolVersion"] == "2025-06-18" and len(session) > 40
            assert server.post(ping, session).json() == {"jsonrpc": "2.0", "id": 2, "result": {}}
            assert server.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, session).status_code == 202
            assert server.post(ping).status_code == 400 and server.post(ping, "none").status_code == 404
            for origin, status in (
                    ("http://localhost:3000", 200), ("https://example.org", 403), ("http://127.0.0.1.example.org", 403), ("null", 403)):
                assert server.post(ping, session, origin=origin).status_code == status, origin
            assert server.post(ping, session, host="example.org").status_code == 421
            assert server.post(ping, session, **{"mcp-protocol-version": "1999-01-01"}).status_code == 400
            assert server.post(ping, session, accept="text/plain").status_code == 406
            assert requests.post(server.url, data="x", headers={"content-type": "text/plain"}, timeout=60).status_code == 415
            assert requests.get(server.url, timeout=60).status_code == 405
            assert requests.delete(server.url, headers={"mcp-session-id": session}, timeout=60).status_code == 204
            assert server.post(ping, session).status_code == 404
            # The header of a request without a session says what the message does.
            meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
            listing = {"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {"_meta": meta}}
            fields = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
            assert server.post(listing, **fields).json()["result"]["resultType"] == "complete"
            wrong = server.post(listing, **{**fields, "mcp-method": "ping"})
            assert wrong.status_code == 400 and wrong.json()["error"]["code"] == -32020, wrong.text
            unknown = {**listing, "params": {"_meta": {**meta, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}}}
            answer = server.post(unknown, **{**fields, "mcp-protocol-version": "2099-01-01"})
            assert answer.status_code == 400 and answer.json()["error"]["data"]["supported"] == ["2026-07-28"], answer.text
        token = "a-token-of-this-test-0123456789"
        with Server(cluster, environment={"QWEN_IMAGE_MCP_TOKEN": token}) as server:
            assert server.post(initialize).status_code == 401
            assert server.post(initialize, authorization="Bearer " + token[:-1] + "x").status_code == 401
            assert server.post(initialize, authorization=f"Bearer {token}").status_code == 200
        for host, environment, expected in (("0.0.0.0:0", {}, "QWEN_IMAGE_MCP_TOKEN"), ("127.0.0.1", {}, "HOST:PORT"),
                                            ("127.0.0.1:0", {"QWEN_IMAGE_MCP_TOKEN": "short"}, "at least 16")):
            result = subprocess.run([BINARIES / "qwen-image", *flags(cluster, "--http", host)], capture_output=True, text=True, timeout=60,
                                    env={**os.environ, **environment})
            assert result.returncode == 64 and expected in re.sub(r"\s+", " ", result.stderr), result.stderr


def test_a_gateway_that_is_not_there_is_named():
    async def run():
        parameters = StdioServerParameters(
            command=str(BINARIES / "qwen-image"), args=["mcp", "--gateway", f"http://127.0.0.1:{free_port()}"])
        async with Client(parameters, read_timeout_seconds=PATIENCE_SECONDS) as client:
            result = await client.call_tool("generate_image", {"prompt": "p"})
            assert result.is_error and "no gateway can be reached" in text(result) and "--gateway" in text(result), text(result)

    asyncio.run(run())


def test_a_gateways_key_is_used():
    async def ask(cluster, environment):
        parameters = StdioServerParameters(command=str(BINARIES / "qwen-image"), args=flags(cluster), env=environment)
        async with Client(parameters, read_timeout_seconds=PATIENCE_SECONDS) as client:
            return await client.call_tool("generate_image", {"prompt": "p", "steps": 2}), await client.call_tool("list_jobs")

    with Cluster(BINARIES, NANO) as cluster:
        made = [subprocess.run([BINARIES / "qwen-image", "api-key", name], check=True, capture_output=True, text=True) for name in ("one", "two")]
        (cluster.folder / "api-keys").write_text("".join(result.stdout for result in made))
        cluster.stop("gateway", signal.SIGTERM)
        cluster.settings = {"http-api-keys-file": cluster.folder / "api-keys"}
        cluster.start_gateway()
        cluster.wait_until_ready()
        refused, _ = asyncio.run(ask(cluster, {}))
        assert refused.is_error and "QWEN_IMAGE_API_KEY" in text(refused), text(refused)
        for result in made:
            key = result.stderr.split()[-1]
            image_made, jobs = asyncio.run(ask(cluster, {"QWEN_IMAGE_API_KEY": key}))
            assert not image_made.is_error, text(image_made)
            assert [job["id"] for job in jobs.structured_content["data"]] == [image_made.structured_content["job_id"]], "a tenant's own"


if __name__ == "__main__":
    sys.exit(testing.run("mcp", testing.functions(globals())))
