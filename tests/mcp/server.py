"""An MCP server with every fixture that the official conformance suite asks for, on the official Python SDK, of both generations.

Usage: server.py   Listens on a port of the system's on 127.0.0.1 and prints it.
"""

import asyncio
import base64
import json
import socket
import struct
import zlib
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.shared.exceptions import MCPError
from mcp_types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field


def png() -> str:
    """One red pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixel) + part(b"IEND", b"")).decode()


def wav() -> str:
    """No sound at all."""
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    return base64.b64encode(b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + bytes(4)).decode()


PNG, WAV = png(), wav()
server = MCPServer("obleth-conformance", version="1", request_state_security=RequestStateSecurity(keys=[bytes(range(32))]))
tool = server.tool


class Kept(EventStore):
    """Events by number, so that a stream can be taken up again."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self.events):
            return None
        stream = self.events[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.events, 1):
            if of == stream and number > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def resource(uri: str, words: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=words))


# What tools give back.


@tool(description="Answers with a text.")
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@tool(description="Answers with an image.")
def test_image_content() -> list[ImageContent]:
    return [image()]


@tool(description="Answers with a sound.")
def test_audio_content() -> list[AudioContent]:
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@tool(description="Answers with a resource.")
def test_embedded_resource() -> list[EmbeddedResource]:
    return [resource("test://embedded-resource", "This is an embedded resource content.")]


@tool(description="Answers with a text, an image and a resource.")
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    mixed = json.dumps({"test": "data", "value": 123})
    return [text("Multiple content types test:"), image(), resource("test://mixed-content-resource", mixed, "application/json")]


@tool(description="Fails.")
def test_error_handling() -> str:
    raise ValueError("This tool intentionally returns an error for testing")


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool(name="json_schema_2020_12_tool", description="Tool with JSON Schema 2020-12 features")
def schema_tool(name: str = "") -> str:
    return name


# What tools say meanwhile, and what they ask.


@tool(description="Logs while it works.")
async def test_tool_with_logging(ctx: Context) -> str:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(words)
        await asyncio.sleep(0.05)
    return "logged"


@tool(description="Logs where the client wants it.")
async def test_logging_tool(ctx: Context) -> str:
    await ctx.info("a line")
    return "logged"


@tool(description="Tells how far it is.")
async def test_tool_with_progress(ctx: Context) -> str:
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100)
        await asyncio.sleep(0.05)
    return "done"


@tool(description="Asks the client's model.")
async def test_sampling(prompt: str, ctx: Context) -> str:
    asked = [SamplingMessage(role="user", content=text(prompt))]
    said = await ctx.session.create_message(messages=asked, max_tokens=100, related_request_id=ctx.request_id)
    return f"LLM response: {getattr(said.content, 'text', said.content)}"


