"""Measures proxies side by side: requests per second, latency, CPU per request and per SSE chunk, memory per open stream.

All stand in front of the same simulated server and run with one worker thread, pinned to the last core; the server and the
load generators are pinned to the first, so that on two cores neither takes the other's time. Rounds are interleaved and
their order alternates. CPU is what the scheduler booked for every thread of the proxy (schedstat), memory is resident pages.
Prints medians (least..greatest). Standard library only; wrk makes the requests that are no streams.
"""

import argparse
import http.client
import json
import os
import re
import secrets
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(os.environ.get("BIN", "target/release"))
LOAD_CORE, PROXY_CORE = 0, os.cpu_count() - 1
SSE_STREAMS, SSE_MS_PER_TOKEN = 200, 25
# Of each of 64 connections between two requests: some 5 000 requests/s, half of what the slowest can do. At its own full
# speed each proxy runs at another rate, and the kernel's share of a request falls with the rate.
PACED_MS = 12
IDLE_MS_PER_TOKEN = 5000
# About 1 KB each way.
SMALL = {"model": "llama", "max_tokens": 180, "sim_output_tokens": 180, "messages": [{"role": "user", "content": "x" * 950}]}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(core, command, greeting=False, **options):
    """A child on one core; with `greeting`, its first line comes too."""
    child = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE if greeting else subprocess.DEVNULL, text=True, **options)
    line = child.stdout.readline() if greeting else ""
    if greeting and not line:
        sys.exit(f"{command[0]} ended at once")
    return child, line


def tree(pid):
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in tree(int(child)))]


