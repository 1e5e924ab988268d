"""The official Anthropic client, on the routes that speak its dialect."""

import anthropic
import pytest
from conftest import eventually

ASK = {"model": "llama", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}


def client_of(house, key=None, **options):
    return anthropic.Anthropic(base_url=house.data, api_key=key or house.key, max_retries=0, **options)


@pytest.fixture
def client(house):
    with client_of(house) as client:
        yield client


@pytest.fixture
def direct(house):
    with anthropic.Anthropic(base_url=house.upstream, api_key="any", max_retries=0) as client:
        yield client


def plain(answer):
    dumped = answer.model_dump()
    dumped.pop("id", None)
    return dumped


def test_messages_are_the_same_as_without_the_gateway(client, direct):
    through, without = client.messages.create(**ASK), direct.messages.create(**ASK)
    assert plain(through) == plain(without)
    assert through.usage.output_tokens == 12 and through.stop_reason == "end_turn"


def test_a_stream_adds_up_to_the_message(client, direct):
    def streamed(client):
        with client.messages.stream(**ASK) as stream:
            texts = list(stream.text_stream)
            return texts, plain(stream.get_final_message())

    assert streamed(client) == streamed(direct)
    texts, final = streamed(client)
    assert len(texts) == 12 and final["usage"]["output_tokens"] == 12


def test_tokens_are_counted_without_generating(client, direct):
    ask = {name: value for name, value in ASK.items() if name != "max_tokens"}
    assert client.messages.count_tokens(**ask).input_tokens == direct.messages.count_tokens(**ask).input_tokens == 2


def test_a_bearer_token_is_as_good_as_a_key(house):
    with anthropic.Anthropic(base_url=house.data, auth_token=house.key, max_retries=0) as client:
        assert client.messages.create(**ASK).role == "assistant"


def test_refusals_are_typed_errors(house, client):
    def kind_of(kind, client, **more):
        with pytest.raises(kind) as caught:
            client.messages.create(**{**ASK, **more})
        assert caught.value.body["request_id"] == caught.value.response.headers["x-request-id"]
        return caught.value.body["error"]["type"]

    assert kind_of(anthropic.AuthenticationError, client_of(house, "sk_" + "0" * 64)) == "authentication_error"
    disabled, secret = house.new_key()
    house.manage("PUT", f"keys/{disabled['id']}/disabled", {"disabled": True})
    assert kind_of(anthropic.PermissionDeniedError, client_of(house, secret)) == "permission_error"
    assert kind_of(anthropic.NotFoundError, client, model="nobody") == "not_found_error"


def test_errors_of_the_upstream_come_back_as_they_are(client):
    for status, kind in [(400, anthropic.BadRequestError), (429, anthropic.RateLimitError), (503, anthropic.InternalServerError)]:
        with pytest.raises(kind) as caught:
            client.messages.create(**ASK, extra_body={"sim_fault": f"status={status}"})
        assert caught.value.body["error"]["message"] == "a simulated fault"


def test_an_interrupted_stream_is_an_error_not_an_end(client):
    with pytest.raises(anthropic.APIError), client.messages.stream(**ASK, extra_body={"sim_fault": "cut=4"}) as stream:
        list(stream.text_stream)


def test_leaving_a_stream_stops_the_upstream(house, client):
    before = house.upstream_stats()["aborted"]
    ask = {**ASK, "max_tokens": 1_000_000}
    with client.messages.stream(**ask, extra_body={"sim_output_tokens": 1_000_000}) as stream:
        next(iter(stream.text_stream))
    eventually(lambda: house.upstream_stats()["aborted"] == before + 1, 1.0)
