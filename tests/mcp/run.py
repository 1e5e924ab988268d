"""Runs the official conformance suite and independent clients against a conforming server, directly and through gateways.

Usage: run.py OBLETH NODE MODULES SCRATCH   (scripts/test-mcp calls it)

A gateway must not show: of each revision every check has the same verdict directly, through one gateway, and through two that
share a sealing key and are asked in turn, request by request. Exits 1 with the differences otherwise.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
OBLETH, NODE, MODULES, SCRATCH = (Path(argument).absolute() for argument in sys.argv[1:5])
SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
SECRET = "sk_" + "5eed" * 16
TOKEN = "a-token-of-the-protocol-tests"
# Fewer checks say that the suite did not run, not that all is well.
REVISIONS = {"2025-11-25": 90, "2026-07-28": 170}
# Checks that look at time windows of half a second may fall on a busy machine; a difference counts when it is there twice.
TRIES = 2
RESOURCES = """
server: {{ listen: "127.0.0.1:0", threads: 2 }}
admin: {{ listen: "127.0.0.1:0" }}
store: {{ path: "{store}" }}
log: {{ level: warn }}
tenants: [{{ name: acme, keys: [{{ name: suite, secret: {secret} }}] }}]
mcp_servers:
  - {{ name: everything, upstream_url: "http://127.0.0.1:{port}/mcp" }}
  - {{ name: guarded, upstream_url: "http://127.0.0.1:{port}/mcp", denied_tools: [test_denied_tool], max_in_flight: 8 }}
"""

children: list[subprocess.Popen] = []


def start(*command: object, log: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts a child whose first line of output says where it listens."""
    errors = open(SCRATCH / f"{log}.log", "w")
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(env or {})})
    children.append(child)
    return child


def port_of(child: subprocess.Popen) -> int:
    line = child.stdout.readline()
    found = re.search(r"data=http://127\.0\.0\.1:(\d+)", line) or re.search(r"^(\d+)$", line.strip())
    assert found, f"no port in {line!r}"
    return int(found.group(1))


def gateway(name: str, server_port: int) -> int:
    folder = SCRATCH / name
    folder.mkdir()
    file = folder / "obleth.yaml"
    file.write_text(RESOURCES.format(store=folder / "obleth.db", secret=SECRET, port=server_port))
    env = {"OBLETH_ADMIN_TOKEN": TOKEN, "OBLETH_ENCRYPTION_KEY": "0b" * 32}
    return port_of(start(OBLETH, "serve", "--config", file, log=name, env=env))


def front(name: str, *ports: int) -> str:
    """A way in without a key; see front.mjs."""
    return f"http://127.0.0.1:{port_of(start(NODE, HERE / 'front.mjs', SECRET, *ports, log=name))}/mcp"


def verdicts(url: str, revision: str, label: str) -> dict[str, list[tuple[str, str]]]:
    """Every check of every scenario, by scenario."""
    out = SCRATCH / f"{label}-{revision}-{time.monotonic_ns()}"
    command = [NODE, SUITE, "server", "--url", url, "--requirements", revision, "-o", out]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    (SCRATCH / f"{out.name}.txt").write_text(ran.stdout + ran.stderr)
    found: dict[str, list[tuple[str, str]]] = {}
    for checks in sorted(out.glob("*/checks.json")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", checks.parent.name)
        found.setdefault(scenario, []).extend((check["id"], check["status"]) for check in json.loads(checks.read_text()))
    found["required scenarios"] = [("exit code", str(ran.returncode))]
    return found


def differences(direct: dict, through: dict) -> list[str]:
    lines = []
    for scenario in sorted(direct.keys() | through.keys()):
        here, there = direct.get(scenario, []), through.get(scenario, [])
        if here != there:
            lines.append(f"  {scenario}: directly {[check for check in here if check not in there]}, through {[check for check in there if check not in here]}")
    return lines


def compare(direct_url: str, url: str, revision: str, label: str) -> bool:
    for attempt in range(TRIES):
        direct, through = verdicts(direct_url, revision, "direct"), verdicts(url, revision, label)
        lines = differences(direct, through)
        if not lines:
            break
        print(f"{revision} {label}, attempt {attempt + 1}:", *lines, sep="\n")
    checks = [status for scenario in direct.values() for _, status in scenario]
    failed = direct["required scenarios"] != [("exit code", "0")] or len(checks) < REVISIONS[revision]
    told = "the server itself does not conform" if failed else "differ" if lines else "identical"
    print(f"{revision} {label}: {len(direct) - 1} scenarios, {len(checks)} checks, {checks.count('SUCCESS')} passed: {told}", flush=True)
    return not lines and not failed


def clients(direct_url: str, gateway_url: str, guarded_url: str) -> bool:
    """Each client does the same directly and through the gateway, with a key of its own. At the server that denies a tool it sees
    one tool less: that the suite sees no difference there could also mean that nothing is filtered."""
    bridge = MODULES / "mcp-remote/dist/proxy.js"
    env = {**os.environ, "MCP_REMOTE_CONFIG_DIR": str(SCRATCH / "mcp-remote"), "NODE_PATH": str(MODULES)}
    commands = {
        "python": [sys.executable, "-B", HERE / "clients.py", NODE, bridge],
        "typescript": [NODE, HERE / "clients.mjs", MODULES],
    }
    good = True
    for name, command in commands.items():
        told = []
        for url in (direct_url, gateway_url, guarded_url):
            ran = subprocess.run([*map(str, command), url, SECRET], capture_output=True, text=True, timeout=120, env=env)
            told.append((ran.returncode, ran.stdout))
            if ran.returncode:
                print(ran.stdout, ran.stderr[-4000:])
        less = re.sub(r"(?m)tools (\d+)$", lambda tools: f"tools {int(tools[1]) - 1}", told[0][1])
        same = told[0] == told[1] and told[0][0] == 0 and less != told[0][1] and told[2] == (0, less)
        print(f"clients, {name}: {'the same' if same else 'differ'}\n{told[1][1]}", end="", flush=True)
        good &= same
    return good


def main() -> int:
    server = port_of(start(sys.executable, "-B", HERE / "server.py", log="server"))
    one, two = gateway("one", server), gateway("two", server)
    direct = f"http://127.0.0.1:{server}/mcp"
    way, ways = front("front", one), front("fronts", one, two)
    through = {
        "through one": f"{way}/everything",
        "through two in turn": f"{ways}/everything",
        # Tools are denied here, so every list is read and cut on its way.
        "through two in turn, guarded": f"{ways}/guarded",
    }
    good = [compare(direct, url, revision, label) for revision in REVISIONS for label, url in through.items()]
    good.append(clients(direct, *(f"http://127.0.0.1:{one}/mcp/{name}" for name in ("everything", "guarded"))))
    return 0 if all(good) else 1


if __name__ == "__main__":
    try:
        code = main()
    finally:
        # Fixtures that wait for connections to end would wait for each other.
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    sys.exit(code)
