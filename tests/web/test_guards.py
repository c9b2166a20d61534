"""What stands between the network and the app: who may ask, how often, how slowly, and what every answer says."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import gradio as gr
import httpx
import pytest
import uvicorn
from gradio.state_holder import SessionState
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bonaface.web.clients import KNOWN, RateLimit, client_of
from bonaface.web.connections import close_silent
from bonaface.web.guards import CONTENT_POLICY, OPEN, RequestGuard, is_open, refuse_addresses
from bonaface.web.limits import Limits
from bonaface.web.page import build_page, launch_options
from bonaface.web.service import Service
from bonaface.web.uploads import Leftovers


def answers(app: Any, ask: Callable[[httpx.AsyncClient], Awaitable[Any]], address: str = "192.0.2.1") -> Any:
    """What ``ask`` gives, with a client of the application."""

    async def visit() -> Any:
        transport = httpx.ASGITransport(app, client=(address, 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await ask(client)

    return asyncio.run(visit())


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the whole body and says how long it is."""
    n, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the body ended early")
        n, more = n + len(message.get("body", b"")), message.get("more_body", False)
    await PlainTextResponse(str(n))(scope, receive, send)


async def drip(pieces: int, seconds: float) -> Any:
    for _ in range(pieces):
        yield b"x"
        await asyncio.sleep(seconds)


# --- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 413])
def test_every_answer_says_what_the_page_may_load_and_who_may_frame_it(status: int) -> None:
    guard = RequestGuard(echo, largest=10, most=2)
    answer = answers(guard, lambda client: client.post("/", content=bytes(11 if status == 413 else 1)))
    assert answer.status_code == status
    assert answer.headers["Content-Security-Policy"] == f"{CONTENT_POLICY}; frame-ancestors 'self'"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_a_space_may_be_shown_in_the_hubs_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "user/space")
    (guard,) = launch_options(Service([], Limits()))["app_kwargs"]["middleware"]
    answer = answers(guard.cls(echo, **guard.kwargs), lambda client: client.get("/"))
    assert "frame-ancestors 'self' https://huggingface.co" in answer.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in answer.headers


# --- addresses and crowds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"path": "http://127.0.0.1/a.png"},
        {"path": "HTTPS://example.org/a.png", "meta": {"_type": "gradio.FileData"}},
        {"path": "file:///etc/passwd"},
        {"path": None, "url": "http://127.0.0.1/a.png"},
        {"url": "ftp://127.0.0.1/a.png"},
        [[{"deep": [{"path": "http://127.0.0.1/"}]}]],
    ],
)
def test_addresses_are_refused(value: object) -> None:
    for inputs in ([value], (value,)):
        with pytest.raises(gr.Error, match="never fetched"):
            refuse_addresses(inputs)


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/tmp/x/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/x/a.png"},
        {"path": None, "url": "data:image/png;base64,AAAA"},
        {"name": "http://in-a-name"},
        None,
        "text",
    ],
)
def test_files_are_not_refused(value: object) -> None:
    refuse_addresses([value])


def test_more_requests_than_may_wait_are_told_busy_and_large_ones_refused() -> None:
    gate, inside = asyncio.Event(), []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        inside.append(1)
        await gate.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def visit() -> tuple[list[int], Any]:
        transport = httpx.ASGITransport(RequestGuard(app, largest=100, most=2))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            waiting = [asyncio.create_task(client.post("/", content=b"x")) for _ in range(2)]
            while len(inside) < 2:
                await asyncio.sleep(0)
            busy, large = await client.post("/"), await client.post("/", content=bytes(101))
            gate.set()
            done = await asyncio.gather(*waiting)
            return [answer.status_code for answer in (busy, large, *done, await client.post("/"))], busy

    codes, busy = asyncio.run(visit())
    assert codes == [503, 413, 200, 200, 200]
    assert "Try again" in busy.text


