"""The MCP server as a real client of the SDK meets it, over the pipes of a real process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interfaces.conftest import QUESTION, long_text

mcp = pytest.importorskip("mcp")
Connect = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def connect(program: list[str], environment: dict[str, str], folder: Path) -> Connect:
    """Connects a client to a new server that may read `folder`."""

    @asynccontextmanager
    async def connected(*options: str) -> AsyncIterator[Any]:
        arguments = [*program[1:], "mcp", "--allow", str(folder), *options]
        server = mcp.StdioServerParameters(command=program[0], args=arguments, env=environment)
        async with mcp.Client(mcp.stdio_client(server)) as client:
            yield client

    return connected


async def call(client: Any, tool: str, /, **arguments: object) -> Any:
    return await client.call_tool(tool, arguments)


async def test_a_document_is_read_asked_listed_and_forgotten(connect: Connect) -> None:
    steps: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append((done, total))

    async with connect() as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"read_document", "ask_document", "find_passages", "list_documents", "forget_document"}

        read = await client.call_tool("read_document", {"path": "story.txt"}, progress_callback=progress)
        tokens = read.structured_content["tokens"]
        assert not read.is_error and tokens > 512 and steps[0][0] == 0 and steps[-1] == (tokens, tokens)

        answer = await call(client, "ask_document", document="story", question=QUESTION)
        table = answer.structured_content
        assert answer.content[0].text.startswith("48213\n") and "¶" in answer.content[0].text
        assert (table["answer"], table["found"], table["reason"], table["reopened"]) == ("48213", True, "", True)
        assert table["passages"][0]["quoted"] and "48213" in table["passages"][0]["text"]

        (listed,) = (await call(client, "list_documents")).structured_content["documents"]
        assert (listed["name"], listed["tokens"], listed["unfinished"]) == ("story.txt", tokens, False)
        (resource,) = (await client.list_resources()).resources
        content = json.loads((await client.read_resource(resource.uri)).contents[0].text)
        assert content["key"] == listed["key"] == read.structured_content["key"]

        gone = await call(client, "forget_document", document=listed["key"][:12])
        assert gone.structured_content["name"] == "story.txt"
        assert (await call(client, "list_documents")).structured_content["documents"] == []
        with pytest.raises(mcp.MCPError, match="No remembered document"):
            await client.read_resource(resource.uri)


async def test_where_there_is_no_answer_the_reason_is_said(connect: Connect, unknown: tuple[str, str]) -> None:
    question, example = unknown
    async with connect() as client:
        other = await call(client, "ask_document", document="story.txt", question=question)
        assert other.structured_content["reason"] == "demo" and other.structured_content["answer"] is None
        assert example in other.content[0].text
        assert "text search (related passages, not an answer)" in other.content[0].text

        unknown = await call(client, "ask_document", document="story", question="What is the access code of Varnok?")
        assert (unknown.structured_content["reason"], unknown.structured_content["found"]) == ("not_found", False)
        early = await call(client, "ask_document", document="story", question=QUESTION, as_of="10%")
        assert early.structured_content["reason"] == "not_yet" and "Not known yet at 10%" in early.content[0].text

        found = await call(client, "find_passages", document="story", query="Zorvath", count=1)
        assert "text search" in found.content[0].text and "48213" in found.structured_content["passages"][0]["text"]


async def test_files_outside_are_refused(connect: Connect) -> None:
    async with connect() as client:
        for path in ("../secret.txt", "link.txt", "/etc/passwd", "~/x", "./", "story.txt/../../secret.txt"):
            for result in (
                await call(client, "read_document", path=path),
                await call(client, "ask_document", document=path, question=QUESTION),
            ):
                assert result.is_error and "outside the folders" in result.content[0].text, path
                assert "99999" not in str(result) and "root:" not in str(result), path


async def test_wrong_arguments_are_one_line(connect: Connect) -> None:
    async with connect() as client:
        for tool, arguments, says in (
            ("read_document", {"path": "nothing.txt"}, "does not exist"),
            ("read_document", {"path": ""}, "The path is empty"),
            ("read_document", {"path": "a\x00b"}, "outside"),
            ("read_document", {"path": 7}, "valid string"),
            ("ask_document", {"document": "nothing", "question": QUESTION}, "No remembered document"),
            ("ask_document", {"document": "story.txt", "question": "  "}, "The question is empty"),
            ("ask_document", {"document": "story.txt", "question": QUESTION, "as_of": "nowhere"}, "no 'nowhere'"),
            ("ask_document", {"document": "story.txt", "question": QUESTION, "reread": -1}, "greater than or equal"),
            (
                "ask_document",
                {"document": "story.txt", "question": QUESTION, "surest": True, "reread": 1},
                "exclude each other",
            ),
            ("find_passages", {"document": "story.txt", "query": " "}, "The query is empty"),
            ("forget_document", {"document": "story~"}, "No remembered document"),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error and says in result.content[0].text and "Traceback" not in str(result), arguments


async def test_a_text_that_needs_more_memory_is_refused(connect: Connect, environment: dict[str, str]) -> None:
    environment["LONGMAMBA_MEMORY"] = "4MB"  # enough for the model alone
    async with connect() as client:
        result = await call(client, "read_document", path="story.txt")
        assert result.is_error and result.content[0].text.count("\n") == 0
        assert "tokens with demo needs about" in result.content[0].text and "--chunk 128" in result.content[0].text


async def test_a_reading_that_is_cancelled_or_left_goes_on_later(connect: Connect, folder: Path) -> None:
    (folder / "long.txt").write_text(long_text(20_000), encoding="utf-8")
    reading = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        if done >= 512:
            reading.set()

    def read(client: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(client.call_tool("read_document", {"path": "long.txt"}, progress_callback=progress))

    async with connect() as client:
        job = read(client)
        await asyncio.wait_for(reading.wait(), 60)
        job.cancel()
        answer = await call(client, "ask_document", document="story.txt", question=QUESTION)  # waits for the stop
        assert answer.structured_content["answer"] == "48213"
        listed = {row["name"]: row for row in (await call(client, "list_documents")).structured_content["documents"]}
        stopped = listed["long.txt"]["tokens_read"]
        assert listed["long.txt"]["unfinished"] and 512 <= stopped < listed["long.txt"]["tokens"]
        reading.clear()
        job = read(client)
        await asyncio.wait_for(reading.wait(), 60)  # and now the client goes away
    async with connect() as client:
        done = (await read(client)).structured_content
        assert stopped < done["tokens_read_before"] < done["tokens"]
