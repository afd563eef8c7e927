"""The server as clients see it: answers equal to those of each prompt alone, over every route."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.contract.test_serving import check_equal
from tests.serving_bundles import question, variety
from tests.unit.serving.conftest import SMALL, Running, served, start
from trimtab.loading import from_bundle
from trimtab.predictions import Prediction


def alone(running: Running, name: str) -> Any:
    backbone = running.service.backbone
    return from_bundle(variety(backbone)[name], backbone)


@pytest.mark.parametrize("name", ["short", "long", "pair", "deep", "head", "writer", "tags"])
def test_the_route_of_a_task_gives_the_answers_of_its_prompt(running: Running, name: str) -> None:
    inputs = [question(name, i) for i in range(4)]
    got = running.post(f"/tasks/{name}", {"inputs": inputs})
    assert got.status_code == 200, got.text
    assert (got.json()["task"], got.json()["bare"]) == (name, False)
    expected = alone(running, name).predict(inputs)
    assert [p["id"] for p in got.json()["predictions"]] == ["1", "2", "3", "4"]
    for ours, theirs in zip(got.json()["predictions"], expected, strict=True):
        want = theirs.as_json()
        assert ours.pop("scores", {}) == pytest.approx(want.pop("scores", {}), abs=1e-5)
        assert ours == want


def test_classification_has_the_scores_as_they_are(running: Running) -> None:
    got = running.post("/classify", {"task": "long", "inputs": [{"id": 7, "text": "the film"}], "bare": True}).json()
    expected = alone(running, "long").bare.predict([{"id": 7, "text": "the film"}])[0]
    assert got["bare"] is True
    assert got["predictions"][0]["id"] == "7"
    assert got["predictions"][0]["label"] == expected.label
    assert got["predictions"][0]["scores"] == pytest.approx(expected.scores, abs=1e-6)


def test_tasks_are_described(running: Running) -> None:
    told = running.get("/tasks").json()
    assert told["backbone"] == "tiny-llama"
    assert told["can_write"] is True
    names = [t["name"] for t in told["tasks"]]
    assert names == sorted(names)
    pair = next(t for t in told["tasks"] if t["name"] == "pair")
    assert (pair["fields"], pair["classes"], pair["virtual_tokens"]) == (["a", "b"], ["positive", "negative"], 3)
    assert running.get("/tasks/deep").json()["deep_layers"] == {"self": 2}
    assert running.get("/tasks/head").json()["has_bare"] is False


# OpenAI's API


def written(running: Running, model: str, text: str, new_tokens: int) -> str:
    """What the engine's own greedy writing gives, whole."""
    service = running.service
    ticket, _ = service.write(model, text, new_tokens)
    return service.text(ticket.future.result(30).ids).strip()


def events(answer: requests.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_models_are_the_backbone_and_the_prompts(running: Running) -> None:
    data = running.get("/v1/models").json()["data"]
    assert [m["id"] for m in data][:2] == ["tiny-llama", "deep"]
    assert {m["object"] for m in data} == {"model"}


@pytest.mark.parametrize("model", ["writer", "deep", "tiny-llama"])
def test_a_completion_whole_and_streamed_is_one_text(running: Running, model: str) -> None:
    body = {"model": model, "prompt": "the film was", "max_tokens": 9}
    whole = running.post("/v1/completions", body).json()
    assert whole["object"] == "text_completion"
    assert whole["model"] == model
    assert whole["choices"][0]["text"] == written(running, model, "the film was", 9)
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    parts = events(running.post("/v1/completions", {**body, **options}))
    assert "".join(c["text"] for p in parts for c in p["choices"]) == whole["choices"][0]["text"]
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_several_texts_are_completed_in_their_order(running: Running) -> None:
    texts = ["the film was", "a cat"]
    got = running.post("/v1/completions", {"model": "writer", "prompt": texts}).json()["choices"]
    assert [c["index"] for c in got] == [0, 1]
    assert [c["text"] for c in got] == [written(running, "writer", t, 5) for t in texts]


def test_a_chat_fills_the_prompts_template_with_the_message(running: Running) -> None:
    messages = [{"role": "user", "content": "the film was"}]
    body = {"model": "writer", "messages": messages, "max_completion_tokens": 6}
    whole = running.post("/v1/chat/completions", body).json()
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": written(running, "writer", "the film was", 6),
    }
    parts = events(running.post("/v1/chat/completions", {**body, "stream": True}))
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = "".join(p["choices"][0]["delta"].get("content", "") for p in parts)
    assert said == whole["choices"][0]["message"]["content"]
    assert {p["object"] for p in parts} == {"chat.completion.chunk"}


