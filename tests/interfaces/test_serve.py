"""The server as real clients meet it: a process on loopback, the `openai` package, and requests broken on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any

import pytest

from longmamba_mlx.errors import ModelError
from longmamba_mlx.interfaces.engine import Engine
from longmamba_mlx.interfaces.folders import Folders
from longmamba_mlx.interfaces.library import Library
from tests.interfaces.conftest import QUESTION, ROOT, long_text

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")


class Serving:
    """A running server and a client of it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert " at http" in line, line + self.process.stderr.read()
        self.url = line.split(" at ")[1].split("/v1")[0]
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=60)

    def chat(self, model: str, *messages: str, **options: Any) -> Any:
        """A completion; messages are those of user and assistant in turn."""
        roles = ("user", "assistant")
        talk = [{"role": roles[index % 2], "content": message} for index, message in enumerate(messages)]
        return self.openai.chat.completions.create(model=model, messages=talk, **options)  # type: ignore[arg-type]

    def post(self, path: str, body: object) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(path, content=content)

    def idle_after(self) -> float:
        """Seconds until the model's thread has nothing to do."""
        started = time.monotonic()
        while self.http.get("/health").json()["busy"]:
            time.sleep(0.01)
        return time.monotonic() - started

    def end(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, story: str) -> Iterator[Callable[..., Serving]]:
    """Starts servers of one home and one folder."""
    import sys

    top = tmp_path_factory.mktemp("serving")
    folder = top / "documents"
    folder.mkdir()
    (folder / "story.txt").write_text(story, encoding="utf-8")
    (folder / "long.txt").write_text(long_text(30_000), encoding="utf-8")
    (top / "secret.txt").write_text("The access code of Secret is 99999.", encoding="utf-8")
    (folder / "link.txt").symlink_to(top / "secret.txt")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LONGMAMBA_HOME": str(top / "home"), "HF_HUB_OFFLINE": "1"}
    started: list[Serving] = []

    def begin(*options: str, **variables: str) -> Serving:
        command = [sys.executable, "-m", "longmamba_mlx", "serve", "--port", "0", "--allow", str(folder), *options]
        started.append(Serving(command, environment | variables))
        return started[-1]

    yield begin
    for serving in started:
        if serving.process.poll() is None:
            serving.end()


@pytest.fixture(scope="module")
def server(start: Callable[..., Serving]) -> Serving:
    return start("--queue", "8")


def test_a_long_message_is_read_once_for_all_conversations(server: Serving, story: str) -> None:
    text = story.replace("Zorvath is 48213", "Ilmari is 31207")
    first = server.chat("demo", f"{text}\n\nWhat is the access code of Ilmari?")
    assert first.choices[0].message.content == "31207" and first.choices[0].finish_reason == "stop"
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    again = server.chat(
        "demo", f"{text}\n\nWhat is the access code of Ilmari?", "31207", "What is the badge number of X?"
    )
    assert again.usage.prompt_tokens_details.cached_tokens > 512
    assert again.model_extra["longmamba"]["reason"] == "not_found"
    for messages in (
        [{"role": "system", "content": text}, {"role": "user", "content": "What is the access code of Ilmari?"}],
        [{"role": "user", "content": text}, {"role": "user", "content": "What is the access code of Ilmari?"}],
        [{"role": "user", "content": f"{text}\n\nQuestion: What is the access code of Ilmari?\nAnswer:"}],
    ):
        reply = server.openai.chat.completions.create(model="demo", messages=messages)  # type: ignore[arg-type]
        assert reply.choices[0].message.content == "31207"
        assert reply.usage.prompt_tokens_details.cached_tokens > 512


def test_the_surest_part_is_named(server: Serving, story: str) -> None:
    text = story.replace("Zorvath is 48213", "Tapio is 52417")  # the story itself is a file's, below
    words = f"{text}\n\nWhat is the access code of Tapio?"
    reply = server.post(
        "/v1/chat/completions", {"model": "demo", "messages": [{"role": "user", "content": words}], "surest": True}
    ).json()
    part = reply["longmamba"]["part"]
    assert reply["choices"][0]["message"]["content"] == "52417" and 1 <= part["number"] <= part["count"]
    assert part["start"] < text.index("52417") < part["end"]


