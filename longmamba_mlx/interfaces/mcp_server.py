"""The MCP server: remembered documents as tools and resources, over standard input and output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from json import dumps
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp_types import CallToolResult, Resource, TextContent, ToolAnnotations
from pydantic import Field

from longmamba_mlx.documents import one_line
from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.events import Answered, Counted, Event, Notice, ReadDone, ReadProgress
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.interfaces.answers import answer_table, passage_lines, passage_table, reading_table, with_passages
from longmamba_mlx.interfaces.catalogue import Remembered, UnknownDocumentError, find
from longmamba_mlx.interfaces.engine import Engine
from longmamba_mlx.interfaces.library import Asked, Library, Question
from longmamba_mlx.session.no_answer import SEARCHED

_INSTRUCTIONS = (
    "Reads documents of any length once on this machine, remembers them as a small state, and answers questions about "
    "them. Answers are short and come with passages of the document: check the passages. A question that has no answer "
    "gets the reason, and passages that a text search finds."
)
Kind = TypeVar("Kind")

_SCHEME = "longmamba://documents/"
_WIDE = 1000  # characters of a passage that was searched for
_BETWEEN = 0.2  # seconds from one progress notification to the next
_LAST = 10.0  # seconds that a reading gets at the end to write its checkpoint

Document = Annotated[
    str, Field(description="A remembered document's name or key, or the path of a file, which is read if necessary.")
]
AsOf = Annotated[
    str | None, Field(description='Know nothing after the end of this place: "chapter 12", "page 40", "50%".')
]
_ONLY_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


class Server(MCPServer[None]):
    """The SDK's server, whose resources are what is remembered at the moment."""

    def __init__(self, library: Library, engine: Engine, version: str) -> None:
        self.library, self.engine = library, engine
        super().__init__(
            "longmamba-mlx", instructions=_INSTRUCTIONS, version=version, log_level="ERROR", lifespan=self._life
        )
        for tool, title, hints in (
            (self.read_document, "Read a document", ToolAnnotations(destructive_hint=False, idempotent_hint=True)),
            (self.ask_document, "Ask a document", ToolAnnotations(destructive_hint=False, idempotent_hint=True)),
            (self.find_passages, "Search a document's text", ToolAnnotations(destructive_hint=False)),
            (self.list_documents, "List remembered documents", _ONLY_READS),
            (self.forget_document, "Forget a document", ToolAnnotations(destructive_hint=True, idempotent_hint=True)),
        ):
            self.add_tool(tool, title=title, annotations=hints)
        self.resource(_SCHEME + "{name}", mime_type="application/json", title="A remembered document")(self.describe)

    async def read_document(
        self,
        path: Annotated[str, Field(description="A file or folder: text, Markdown, HTML, PDF, EPUB, DOCX.")],
        ctx: Context[None, Any],
    ) -> CallToolResult:
        """Read a whole file and store its state, so that questions about it are answered at once.

        A book can take minutes. A reading that was stopped resumes when the file is read again.
        """
        seen = await self._work(lambda stop: self.library.open_file(path, stop), ctx)
        done = _last(seen, ReadDone)
        how = "Reopened" if done.reopened else "Read"
        lines = [f"{how} {done.title}: {done.tokens:,} tokens in {done.seconds:.1f} s."]
        lines.append(f"Remembered as {done.stored[:12]}." if done.stored else "Not remembered.")
        return _result([*lines, *_notes(seen)], reading_table(done))

    async def ask_document(
        self,
        document: Document,
        question: Annotated[str, Field(description="One question about the document.")],
        ctx: Context[None, Any],
        as_of: AsOf = None,
        reread: Annotated[int, Field(ge=0, le=20, description="Read this many related passages again first.")] = 0,
        surest: Annotated[
            bool, Field(description="Ask every part of the document and answer from the surest; says which it was.")
        ] = False,
    ) -> CallToolResult:
        """Ask the model that has read the document.

        Without an answer, the result gives the reason, and the passages that a text search finds.
        """

        def work(stop: Stop) -> Iterator[Event | Asked]:
            book = yield from self.library.open(document, stop)
            yield from self.library.ask(book, Question(question, as_of=as_of, reread=reread, surest=surest), stop)

        seen = await self._work(work, ctx)
        answer = _last(seen, Answered).answer
        table = answer_table(answer, _last(seen, ReadDone), as_of)
        return _result([with_passages(answer, as_of), *_notes(seen)], table)

    async def find_passages(
        self,
        document: Document,
        query: Annotated[str, Field(description="Names and words to search for.")],
        ctx: Context[None, Any],
        count: Annotated[int, Field(ge=1, le=50, description="How many passages at most.")] = 5,
        as_of: AsOf = None,
    ) -> CallToolResult:
        """Search the document's text for passages. The model is not asked: this is a text search."""

        def work(stop: Stop) -> Iterator[object]:
            book = yield from self.library.open(document, stop)
            yield book.find_passages(query, count, as_of=as_of, should_stop=stop)

        passages = _last(await self._work(work, ctx), tuple)
        lines = (
            [f"{SEARCHED}:", *passage_lines(passages, query, _WIDE)] if passages else ["The text search finds nothing."]
        )
        return _result(lines, {"query": query, "passages": [passage_table(passage, query) for passage in passages]})

    async def list_documents(self) -> CallToolResult:
        """List the documents that are remembered, the latest used first."""
        found = await self._documents()
        return _result(
            [_line(document) for document in found] or ["Nothing is remembered yet."],
            {"model": self.library.name, "documents": [document.as_dict() for document in found]},
        )

    async def forget_document(
        self, document: Annotated[str, Field(description="A remembered document's name or key.")]
    ) -> CallToolResult:
        """Delete the saved state of a document. Its file stays."""
        await self._documents()
        with _as_tool_error():
            gone = await asyncio.to_thread(self.library.forget, document)
        return _result([f"Forgotten: {gone.name}."], {"name": gone.name, "key": gone.digest})

    async def describe(self, name: str) -> str:
        """What is remembered of one document."""
        try:
            document = find(await self._documents(), unquote(name))
        except UnknownDocumentError as error:
            raise ResourceNotFoundError(str(error)) from None
        return dumps(document.as_dict(), ensure_ascii=False, indent=2)

    async def list_resources(self) -> list[Resource]:
        """The remembered documents."""
        return [
            Resource(uri=_SCHEME + quote(document.name, safe=""), name=document.name, description=_line(document),
                     mime_type="application/json")
            for document in await self._documents()
        ]  # fmt: skip

    @asynccontextmanager
    async def _life(self, _: object) -> AsyncIterator[None]:
        """Load the model while the client is still greeting; at the end let a reading write its checkpoint."""
        loading = asyncio.create_task(self._try_load())
        try:
            yield None
        finally:
            loading.cancel()
            self.engine.close()
            await asyncio.to_thread(self.engine.join, _LAST)

    async def _try_load(self) -> None:
        with suppress(LongMambaError):  # told by the first tool that needs the model
            await self._load()

    async def _load(self) -> None:
        async with aclosing(self.engine.run(lambda _: iter((bool(self.library.model()),)))) as events:
            async for _ in events:
                pass

    async def _documents(self) -> tuple[Remembered, ...]:
        with _as_tool_error():
            if not self.library.loaded:
                await self._load()
            return await asyncio.to_thread(self.library.documents)

    async def _work(self, work: Callable[[Stop], Iterator[object]], ctx: Context[None, Any]) -> list[object]:
        """Run work on the model's thread and report its progress to the client; return the other events."""
        seen: list[object] = []
        tell = _teller(ctx)
        with _as_tool_error():
            async with aclosing(self.engine.run(work)) as events:
                async for event in events:
                    if isinstance(event, ReadProgress):
                        await tell(event)
                    elif isinstance(event, Counted):
                        await ctx.report_progress(0, event.tokens, f"Reading {one_line(event.title, 60)}")
                    else:
                        seen.append(event)
        return seen


