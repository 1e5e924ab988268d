"""Does one round of everything with each Python client, and says what came of it.

Usage: clients.py NODE BRIDGE URL KEY   The bridge is a stdio server that speaks HTTP to the URL.
"""

import asyncio
import sys
from typing import Any

import httpx2
from fastmcp import Client as FastClient
from fastmcp.client.transports import StreamableHttpTransport
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CreateMessageResult, ElicitResult, TextContent

NODE, BRIDGE, URL, KEY = sys.argv[1:5]
HEADERS = {"Authorization": f"Bearer {KEY}"}


async def sample(*_: Any) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="Paris"), model="m")


async def elicit(*_: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"username": "u", "email": "e@example.com", "name": "n"})


def words(result: Any) -> str:
    return " ".join(getattr(part, "text", part.type) for part in result.content)


async def round(name: str, client: Any, asks: str) -> None:
    """`asks` is the tool with which the server asks back, in its generation's way."""
    progress: list[float] = []

    async def note(done: float, *_: Any) -> None:
        progress.append(done)

    listed = await client.list_tools()
    print(f"{name}: tools", len(getattr(listed, "tools", listed)))
    print(f"{name}:", words(await client.call_tool("test_simple_text", {})))
    # How many come in before the answer is the client's own affair.
    worked = await client.call_tool("test_tool_with_progress", {}, **{PROGRESS[name]: note})
    print(f"{name}:", words(worked), "with progress" if progress else "without progress")
    print(f"{name}:", words(await client.call_tool(asks, {"prompt": "Where?"} if asks == "test_sampling" else {})))
    resource = await client.read_resource("test://static-text")
    print(f"{name}:", getattr(resource, "contents", resource)[0].text)
    prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
    print(f"{name}:", prompt.messages[0].content.text)


PROGRESS = {
    "python, older": "progress_callback",
    "python, newer": "progress_callback",
    "fastmcp": "progress_handler",
    "mcp-remote": "progress_callback",
}


async def main() -> None:
    answers = {"sampling_callback": sample, "elicitation_callback": elicit}
    for name, mode, asks in (
        ("python, older", "legacy", "test_sampling"),
        ("python, newer", "2026-07-28", "test_input_required_result_elicitation"),
    ):
        async with httpx2.AsyncClient(headers=HEADERS, timeout=30) as http:
            async with Client(streamable_http_client(URL, http_client=http), mode=mode, **answers) as client:
                await round(name, client, asks)
    async with FastClient(StreamableHttpTransport(URL, headers=HEADERS)) as client:
        await round("fastmcp", client, "test_simple_text")
    bridge = [BRIDGE, URL, "--header", f"Authorization:Bearer {KEY}", "--transport", "http-only", "--allow-http", "--silent"]
    async with Client(StdioServerParameters(command=NODE, args=bridge), mode="legacy") as client:
        await round("mcp-remote", client, "test_simple_text")


asyncio.run(asyncio.wait_for(main(), 90))
