"""The official OpenAI client sees through the gateway what it sees without it, and typed errors where the gateway says no."""

import asyncio
import io
from pathlib import Path

import openai
import pytest
from conftest import eventually

HELLO = [{"role": "user", "content": "hello"}]


def client_of(house, key=None, **options):
    return openai.OpenAI(base_url=f"{house.data}/v1", api_key=key or house.key, **{"max_retries": 0, **options})


@pytest.fixture
def client(house):
    with client_of(house) as client:
        yield client


@pytest.fixture
def direct(house):
    with openai.OpenAI(base_url=f"{house.upstream}/v1", api_key="any", max_retries=0) as client:
        yield client


def plain(answer):
    """An answer without what differs from request to request."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items() if name not in ("id", "item_id", "created", "created_at")}
    return [plain(part) for part in answer] if isinstance(answer, list) else answer


def dump(answer):
    return plain(answer.model_dump())


CALLS = {
    "chat": lambda c: dump(c.chat.completions.create(model="llama", messages=HELLO)),
    "chat, n=2": lambda c: dump(c.chat.completions.create(model="llama", messages=HELLO, n=2, max_tokens=3)),
    "chat stream": lambda c: [dump(chunk) for chunk in c.chat.completions.create(model="llama", messages=HELLO, stream=True)],
    "chat stream with usage": lambda c: [
        dump(chunk)
        for chunk in c.chat.completions.create(model="llama", messages=HELLO, stream=True, stream_options={"include_usage": True})
    ],
    "chat stream without usage": lambda c: [
        dump(chunk)
        for chunk in c.chat.completions.create(model="llama", messages=HELLO, stream=True, stream_options={"include_usage": False})
    ],
    "completion": lambda c: dump(c.completions.create(model="llama", prompt=["one", "two"], max_tokens=4)),
    "completion stream": lambda c: [dump(chunk) for chunk in c.completions.create(model="llama", prompt="one", stream=True)],
    "embeddings": lambda c: dump(c.embeddings.create(model="llama", input=["a", "b"])),
    "response": lambda c: dump(c.responses.create(model="llama", input="hello", max_output_tokens=20)),
    "response stream": lambda c: [dump(event) for event in c.responses.create(model="llama", input="hello", stream=True)],
    "moderation": lambda c: len(c.moderations.create(model="llama", input="a").results),
    "transcription": lambda c: c.audio.transcriptions.create(model="llama", file=("a.wav", io.BytesIO(b"x" * 2_000_000))).text,
    "speech": lambda c: c.audio.speech.create(model="llama", voice="alloy", input="hello").content,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_answers_are_the_same_as_without_the_gateway(client, direct, call):
    assert call(client) == call(direct)


def test_usage_of_a_stream_is_there_exactly_when_asked_for(client):
    def usages(**options):
        chunks = list(client.chat.completions.create(model="llama", messages=HELLO, stream=True, **options))
        assert all(chunk.choices for chunk in chunks if chunk.usage is None)
        return [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]

    assert usages() == []
    assert usages(stream_options={"include_usage": False}) == []
    assert usages(stream_options={"include_usage": True}) == [12]


def test_the_list_of_models_is_the_gateways(client):
    assert [model.id for model in client.models.list()] == ["llama"]
    assert client.models.retrieve("llama").id == "llama"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_the_request_id_reaches_the_client_and_the_upstream(house, client):
    answer = client.chat.completions.create(model="llama", messages=HELLO, extra_headers={"x-request-id": "my-own-1"})
    assert answer._request_id == "my-own-1"
    assert client.chat.completions.create(model="llama", messages=HELLO)._request_id
    raw = client.chat.completions.with_raw_response.create(model="llama", messages=HELLO)
    assert raw.headers["x-obleth-request-id"] and int(raw.headers["x-obleth-queue-ms"]) >= 0
    assert "my-own-1" in [entry["id"] for entry in house.upstream_requests()]


def error_of(kind, call, code):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert caught.value.request_id
    return caught.value


def test_refusals_are_typed_errors(house, client):
    def chat(client, **more):
        return lambda: client.chat.completions.create(**{"model": "llama", "messages": HELLO, **more})

    error_of(openai.AuthenticationError, chat(client_of(house, "sk_" + "0" * 64)), "invalid_api_key")
    disabled, secret = house.new_key()
    house.manage("PUT", f"keys/{disabled['id']}/disabled", {"disabled": True})
    error_of(openai.PermissionDeniedError, chat(client_of(house, secret)), "key_disabled")
    _, narrow = house.new_key(allowed_models=["other"])
    error_of(openai.PermissionDeniedError, chat(client_of(house, narrow)), "model_not_allowed")
    error_of(openai.NotFoundError, chat(client, model="nobody"), "model_not_found")
    missing = error_of(openai.BadRequestError, lambda: client.post("/chat/completions", body={"messages": []}, cast_to=object), "missing_model")
    assert missing.param == "model"


def test_a_used_up_quota_is_a_rate_limit_error_that_says_when(house):
    _, secret = house.new_key(requests_per_minute=1)
    with client_of(house, secret) as client:
        client.chat.completions.create(model="llama", messages=HELLO)
        error = error_of(
            openai.RateLimitError, lambda: client.chat.completions.create(model="llama", messages=HELLO), "rate_limit_exceeded"
        )
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_errors_of_the_upstream_come_back_as_they_are(client):
    for status, kind in [
        (400, openai.BadRequestError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ]:
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model="llama", messages=HELLO, extra_body={"sim_fault": f"status={status}"})
        assert (caught.value.status_code, caught.value.body["message"]) == (status, "a simulated fault")


def test_the_clients_retries_are_its_own(house):
    def attempts(max_retries, fault):
        before = house.upstream_stats()["requests"]
        with client_of(house, max_retries=max_retries) as client:
            try:
                client.chat.completions.create(model="llama", messages=HELLO, extra_body={"sim_fault": fault})
                done = True
            except openai.InternalServerError:
                done = False
        return done, house.upstream_stats()["requests"] - before

    assert attempts(0, "status=503,times=1") == (False, 1)
    assert attempts(2, "status=503,times=1,delay=1") == (True, 2)
    assert attempts(2, "status=500,times=9") == (False, 3)


def test_an_interrupted_stream_is_an_error_not_an_end(client):
    seen = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="llama", messages=HELLO, stream=True, extra_body={"sim_fault": "cut=4"}):
            seen.append(chunk)
    assert len(seen) == 1 + 4, "the role and four tokens"
    assert caught.value.code == "upstream_interrupted"


def test_leaving_a_stream_stops_the_upstream(house, client):
    before = house.upstream_stats()["aborted"]
    stream = client.chat.completions.create(
        model="llama", messages=HELLO, stream=True, extra_body={"sim_output_tokens": 1_000_000}
    )
    next(stream)
    stream.close()
    eventually(lambda: house.upstream_stats()["aborted"] == before + 1, 1.0)
    eventually(lambda: house.manage("GET", "stats")["in_flight"] == 0, 1.0)


def test_a_hundred_at_once_are_all_answered(house):
    async def one(client):
        chunks = 0
        async for chunk in await client.chat.completions.create(model="llama", messages=HELLO, stream=True):
            chunks += bool(chunk.choices and chunk.choices[0].delta.content)
        return chunks

    async def many():
        async with openai.AsyncOpenAI(base_url=f"{house.data}/v1", api_key=house.key, max_retries=0) as client:
            return await asyncio.gather(*(one(client) for _ in range(100)))

    assert asyncio.run(many()) == [12] * 100


def test_the_readmes_program_is_answered(house):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0]
    assert "http://127.0.0.1:8080" in program and "sk_…" in program
    exec(program.replace("http://127.0.0.1:8080", house.data).replace("sk_…", house.key), {})