def test_a_seed_draws_the_same_text_again(running: Running) -> None:
    body = {"model": "writer", "prompt": "the", "max_tokens": 12, "temperature": 1.5, "seed": 3}
    one, two = (running.post("/v1/completions", body).json()["choices"][0]["text"] for _ in range(2))
    assert one == two
    others = {running.post("/v1/completions", {**body, "seed": s}).json()["choices"][0]["text"] for s in range(4, 9)}
    assert len(others | {one}) > 1


def test_a_text_ends_before_a_stop(running: Running) -> None:
    body = {"model": "tiny-llama", "prompt": "the film was", "max_tokens": 12, "temperature": 1.0, "seed": 1}
    whole = running.post("/v1/completions", body).json()["choices"][0]["text"]
    stop = whole.split()[2]
    got = running.post("/v1/completions", {**body, "stop": [stop]}).json()["choices"][0]
    assert (got["text"], got["finish_reason"]) == (whole[: whole.index(stop)].rstrip(), "stop")
    parts = events(running.post("/v1/completions", {**body, "stop": stop, "stream": True}))
    assert "".join(p["choices"][0]["text"] for p in parts) == got["text"]


# Operation


def test_health_metrics_and_documents(running: Running) -> None:
    health = running.get("/healthz")
    told = health.json()
    assert told.pop("waiting") >= 0
    assert told == {"status": "ok", "backbone": "tiny-llama", "prompts": 7}
    assert health.headers["x-request-id"]
    running.post("/classify", {"task": "long", "inputs": ["x"]})
    metrics = running.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = metrics.text.splitlines()
    assert "trimtab_prompts_loaded 7" in lines
    assert any(line.startswith('trimtab_requests_total{route="/classify",status="200"} ') for line in lines)
    assert any(line.startswith('trimtab_request_seconds_bucket{route="/classify",le="+Inf"} ') for line in lines)
    for line in lines:
        assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0
    assert "/v1/chat/completions" in running.get("/openapi.json").json()["paths"]
    docs = running.get("/docs").text
    assert "POST /classify" in docs
    assert "http://" not in docs
    assert "https://" not in docs


def test_a_server_that_is_told_to_stop_answers_what_it_was_asked(causal: Any) -> None:
    found, stop = start(served(causal, ("writer",)), SMALL)
    answer = requests.post(found.url + "/v1/completions", stream=True, timeout=30,
                           json={"model": "tiny-llama", "prompt": "the", "max_tokens": 50, "stream": True})  # fmt: skip
    stop()
    assert answer.text.endswith("data: [DONE]\n\n")
    assert not found.service.engine.is_open
    with pytest.raises(requests.ConnectionError):
        found.get("/healthz")


def test_predictions_are_those_of_python(running: Running) -> None:
    asked = running.service.ask("short", ["the film was good"])
    expected = alone(running, "short")("the film was good")
    assert isinstance(expected, Prediction)
    check_equal(asked.records(30.0)[0], expected)


def test_a_body_of_the_wrong_sort_is_told_in_the_words_of_the_route(running: Running) -> None:
    """Not in those of the library that looks at it."""
    got = running.post("/classify", {"task": "short", "inputs": ["the film", 3]})
    assert (got.status_code, got.json()["error"]["where"]) == (422, "body.inputs.1")
    plain = running.post("/classify", data='{"task": "short"}', headers={"Content-Type": "text/plain"})
    error = plain.json()["error"]
    assert plain.status_code == 422
    assert (error["message"], error["where"]) == ("the body does not say that it is JSON.", "body")
    assert error["fix"] == "Send the header Content-Type: application/json."