@contextmanager
def _as_tool_error() -> Iterator[None]:
    """Convert the project's errors to tool errors of the SDK: one line and a hint."""
    try:
        yield
    except LongMambaError as error:
        raise ToolError(one_line(f"{error} {error.hint or ''}", 600)) from None


def _teller(ctx: Context[None, Any]) -> Callable[[ReadProgress], Awaitable[None]]:
    """Reports progress to the client, at a limited rate."""
    told = 0.0

    async def tell(event: ReadProgress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < _BETWEEN and event.done < event.total:
            return
        told = now
        place = f", {one_line(event.place, 60)}" if event.place else ""
        message = f"{event.tokens_per_second:,.0f} tokens/s, {event.seconds_left:.0f} s left{place}"
        await ctx.report_progress(event.done, event.total, message)

    return tell


def _last(seen: Sequence[object], kind: type[Kind]) -> Kind:
    for event in reversed(seen):
        if isinstance(event, kind):
            return event
    raise RuntimeError(f"work ends with {kind.__name__} or an error")


def _notes(seen: Sequence[object]) -> list[str]:
    return [f"Note: {one_line(event.text, 300)}" for event in seen if isinstance(event, Notice)]


def _line(document: Remembered) -> str:
    part = f", {document.done / document.key.tokens:.0%} read" if document.unfinished else ""
    return f"{document.name}: {document.key.tokens:,} tokens{part}, {format_size(document.bytes)}, read {document.read}"


def _result(lines: Sequence[str], table: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(text="\n".join(lines))], structured_content=table)