def test_what_is_refused_on_arrival_or_in_the_middle_is_never_seen_whole() -> None:
    """Many may send at the same time; of those that arrive, the application gets no more than may be under way."""
    both, gate, whole = asyncio.Event(), asyncio.Event(), []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        whole.append(body)
        await gate.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def slowly(*parts: bytes) -> Any:
        yield parts[0]
        await both.wait()
        for part in parts[1:]:
            yield part

    async def visit() -> list[int]:
        transport = httpx.ASGITransport(RequestGuard(app, largest=100, most=1))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            bodies = [(b"a", b"a"), (b"b", b"b"), (b"c" * 60, b"c" * 60)]
            asked = [asyncio.create_task(client.post("/", content=slowly(*parts))) for parts in bodies]
            await asyncio.sleep(0.05)
            both.set()
            await asyncio.sleep(0.05)
            gate.set()
            return sorted(answer.status_code for answer in await asyncio.gather(*asked))

    assert asyncio.run(visit()) == [200, 413, 503]
    assert len(whole) == 1


# --- memory --------------------------------------------------------------------------------------------------------


def test_the_sessions_of_all_callers_together_cost_little(tmp_path: Path) -> None:
    """Gradio copies the configuration of the whole page for each, callers of the API included, and forgets none."""
    service = Service([], Limits())
    page, few = build_page(service, tmp_path), 20
    tracemalloc.start()
    kept = [SessionState(page) for _ in range(few)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert size * launch_options(service)["state_session_capacity"] < 50e6


# --- size and speed ------------------------------------------------------------------------------------------------


def test_a_body_without_a_stated_length_is_counted() -> None:
    guard = RequestGuard(echo, largest=10, most=2)
    answer = answers(guard, lambda client: client.post("/", content=drip(11, 0)))
    assert (answer.status_code, answer.text) == (413, "Upload at most 0 MB at a time.")
    assert answers(guard, lambda client: client.post("/", content=drip(10, 0))).text == "10"


def test_a_body_that_is_sent_too_slowly_is_refused_and_gives_its_place_back() -> None:
    guard = RequestGuard(echo, largest=1000, most=1, patience=0.3)
    started = time.monotonic()
    answer = answers(guard, lambda client: client.post("/", content=drip(100, 0.1)))
    assert answer.status_code == 408
    assert "too slowly" in answer.text
    assert time.monotonic() - started < 5
    assert (guard._sending, guard._under_way) == (0, 0)
    assert answers(guard, lambda client: client.post("/", content=b"x")).text == "1"


def test_many_slow_bodies_leave_the_places_of_those_that_are_here() -> None:
    guard = RequestGuard(echo, largest=1000, most=2, patience=5)

    async def ask(client: httpx.AsyncClient) -> tuple[str, list[int]]:
        slow = [asyncio.create_task(client.post("/", content=drip(5, 0.2))) for _ in range(7)]
        await asyncio.sleep(0.2)
        quick = await client.post("/", content=b"x")
        beyond = [asyncio.create_task(client.post("/", content=drip(5, 0.2))) for _ in range(3)]
        return quick.text, [(await task).status_code for task in (*slow, *beyond)]

    quick, codes = answers(guard, ask)
    assert quick == "1"
    assert codes.count(503) == 2  # four times as many as may be under way may be sending: eight
    assert (guard._sending, guard._under_way) == (0, 0)


def test_a_fault_of_the_application_stays_its_own() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ZeroDivisionError

    guard = RequestGuard(broken, largest=10, most=2)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(guard({"type": "http", "method": "POST", "path": "/", "headers": []}, nothing, ignore))
    assert (guard._sending, guard._under_way) == (0, 0)


def test_a_client_that_leaves_in_the_middle_is_no_fault() -> None:
    """Else the log would be full of tracebacks."""

    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    guard = RequestGuard(echo, largest=10, most=2)
    asyncio.run(guard({"type": "http", "method": "POST", "path": "/", "headers": []}, leave, ignore))
    assert (guard._sending, guard._under_way) == (0, 0)


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ignore(_: Any) -> None:
    pass


@contextmanager
def served(app: Any, seconds: float) -> Iterator[int]:
    """An application on a free port, by uvicorn, whose silent connections are closed after some seconds."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))

    async def run() -> None:
        task = asyncio.create_task(close_silent(server, seconds))
        await server.serve()
        task.cancel()

    thread = Thread(target=lambda: asyncio.run(run()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side ends a connection in time."""
    connection.settimeout(seconds)
    with suppress(ConnectionResetError):
        try:
            while connection.recv(1000):
                pass
        except TimeoutError:
            return False
    return True


def test_a_client_that_never_ends_its_header_is_cut_off_and_others_are_not() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.5)
        await PlainTextResponse("done")(scope, receive, send)

    with served(slow, 0.4) as port:
        asking = http.client.HTTPConnection("127.0.0.1", port)
        asking.request("GET", "/")
        silent, partial = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        partial.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow: ")
        assert closed(silent, 10)
        assert closed(partial, 10)
        assert asking.getresponse().read() == b"done"
        again = socket.create_connection(("127.0.0.1", port))
        again.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        again.recv(1000)
        again.sendall(b"GET / HT")  # the next request of the same connection
        assert closed(again, 10)