class Person(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


@tool(description="Asks the user.")
async def test_elicitation(message: str, ctx: Context) -> str:
    said = await ctx.elicit(message=message, schema=Person)
    return f"User response: {said.action}"


async def ask_form(ctx: Context, properties: dict[str, Any]) -> str:
    form = {"type": "object", "properties": properties, "required": []}
    said = await ctx.session.elicit_form(message="Please fill in", requested_schema=form, related_request_id=ctx.request_id)
    return f"Elicitation completed: action={said.action}, content={said.content}"


@tool(description="Asks the user, with answers proposed.")
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await ask_form(ctx, properties)


@tool(description="Asks the user to choose, in every way there is.")
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{at}", "title": f"{word} Option"} for at, word in enumerate(("First", "Second", "Third"), 1)]
    choices = [{"const": f"value{at}", "title": f"{word} Choice"} for at, word in enumerate(("First", "Second", "Third"), 1)]
    legacy = {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": legacy,
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": choices}},
    }
    return await ask_form(ctx, properties)


@tool(description="Closes its stream in the middle, and finishes on the next.")
async def test_reconnection(ctx: Context) -> str:
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return "reconnected"


# What tools of the newer generation ask: by giving the question back.


def name_form(property: str = "name", kind: str = "string") -> dict[str, Any]:
    return {"type": "object", "properties": {property: {"type": kind}}, "required": [property]}


def elicit(message: str, form: dict[str, Any]) -> dict[str, Any]:
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": form}}


def sample(words: str, tokens: int) -> dict[str, Any]:
    asked = [{"role": "user", "content": {"type": "text", "text": words}}]
    return {"method": "sampling/createMessage", "params": {"messages": asked, "maxTokens": tokens}}


ROOTS = {"method": "roots/list", "params": {}}
ASK_NAME = {"user_name": elicit("What is your name?", name_form())}


def wanted(asks: dict[str, Any], state: str | None = None) -> InputRequiredResult:
    return InputRequiredResult.model_validate({"inputRequests": asks, "requestState": state})


def given(ctx: Context, key: str) -> Any:
    """What the client answers to one of the questions."""
    return (ctx.input_responses or {}).get(key)


def field(answer: Any, name: str) -> Any:
    return (getattr(answer, "content", None) or {}).get(name)


@tool(description="Asks for a name first.")
def test_input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
    name = field(given(ctx, "user_name"), "name")
    return f"Hello, {name}!" if name else wanted(ASK_NAME)


@tool(description="Asks the client's model first.")
def test_input_required_result_sampling(ctx: Context) -> str | InputRequiredResult:
    said = given(ctx, "capital_question")
    if said is None:
        return wanted({"capital_question": sample("What is the capital of France?", 100)})
    return f"The model says: {getattr(said.content, 'text', said.content)}"


@tool(description="Asks for roots first.")
def test_input_required_result_list_roots(ctx: Context) -> str | InputRequiredResult:
    said = given(ctx, "client_roots")
    return wanted({"client_roots": ROOTS}) if said is None else "Roots: " + ", ".join(str(root.uri) for root in said.roots)


@tool(description="Asks for a yes, and remembers what for.")
def test_input_required_result_request_state(ctx: Context) -> str | InputRequiredResult:
    if given(ctx, "confirm") is None or ctx.request_state != "to-confirm":
        return wanted({"confirm": elicit("Please confirm", name_form("ok", "boolean"))}, "to-confirm")
    return "state-ok"


@tool(description="Asks three things at once.")
def test_input_required_result_multiple_inputs(ctx: Context) -> str | InputRequiredResult:
    asks = {**ASK_NAME, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS}
    if any(given(ctx, key) is None for key in asks):
        return wanted(asks, "three")
    return "all answered"


@tool(description="Asks one thing after another.")
def test_input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
    if given(ctx, "step2") is not None and ctx.request_state == "two":
        return "both steps done"
    if given(ctx, "step1") is not None and ctx.request_state == "one":
        return wanted({"step2": elicit("Step 2: What is your favorite color?", name_form("color"))}, "two")
    return wanted({"step1": elicit("Step 1: What is your name?", name_form())}, "one")


@tool(description="Gives a state that must come back as it was.")
def test_input_required_result_tampered_state(ctx: Context) -> str | InputRequiredResult:
    if ctx.request_state is None:
        return wanted({"confirm": elicit("Please confirm", name_form("ok", "boolean"))}, "sealed")
    return "untouched"


@tool(description="Asks only what the client can answer.")
def test_input_required_result_capabilities(ctx: Context) -> str | InputRequiredResult:
    can = ctx.client_capabilities
    asks: dict[str, Any] = {}
    if can and can.sampling is not None:
        asks["greeting"] = sample("Generate a greeting", 50)
    if can and can.elicitation is not None:
        asks.update(ASK_NAME)
    return wanted(asks) if asks and not ctx.input_responses else "nothing to ask"


@tool(description="Asks in its stream, of either generation.")
def test_streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
    return wanted(ASK_NAME) if given(ctx, "user_name") is None else "answered"


@tool(description="Cannot work without a model of the client's.")
def test_missing_capability(ctx: Context) -> str:
    can = ctx.client_capabilities
    if can is None or can.sampling is None:
        raise MCPError(code=-32021, message="The client cannot sample", data={"requiredCapabilities": {"sampling": {}}})
    return "it can"


@tool(description="Says that the tools have changed.")
async def test_trigger_tool_change(ctx: Context) -> str:
    await ctx.notify_tools_changed()
    return "said"


@tool(description="Says that the prompts have changed.")
async def test_trigger_prompt_change(ctx: Context) -> str:
    await ctx.notify_prompts_changed()
    return "said"


@tool(description="Is denied by the gateways.")
def test_denied_tool() -> str:
    return "called all the same"


@tool(description="Wants its argument in a header as well.")
def test_x_mcp_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "") -> str:
    return region


# Resources and prompts.


@server.resource("test://static-text", mime_type="text/plain", description="A text.")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png", description="An image.")
def static_binary() -> bytes:
    return base64.b64decode(PNG)


@server.resource("test://watched-resource", mime_type="text/plain", description="A text to be watched.")
def watched() -> str:
    return "watched"


@server.resource("test://template/{id}/data", mime_type="application/json", description="Made of its address.")
def templated(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.prompt(description="A text.")
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@server.prompt(description="A text made of two.")
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt(description="A resource and a text.")
def test_prompt_with_embedded_resource(resourceUri: str) -> list[dict[str, Any]]:
    given = resource(resourceUri, "Embedded resource content for testing.")
    return [{"role": "user", "content": given}, {"role": "user", "content": text("Please process the embedded resource above.")}]


@server.prompt(description="An image and a text.")
def test_prompt_with_image() -> list[dict[str, Any]]:
    return [{"role": "user", "content": image()}, {"role": "user", "content": text("Please analyze the image above.")}]


@server.prompt(description="Asks for its context first.")
def test_input_required_result_prompt(ctx: Context) -> Any:
    said = given(ctx, "user_context")
    if said is None:
        return wanted({"user_context": elicit("What context should the prompt use?", name_form("context"))})
    return f"In the context of {field(said, 'context')}"


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    return Completion(values=[word for word in ("paris", "park", "party") if word.startswith(argument.value)], total=3, has_more=False)


async def accept(ctx: Any, params: Any) -> EmptyResult:
    return EmptyResult()


def main() -> None:
    lowlevel = server._lowlevel_server
    # The convenient half of the SDK has no words for these.
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
    server._tool_manager.get_tool("json_schema_2020_12_tool").parameters = SCHEMA
    app = server.streamable_http_app(event_store=Kept(), retry_interval=100)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