def cpu_seconds(pid):
    total = 0
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_bytes(pid):
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def call(port, method, path, body=None, token=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status >= 300:
        sys.exit(f"{method} {path}: {response.status} {text.decode()}")
    return json.loads(text) if text else None


class Target:
    """Something that answers on a port, and the process whose CPU and memory count for it."""

    def __init__(self, name, port, child, key="none", model="llama"):
        self.name, self.port, self.child, self.key, self.model = name, port, child, key, model

    def wait(self):
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > end:
                    sys.exit(f"{self.name} does not listen")
                time.sleep(0.05)

    def request(self, body):
        data = json.dumps(body)
        return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n{data}").encode()


def nginx(scratch, upstream):
    port = free_port()
    conf = scratch / "nginx.conf"
    conf.write_text(f"""
        daemon off; master_process on; worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;
        worker_rlimit_nofile 65536; events {{ worker_connections 32768; }}
        http {{
            access_log off; client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;
            fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
            keepalive_requests 100000000;
            upstream sim {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=8192;
                location / {{
                    proxy_pass http://sim; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
                    proxy_read_timeout 600s;
                }}
            }}
        }}""")
    child, _ = start(PROXY_CORE, ["nginx", "-p", scratch, "-c", conf, "-e", scratch / "nginx.log"])
    return Target("nginx", port, child).wait()


def bare_pingora(scratch, upstream):
    port = free_port()
    log = open(scratch / "pingora.log", "w")
    child, _ = start(PROXY_CORE, [BIN / "examples" / "bare_pingora", f"127.0.0.1:{port}", f"127.0.0.1:{upstream}"], stderr=log)
    return Target("bare Pingora", port, child).wait()


def obleth(scratch, upstream):
    token = secrets.token_hex(16)
    command = [BIN / "obleth", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--threads", "1", "--store",
               scratch / "obleth.db", "--max-in-flight", "100000", "--log-level", "error"]
    child, line = start(PROXY_CORE, command, True, env={**os.environ, "OBLETH_ADMIN_TOKEN": token})
    data, management = (int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", line))
    manage = lambda path, body: call(management, "POST", f"/api/v1/{path}", body, token)
    model = {"api_base": f"http://127.0.0.1:{upstream}", "engine": "vllm"}
    manage("models", {"model_name": "llama", **model})
    manage("models", {"model_name": "kept", "upstream_model": "llama", "cache_enabled": True, "cache_ttl_secs": 3600, **model})
    tenant = manage("tenants", {"name": "bench"})["id"]
    return Target("obleth", data, child, manage(f"tenants/{tenant}/keys", {"name": "bench"})["secret"]).wait()


def small_requests(target, scratch, seconds, pause_ms=0):
    """wrk, one thread, 64 connections: requests/s, p50 and p99 in ms, CPU seconds per 100 000 requests."""
    script = scratch / "wrk.lua"
    script.write_text(f"""wrk.method = "POST"
        wrk.body = [==[{json.dumps({**SMALL, "model": target.model})}]==]
        wrk.headers["Authorization"] = "Bearer {target.key}"
        wrk.headers["Content-Type"] = "application/json"
        {f"function delay() return {pause_ms} end" if pause_ms else ""}
        done = function(s, l, r)
            local e = s.errors
            print(string.format("RESULT %d %f %f %f %d", s.requests, s.duration / 1e6, l:percentile(50) / 1e3,
                l:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
        end""")
    before = cpu_seconds(target.child.pid)
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", "-c64", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{target.port}/v1/chat/completions"]
    output = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    cpu = cpu_seconds(target.child.pid) - before
    requests, duration, p50, p99, errors = map(float, re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\S+)", output).groups())
    if errors:
        sys.exit(f"{target.name}: {errors:.0f} requests failed")
    at = "paced " if pause_ms else ""
    return {f"{at}req/s": requests / duration, f"{at}p50 ms": p50, f"{at}p99 ms": p99, f"{at}CPU-s/100k req": cpu / requests * 1e5}


class Streams:
    """Many open streams, read by one thread."""

    def __init__(self, target, many, ms_per_token, tokens):
        body = {"model": "llama", "stream": True, "messages": [{"role": "user", "content": "hello"}],
                "sim_ms_per_token": ms_per_token, "sim_output_tokens": tokens, "max_tokens": tokens}
        request = target.request(body)
        self.selector, self.sockets, self.chunks, self.begun = selectors.DefaultSelector(), [], 0, set()
        for _ in range(many):
            stream = socket.create_connection(("127.0.0.1", target.port), 30)
            stream.sendall(request)
            stream.setblocking(False)
            self.selector.register(stream, selectors.EVENT_READ)
            self.sockets.append(stream)
            if len(self.sockets) % 50 == 0:
                self.read(0)

    def read(self, timeout):
        """Reads what there is; whether anything is still open."""
        for key, _ in self.selector.select(timeout):
            data = key.fileobj.recv(65536)
            if data and key.fileobj not in self.begun:
                if not data.startswith(b"HTTP/1.1 200"):
                    sys.exit(f"a stream was refused: {data[:700]!r}")
                self.begun.add(key.fileobj)
            self.chunks += data.count(b"data: ")
            if not data or data.endswith(b"0\r\n\r\n"):
                self.selector.unregister(key.fileobj)
        return bool(self.selector.get_map())

    def close(self):
        for stream in self.sockets:
            stream.close()


def sse(target, seconds):
    """CPU seconds per 100 000 chunks, with 200 streams of 40 chunks per second each."""
    before = cpu_seconds(target.child.pid)
    streams = Streams(target, SSE_STREAMS, SSE_MS_PER_TOKEN, int(seconds * 1000 / SSE_MS_PER_TOKEN))
    while streams.read(1):
        pass
    cpu = cpu_seconds(target.child.pid) - before
    streams.close()
    return {"CPU-s/100k chunks": cpu / streams.chunks * 1e5}


def memory(target, many):
    """Resident bytes per open stream that is silent for seconds at a time."""
    before = resident_bytes(target.child.pid)
    streams = Streams(target, many, IDLE_MS_PER_TOKEN, 1000)
    end = time.monotonic() + 20
    while len(streams.begun) < many and time.monotonic() < end:
        streams.read(0.5)
    settle = time.monotonic() + 2
    while time.monotonic() < settle:
        streams.read(0.2)
    opened, grown = len(streams.begun), resident_bytes(target.child.pid) - before
    streams.close()
    if opened < many:
        print(f"  {target.name}: only {opened} of {many} streams began", file=sys.stderr)
    return {"KiB/stream": grown / max(opened, 1) / 1024}


def shown(values):
    middle = statistics.median(values)
    digits = 0 if middle >= 1000 else 1 if middle >= 100 else 2
    return f"{middle:.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})" if len(values) > 1 else f"{middle:.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round and 1000 streams")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--streams", type=int, default=5000, help="open at once where memory is measured")
    parser.add_argument("--only", help="comma-separated: nginx, bare, obleth")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.streams = 1, 2, min(options.streams, 1000)
    wanted = options.only.split(",") if options.only else ["nginx", "bare", "obleth"]

    running = []
    with tempfile.TemporaryDirectory(prefix="obleth-bench-") as folder:
        scratch = Path(folder)
        os.sched_setaffinity(0, {LOAD_CORE})
        try:
            command = [BIN / "obleth", "sim-upstream", "--slots", "100000", "--log-length", "0"]
            child, line = start(LOAD_CORE, command, True)
            running.append(child)
            upstream = int(line.rsplit(":", 1)[1])
            targets = [Target("direct", upstream, child)]
            for name, make in [("nginx", nginx), ("bare", bare_pingora), ("obleth", obleth)]:
                if name in wanted:
                    targets.append(make(scratch, upstream))
                    running.append(targets[-1].child)
                    if name == "obleth":
                        # The same gateway, which has the answer already.
                        of = targets[-1]
                        targets.append(Target("obleth, kept answer", of.port, of.child, of.key, "kept"))
            results = {target.name: {} for target in targets}
            for target in targets:
                small_requests(target, scratch, 1)
            for round in range(options.rounds):
                for target in targets if round % 2 == 0 else targets[::-1]:
                    measured = small_requests(target, scratch, options.seconds)
                    measured |= small_requests(target, scratch, options.seconds, PACED_MS)
                    if target.model == "llama":
                        measured |= sse(target, options.seconds)
                    for name, value in measured.items():
                        results[target.name].setdefault(name, []).append(value)
                print(f"round {round + 1} of {options.rounds} done", file=sys.stderr)
            # Last, because what was allocated once may stay.
            for target in [target for target in targets[1:] if target.model == "llama"]:
                for name, value in memory(target, options.streams).items():
                    results[target.name].setdefault(name, []).append(value)
        finally:
            for child in reversed(running):
                child.terminate()
            for child in running:
                try:
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    names = list(dict.fromkeys(name for result in results.values() for name in result))
    print(f"{os.cpu_count()} cores, {options.rounds} rounds of {options.seconds} s, {options.streams} streams for memory; "
          "the CPU of `direct` is the simulated server's own")
    table = [["", *names], *([target, *(shown(result[name]) if name in result else "-" for name in names)] for target, result in results.items())]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


main()