# --- who asks ------------------------------------------------------------------------------------------------------


def scope_of(address: str, forwarded: str = "") -> dict[str, Any]:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return {"type": "http", "client": (address, 5), "headers": headers, "method": "POST", "path": "/"}


def test_a_forwarded_address_counts_only_behind_a_proxy_and_only_the_proxys_own() -> None:
    scope = scope_of("10.0.0.1", "203.0.113.9, 198.51.100.7")
    assert client_of(scope, behind_proxy=False) == "10.0.0.1"
    assert client_of(scope, behind_proxy=True) == "198.51.100.7"
    assert client_of(scope_of("10.0.0.1"), behind_proxy=True) == "10.0.0.1"


def test_neighbours_in_a_customers_network_are_one_client() -> None:
    assert client_of(scope_of("2001:db8::1"), behind_proxy=False) == client_of(
        scope_of("2001:db8::ffff:2"), behind_proxy=False
    )
    assert client_of(scope_of("::ffff:192.0.2.1"), behind_proxy=False) != client_of(
        scope_of("::ffff:192.0.2.2"), behind_proxy=False
    )


def test_each_client_has_so_many_requests_a_minute() -> None:
    rate = RateLimit(3)
    assert [rate.seconds_to_wait("a", 0.0) for _ in range(4)] == [0, 0, 0, 20]
    assert rate.seconds_to_wait("b", 0.0) == 0
    assert rate.seconds_to_wait("a", 19.0) == pytest.approx(1)
    assert rate.seconds_to_wait("a", 20.0) == 0
    assert rate.seconds_to_wait("a", 1000.0) == 0
    assert [rate.seconds_to_wait("a", 1000.0) for _ in range(3)][-1] > 0  # three and no more, however long it was away


def test_no_more_clients_are_remembered_than_have_room() -> None:
    rate = RateLimit(1)
    for number in range(KNOWN + 10):
        rate.seconds_to_wait(str(number), 0.0)
    assert len(rate._left) == KNOWN
    assert rate.seconds_to_wait(str(KNOWN + 9), 0.0) > 0


def test_who_asks_too_often_is_told_when_to_come_back_and_may_still_look() -> None:
    guard = RequestGuard(echo, largest=10, most=5, rate=RateLimit(2))

    async def ask(client: httpx.AsyncClient) -> list[Any]:
        return [await client.post("/") for _ in range(3)] + [await client.get("/")]

    first, second, refused, looked = answers(guard, ask)
    assert [first.status_code, second.status_code, refused.status_code, looked.status_code] == [200, 200, 429, 200]
    assert 0 < int(refused.headers["Retry-After"]) <= 30
    assert answers(guard, lambda client: client.post("/"), address="192.0.2.2").status_code == 200


# --- the password --------------------------------------------------------------------------------------------------


