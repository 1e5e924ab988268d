"""A gateway in front of a simulated server, as child processes, set up over the management API."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

# A proxy of the machine must not come between.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
    os.environ.pop(name, None)

PROGRAM = os.environ.get("OBLETH", str(Path(__file__).parents[2] / "target" / "debug" / "obleth"))
TOKEN = "a-token-of-the-client-tests"


def fetch(url, method="GET", body=None, token=None):
    """The JSON at an address; anything but a 2xx fails the test with its body."""
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read().decode()}") from error
    return json.loads(text) if text else None


class Child:
    """A running `obleth`; its first line says where it listens."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen(
            [PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True
        )
        self.greeting = self.process.stdout.readline().split()
        assert self.greeting, f"obleth {arguments[0]} ended at once"

    def url(self, label=""):
        return next(word.removeprefix(label) for word in self.greeting if word.startswith(f"{label}http://"))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class House:
    """Both, and what was set up in them."""

    upstream: str
    data: str
    management: str
    tenant: str
    key: str

    def manage(self, method, path, body=None):
        return fetch(f"{self.management}/api/v1/{path}", method, body, TOKEN)

    def new_key(self, **fields):
        """Another key of the tenant: its object and its secret."""
        made = self.manage("POST", f"tenants/{self.tenant}/keys", {"name": "k", **fields})
        return made["key"], made["secret"]

    def upstream_stats(self):
        return fetch(f"{self.upstream}/sim/stats")

    def upstream_requests(self):
        return fetch(f"{self.upstream}/sim/requests")


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    store = tmp_path_factory.mktemp("gateway") / "obleth.db"
    upstream = Child("sim-upstream", "--output-tokens", "12", "--ms-per-token", "1")
    try:
        gateway = Child(
            *("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--store", str(store), "--log-level", "warn"),
            OBLETH_ADMIN_TOKEN=TOKEN,
        )
        try:
            house = House(upstream.url(), gateway.url("data="), gateway.url("management="), "", "")
            house.tenant = house.manage("POST", "tenants", {"name": "acme"})["id"]
            house.key = house.new_key()[1]
            house.manage("POST", "models", {"model_name": "llama", "api_base": house.upstream, "engine": "vllm"})
            yield house
        finally:
            gateway.stop()
    finally:
        upstream.stop()


def eventually(ready, seconds=2.0):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