def test_a_remembered_document_is_a_model(server: Serving, unknown: tuple[str, str]) -> None:
    events = server.post("/v1/documents", {"path": "story.txt", "stream": True}).text.split("\n\n")
    assert json.loads(events[-3].removeprefix("data: "))["tokens"] > 512 and events[-2] == "data: [DONE]"
    assert "demo@story.txt" in [model.id for model in server.openai.models.list()]
    assert server.openai.models.retrieve("demo@story").id == "demo@story.txt"

    chunks = list(server.chat("demo@story", QUESTION, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip() == "48213"
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].model_extra["longmamba"]["found"]
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 512

    assert server.chat("demo@story", QUESTION, stop="21").choices[0].message.content == "48"
    assert server.chat("demo@story", QUESTION, max_tokens=1).choices[0].finish_reason == "length"
    warm = [server.chat("demo@story", QUESTION, temperature=2.0, seed=7).choices[0].message.content for _ in (1, 2)]
    assert warm[0] == warm[1]
    early = server.chat("demo@story", QUESTION, extra_body={"as_of": "10%"})
    assert "Not known yet at 10%" in early.choices[0].message.content
    question, example = unknown
    other = server.chat("demo@story", question).choices[0].message.content
    assert example in other and "text search (related passages, not an answer)" in other

    assert server.http.delete("/v1/documents/story").json()["deleted"]
    with pytest.raises(openai.NotFoundError):
        server.chat("demo@story", QUESTION)


USER = [{"role": "user", "content": "What is it?"}]
BAD: list[tuple[object, int, str]] = [
    (b"{", 400, "invalid_json"),
    (b"\xff\xfe", 400, "invalid_json"),
    (b"[" * 200_000, 400, "invalid_json"),
    (b"1" * 5000, 400, "invalid_json"),
    ([], 400, "invalid_json"),
    ({"messages": USER}, 400, "invalid_value"),
    ({"model": "gpt-4", "messages": USER}, 404, "model_not_found"),
    ({"model": "demo@nothing", "messages": USER}, 404, "document_not_found"),
    ({"model": "demo", "messages": USER}, 400, "no_document"),
    ({"model": "demo", "messages": "hello"}, 400, "invalid_value"),
    ({"model": "demo", "messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value"),
    ({"model": "demo", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value"),
    ({"model": "demo", "messages": [*USER, {"role": "assistant", "content": "x"}]}, 400, "invalid_request"),
    *(
        ({"model": "demo", "messages": [{"role": "user", "content": "Text.\n\nWhat?"}], **wrong}, 400, "invalid_value")
        for wrong in (
            {"temperature": "hot"},
            {"temperature": float("nan")},
            {"max_tokens": 0},
            {"max_tokens": True},
            {"seed": 1.5},
            {"stop": [""]},
            {"stop": 7},
            {"n": 2},
            {"stream": "yes"},
            {"stream_options": 3},
            {"reread": -1},
            {"surest": 1},
        )
    ),
]


def test_a_text_that_needs_more_memory_is_refused(start: Callable[..., Serving]) -> None:
    small = start(LONGMAMBA_MEMORY="4MB")  # enough for the model alone
    reply = small.post("/v1/documents", {"path": "story.txt"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "failed")
    assert "tokens with demo needs about" in reply.json()["error"]["message"]


def test_broken_requests_get_the_error_object(server: Serving) -> None:
    for body, status, code in BAD:
        reply = server.post("/v1/chat/completions", body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), (str(body)[:100], reply.text)
    assert server.http.get("/v2").json()["error"]["code"] == "not_found"
    assert server.http.put("/v1/models").status_code == 405
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/v1/documents")
    connection.putheader("Content-Length", str(1 << 40))  # refused before a byte of it has come
    connection.endheaders()
    too_large = connection.getresponse()
    assert (too_large.status, json.loads(too_large.read())["error"]["code"]) == (413, "body_too_large")
    connection.close()


def test_only_allowed_files_and_only_this_machine(server: Serving) -> None:
    for path in ("../secret.txt", "link.txt", "/etc/passwd", ".", "a\x00b"):
        for stream in (False, True):
            reply = server.post("/v1/documents", {"path": path, "stream": stream})
            assert reply.status_code == 403 and "99999" not in reply.text and "root:" not in reply.text, path
    assert server.post("/v1/documents", {"path": "nothing.txt"}).status_code == 404
    assert server.http.get("/v1/models", headers={"Host": "example.com"}).status_code == 403
    assert server.http.get("/v1/models", headers={"Origin": "https://example.com"}).status_code == 403


def test_many_clients_at_once_are_answered_or_told_to_wait(server: Serving) -> None:
    replies: list[tuple[str, int, str]] = []

    def ask(number: int) -> None:
        name, code = f"Person{number}", str(10_000 + 137 * number)
        words = f"The access code of {name} is {code}. The weather was fine.\n\nWhat is the access code of {name}?"
        reply = server.post("/v1/chat/completions", {"model": "demo", "messages": [{"role": "user", "content": words}]})
        content = reply.json()["choices"][0]["message"]["content"] if reply.status_code == 200 else ""
        replies.append((code, reply.status_code, content))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for _, status, _ in replies} <= {200, 429}
    answered = [(code, content) for code, status, content in replies if status == 200]
    assert len(answered) >= 8
    codes = {code for code, _, _ in replies}
    for code, content in answered:  # the small model may err; the answer of another client it never gives
        assert not (codes - {code}) & set(content.split()), (code, content)
    assert sum(code in content for code, content in answered) >= len(answered) // 2


def test_work_stops_when_its_client_goes_and_goes_on_later(server: Serving) -> None:
    tokens = 0
    for _ in range(2):
        with server.http.stream("POST", "/v1/documents", json={"path": "long.txt", "stream": True}) as events:
            for line in events.iter_lines():
                told = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
                if told.get("done", 0) > tokens:
                    break
        assert server.idle_after() < 3  # 0.3 s where nothing else runs on the machine
        unfinished = {row["name"]: row for row in server.http.get("/v1/documents").json()["data"]}["long.txt"]
        assert unfinished["unfinished"] and unfinished["tokens_read"] > tokens
        tokens = unfinished["tokens_read"]


def test_the_end_stops_a_reading_with_a_checkpoint(start: Callable[..., Serving]) -> None:
    server = start("--api-key", "secret")
    assert server.http.get("/v1/models").status_code == 401 and server.http.get("/health").status_code == 200
    assert server.http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    headers = {"Authorization": "Bearer secret", "Host": "any.example"}
    with server.http.stream(
        "POST", "/v1/documents", json={"path": "long.txt", "stream": True}, headers=headers
    ) as events:
        lines = events.iter_lines()
        assert any('"done": ' in line and '"done": 0' not in line for line in lines)
        server.process.send_signal(signal.SIGTERM)
        assert any('"code": "stopped"' in line for line in lines)
    assert server.process.wait(30) == -signal.SIGTERM


def test_an_interrupt_while_the_model_loads_waits_for_its_thread() -> None:
    from longmamba_mlx.interfaces.http.app import application, run
    from longmamba_mlx.interfaces.http.service import Service

    def load() -> Any:
        time.sleep(0.5)
        raise ModelError("late")

    engine = Engine()
    service = Service(Library(load, Folders(None), name="demo"), engine, "0", max_tokens=1)

    async def interrupted() -> None:
        with socket.socket() as listening:
            server = asyncio.create_task(run(application(service), listening))
            while not engine.busy:
                await asyncio.sleep(0.01)
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server

    asyncio.run(interrupted())
    assert not engine.busy


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "a key is needed"),
        (("--allow", "nowhere"), "There is no folder 'nowhere'"),
        (("--host", "999.1.1.1", "--api-key", "x"), "There is no host"),
    ],
)
def test_a_wrong_start_is_one_line(options: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    from longmamba_mlx.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serve", *options])
    lines = capfd.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 2 and says in lines[0] and lines[1].startswith("Hint: ")


def test_a_client_that_leaves_in_its_request_leaves_no_traceback(start: Callable[..., Serving]) -> None:
    serving = start()
    for path in ("/v1/chat/completions", "/v1/documents"):
        connection = HTTPConnection(serving.url.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"{")
        connection.close()
    assert serving.http.get("/health").status_code == 200
    serving.end()
    assert serving.process.stderr is not None and "Traceback" not in serving.process.stderr.read()