def test_with_a_password_no_route_but_the_login_answers_those_who_have_not_given_it(tmp_path: Path) -> None:
    """Every route that Gradio has, those that it leaves open included."""
    from gradio.routes import App

    service = Service([], Limits())
    page = build_page(service, tmp_path)
    page.auth = [("me", "secret")]
    options = launch_options(service, login=True)["app_kwargs"]
    app = App.create_app(page, app_kwargs={key: value for key, value in options.items() if key != "lifespan"})
    routes = {(route.path, method) for route in flat(app.routes) for method in route.methods}
    assert len(routes) > 60

    async def ask(client: httpx.AsyncClient) -> dict[tuple[str, str], int]:
        found = {}
        for path, method in sorted(routes):
            place = path.replace("{", "").replace("}", "").replace(":path", "")
            found[path, method] = (await client.request(method, place)).status_code
        return found

    codes = answers(app, ask)
    open_ = {path for (path, method), code in codes.items() if code != 401}
    assert {path for path in open_ if path.startswith("/gradio_api")} <= {"/gradio_api/startup-events"}
    assert open_ >= {"/", "/login", "/health"}
    assert all(is_open(path, "POST" if path == "/login" else "GET") for path in open_ - {"/login/"})


def flat(routes: Any) -> Iterator[Route]:
    for route in routes:
        if getattr(route, "methods", None):
            yield route
        below = getattr(route, "original_router", route)  # of FastAPI's included routers
        yield from flat(getattr(below, "routes", None) or [])


def test_the_cookie_of_somebody_who_has_logged_in_opens_every_route() -> None:
    async def inside(request: Request) -> Response:
        return PlainTextResponse("inside")

    guard = Middleware(RequestGuard, largest=10, most=5, login=True)
    app = Starlette(routes=[Route("/gradio_api/x", inside)], middleware=[guard])
    app.cookie_id, app.tokens = "id", {"token": "me"}  # type: ignore[attr-defined]

    def status(cookie: str) -> int:
        return answers(app, lambda client: client.get("/gradio_api/x", headers={"Cookie": cookie})).status_code

    assert status("access-token-id=token") == status("access-token-unsecure-id=token") == 200
    assert status("access-token-id=other") == status("access-token-other=token") == status("a=b") == 401


# --- files ---------------------------------------------------------------------------------------------------------


def test_what_is_left_of_uploads_is_deleted_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off soon, a whole one later; an open or growing one, and the page's own files, never."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "face.jpg").write_bytes(b"x")
    left = Leftovers(keep_seconds=0.9, cut_off_seconds=0.2)
    for name in ("cut off", "open", "digest/whole.jpg", "digest/growing.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (1, 1))  # the clock is no witness: it may have jumped

    def after(seconds: float) -> set[str]:
        time.sleep(seconds)
        (tmp_path / "digest/growing.jpg").open("ab").write(b"x")
        left.delete()
        return {path.name for path in tmp_path.rglob("*") if path.is_file()}

    with (tmp_path / "open").open("ab"):
        assert after(0) == {"cut off", "open", "whole.jpg", "growing.jpg", "face.jpg"}
        assert after(0.3) == {"open", "whole.jpg", "growing.jpg", "face.jpg"}
        assert after(0.3) == {"open", "whole.jpg", "growing.jpg", "face.jpg"}
    (tmp_path / "digest/new").write_bytes(b"y")
    (tmp_path / "digest/new").replace(tmp_path / "digest/whole.jpg")  # the same image, uploaded again
    assert after(0.6) == {"whole.jpg", "growing.jpg", "face.jpg"}
    assert after(1.0) == {"growing.jpg", "face.jpg"}
    assert (tmp_path / "digest").is_dir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "nothing yet"))
    left.delete()


def test_without_a_password_nothing_may_be_sent_but_the_password() -> None:
    for path in (*OPEN, "/static/x.js", "/gradio_api/run/predict"):
        assert is_open(path, "POST") == (path == "/login"), path
        assert is_open(path, "GET") == (path != "/gradio_api/run/predict"), path
