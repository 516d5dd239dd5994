"""What the tests of httpx and httpx2 share: whatever is particular to transports, besides the contract of clients."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from llm_common.contract import HttpExchange
from llm_common.testing.conformance.recording import Recording, recording


class TransportTests:
    """Subclass it with the library and its two tracked transports."""

    httpx: Any
    tracked: Any
    async_tracked: Any

    @pytest.fixture
    def recorded(self) -> Iterator[Recording]:
        with recording() as recorded:
            yield recorded

    def mock(self, handler: Any) -> Any:
        return self.tracked(self.httpx.MockTransport(handler), app_type="llm")

    def test_a_response_in_memory_is_recorded_at_once_and_not_changed(self, recorded: Recording) -> None:
        answer = self.httpx.Response(200, headers={"X-Id": "7"}, content=b"hello", extensions={"own": 1})
        with self.httpx.Client(transport=self.mock(lambda request: answer)) as client:
            response = client.post("http://test/v1/chat", content=b"question")
        assert response is answer
        assert (response.content, response.headers["X-Id"], response.extensions) == (b"hello", "7", {"own": 1})
        assert recorded.one() == HttpExchange("POST", "200", "v1/chat", "llm", 8, 5)

    def test_an_async_response_in_memory(self, recorded: Recording) -> None:
        async def scenario() -> bytes:
            inner = self.httpx.MockTransport(lambda request: self.httpx.Response(201, content=b"hello"))
            transport = self.async_tracked(inner, app_type="llm")
            async with self.httpx.AsyncClient(transport=transport) as client:
                content: bytes = (await client.post("http://test/v1/chat", content=b"question")).content
                return content

        assert asyncio.run(scenario()) == b"hello"
        assert recorded.one() == HttpExchange("POST", "201", "v1/chat", "llm", 8, 5)

    def test_a_wsgi_application(self, recorded: Recording) -> None:
        def application(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["wsgi.input"].read(), b"!"]

        inner = self.httpx.WSGITransport(app=application)
        with self.httpx.Client(transport=self.tracked(inner, app_type="llm")) as client:
            response = client.post("http://test/echo", content=b"hello")
        assert response.content == b"hello!"
        assert response.elapsed.total_seconds() > 0
        assert recorded.one() == HttpExchange("POST", "200", "echo", "llm", 5, 6)

    def test_an_asgi_application(self, recorded: Recording) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            body = (await receive())["body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body + b"!"})

        async def scenario() -> bytes:
            transport = self.async_tracked(self.httpx.ASGITransport(app=application), app_type="llm")
            async with self.httpx.AsyncClient(transport=transport) as client:
                content: bytes = (await client.post("http://test/echo", content=b"hello")).content
                return content

        assert asyncio.run(scenario()) == b"hello!"
        assert recorded.one() == HttpExchange("POST", "200", "echo", "llm", 5, 6)

    def test_a_request_is_untouched_and_can_be_sent_again(self, recorded: Recording) -> None:
        request = self.httpx.Request("POST", "http://test/v1/chat", content=b"question")
        body = request.stream
        with self.httpx.Client(transport=self.mock(lambda request: self.httpx.Response(200))) as client:
            client.send(request)
            assert request.stream is body
            client.send(request)
        assert request.stream is body
        assert [exchange.request_bytes for exchange in recorded.ended(2)] == [8, 8]

    def test_a_request_that_the_transport_read_into_memory_stays_there(self, recorded: Recording) -> None:
        request = self.httpx.Request("POST", "http://test/v1/chat", content=iter([b"quest", b"ion"]))
        with self.httpx.Client(transport=self.mock(lambda request: self.httpx.Response(200))) as client:
            client.send(request)
        assert request.content == b"question"
        assert b"".join(request.stream) == b"question"
        assert recorded.one().request_bytes == 8

    def test_a_part_that_is_no_bytes_is_the_transport_s_to_refuse(self, recorded: Recording) -> None:
        parts: Any = iter([b"some", bytearray(b"thing"), None])

        def refuse(request: Any) -> Any:
            for part in request.stream:
                if part is None:
                    raise ValueError("None is no bytes")

        class Refusing(self.httpx.BaseTransport):  # type: ignore[misc, name-defined]
            def handle_request(self, request: Any) -> Any:
                return refuse(request)

        transport = self.tracked(Refusing(), app_type="llm")
        with self.httpx.Client(transport=transport) as client, pytest.raises(ValueError, match="None is no bytes"):
            client.post("http://test/", content=parts)
        assert recorded.one() == HttpExchange("POST", "error", "/", "llm", 9, 0)

    def test_one_request_object_sent_twice_at_the_same_time(self, recorded: Recording) -> None:
        library = self.httpx

        class Slow(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                self.both = asyncio.Barrier(2)

            async def handle_async_request(self, request: Any) -> Any:
                stream = request.stream
                await self.both.wait()
                return library.Response(200, content=b"".join([part async for part in stream]))

        async def scenario() -> None:
            request = library.Request("POST", "http://test/v1/chat", content=b"question")
            body = request.stream
            inner = self.async_tracked(Slow(), app_type="inner")
            async with library.AsyncClient(transport=self.async_tracked(inner, app_type="outer")) as client:
                await asyncio.gather(client.send(request), client.send(request))
            assert request.stream is body

        asyncio.run(scenario())
        exchanges = recorded.ended(4)
        assert [exchange.request_bytes for exchange in exchanges] == [8, 8, 8, 8]
        assert sorted(exchange.app_type for exchange in exchanges) == ["inner", "inner", "outer", "outer"]

    def test_an_exception_of_the_transport_passes_as_it_is(self, recorded: Recording) -> None:
        own = self.httpx.PoolTimeout("no connection is free")

        def fail(request: Any) -> Any:
            raise own

        with self.httpx.Client(transport=self.mock(fail)) as client, pytest.raises(type(own)) as caught:
            client.get("http://test/v1/chat")
        assert caught.value is own
        assert own.__cause__ is None
        assert recorded.one() == HttpExchange("GET", "timeout", "v1/chat", "llm", 0, 0)

    def test_the_end_of_http_on_a_connection_ends_the_exchange(self, recorded: Recording) -> None:
        library = self.httpx

        class Endless(library.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield b"no body at all"

        def switch(request: Any) -> Any:
            return library.Response(101, stream=Endless())

        with library.Client(transport=self.mock(switch)) as client, client.stream("GET", "http://test/chat"):
            assert recorded.one() == HttpExchange("GET", "101", "chat", "llm", 0, 0)

    def test_a_response_that_is_closed_when_it_comes(self, recorded: Recording) -> None:
        library = self.httpx

        class Unread(library.SyncByteStream):  # type: ignore[misc, name-defined]
            pass

        def close(request: Any) -> Any:
            response = library.Response(200, stream=Unread())
            response.close()
            return response

        with library.Client(transport=self.mock(close)) as client, client.stream("GET", "http://test/") as response:
            assert response.is_closed
        assert recorded.one() == HttpExchange("GET", "200", "/", "llm", 0, 0)

    def test_a_fault_while_a_response_is_closed_passes(self, recorded: Recording) -> None:
        library, own = self.httpx, OSError("can't close")

        class Unclosable(library.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield b"hello"

            def close(self) -> None:
                raise own

        def answer(request: Any) -> Any:
            return library.Response(200, stream=Unclosable())

        with library.Client(transport=self.mock(answer)) as client:
            response = client.send(client.build_request("GET", "http://test/"), stream=True)
            with pytest.raises(OSError, match="can't close") as caught:
                response.close()
        assert caught.value is own
        assert recorded.one() == HttpExchange("GET", "200", "/", "llm", 0, 0)

    def test_the_wrapped_transport_is_entered_left_and_closed(self) -> None:
        httpx, calls = self.httpx, []

        class Inner(httpx.BaseTransport):  # type: ignore[misc, name-defined]
            def handle_request(self, request: Any) -> Any:
                raise AssertionError("nothing is sent")

            def __enter__(self) -> Any:
                calls.append("enter")
                return self

            def __exit__(self, *exception: object) -> None:
                calls.append("exit")

            def close(self) -> None:
                calls.append("close")

        class AsyncInner(httpx.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                raise AssertionError("nothing is sent")

            async def __aenter__(self) -> Any:
                calls.append("enter")
                return self

            async def __aexit__(self, *exception: object) -> None:
                calls.append("exit")

            async def aclose(self) -> None:
                calls.append("close")

        async def scenario() -> None:
            transport = self.async_tracked(AsyncInner(), app_type="llm")
            async with transport as entered:
                assert entered is transport
            await transport.aclose()

        transport = self.tracked(Inner(), app_type="llm")
        with transport as entered:
            assert entered is transport
        transport.close()
        assert calls == ["enter", "exit", "close"]
        asyncio.run(scenario())
        assert calls == 2 * ["enter", "exit", "close"]

    def test_what_is_no_transport_is_refused(self) -> None:
        with pytest.raises(
            TypeError, match=r"is no object with handle_request\(\).*AsyncTrackedTransport those of AsyncClient"
        ):
            self.tracked(self.httpx.AsyncHTTPTransport(), app_type="llm")
        with pytest.raises(TypeError, match=r"is no object with handle_async_request\(\)"):
            self.async_tracked("http://test", app_type="llm")

    def test_an_app_type_that_names_nothing_is_refused(self) -> None:
        with pytest.raises(TypeError, match="app_type must be a string, not 7"):
            self.tracked(app_type=7)
        with pytest.raises(ValueError, match="app_type is empty"):
            self.async_tracked(app_type="")
