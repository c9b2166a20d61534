"""The served app as programs meet it: named endpoints, one score everywhere, refusals, login, tools, nothing left."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import json
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from reverse_proxy import reverse_proxy
from served import MAX_FILES, Server, noise, prediction_of, run_folder, server

from bonaface.inference.scoring import run_predict_command

pytestmark = pytest.mark.slow

FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def app() -> Server:
    return server()


@pytest.fixture(scope="module")
def client(app: Server, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(app.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image.png"
    Image.fromarray(noise(50, dark=True)).save(path)
    return path


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server next door, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_address[1]}/image.png", asked
    found.shutdown()
    found.server_close()


def post(url: str, body: object, headers: dict[str, str] | None = None) -> bytes:
    """POST JSON; the body of the answer, that of a refusal included."""
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), sent)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        return error.read()


def call(app: Server, name: str, data: list[object]) -> bytes:
    """Both steps of Gradio's HTTP interface; the stream of events, or the refusal of the first step."""
    first = post(f"{app.url}/gradio_api/call/{name}", {"data": data})
    event = json.loads(first).get("event_id")
    return app.get(f"/gradio_api/call/{name}/{event}")[1] if event else first


def inline(path: Path) -> dict[str, str]:
    return {"url": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()}


# --- endpoints ----------------------------------------------------------------------------------------------------


def test_all_ways_to_the_model_give_the_same_score(app: Server, client: Client, tmp_path: Path) -> None:
    """The page and the API share ``Judge.check``; pipeline, command line, detector and API are compared on files."""
    from transformers import pipeline

    from bonaface.inference.detector import Detector

    paths = []
    for i, (size, kind) in enumerate([((36, 36), "png"), ((80, 60), "jpg"), ((300, 200), "webp"), ((33, 90), "png")]):
        path = tmp_path / f"{i}.{kind}"
        Image.fromarray(noise(60 + i, dark=i % 2 == 0, size=size)).save(path)
        paths.append(str(path))
    table = tmp_path / "scores.csv"
    run_predict_command(paths, str(run_folder()), str(table))
    by_command = pd.read_csv(table)["p_fake"]
    by_pipeline = pipeline("image-classification", model=str(run_folder()))
    by_detector = Detector.from_pretrained(run_folder())
    together = client.predict([handle_file(path) for path in paths], api_name="/predict_batch")
    for i, path in enumerate(paths):
        scores = [
            client.predict(handle_file(path), api_name="/predict")["p_fake"],
            together[i]["p_fake"],
            client.predict(handle_file(path), api_name="/explain")[0]["prediction"]["p_fake"],
            by_command[i],
            next(row["score"] for row in by_pipeline(path) if row["label"] == "fake"),
            by_detector(path)[0].p_fake,
        ]
        assert max(scores) - min(scores) < 1e-4, scores


def test_an_answer_says_verdict_score_labels_band_and_what_they_mean(client: Client, image: Path) -> None:
    answer = client.predict(handle_file(image), api_name="/predict")
    assert (answer["name"], answer["status"], answer["verdict"]) == ("an image.png", "ok", "fake")
    assert sum(answer["labels"].values()) == pytest.approx(1)
    assert answer["p_fake"] == pytest.approx(answer["labels"]["fake"])
    assert answer["p_fake"] >= answer["band"][1]
    assert "calibration images that scored like this" in answer["meaning"]


def test_one_bad_file_in_a_batch_fails_alone(client: Client, image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("just some text, long enough to be one")
    good, failed, again = client.predict([handle_file(f) for f in (image, bad, image)], api_name="/predict_batch")
    assert failed["verdict"] == "error"
    assert failed["p_fake"] is None
    assert failed["error"] == "named .jpg, but contains text"
    assert good["p_fake"] == again["p_fake"] > 0.5
    with pytest.raises(AppError, match=f"more than {MAX_FILES} files"):
        client.predict([handle_file(image)] * (MAX_FILES + 1), api_name="/predict_batch")


def test_explain_gives_an_image_of_the_same_size_and_a_sentence(client: Client, image: Path) -> None:
    answer, overlay = client.predict(handle_file(image), api_name="/explain")
    assert answer["target"] == "fake"
    assert answer["method"] == "integrated_gradients"
    assert answer["trust"].endswith(".")
    with Image.open(overlay) as drawn:
        assert drawn.size == (36, 36)


def test_the_endpoints_are_typed_and_documented(app: Server) -> None:
    endpoints = json.loads(app.get("/gradio_api/info")[1])["named_endpoints"]
    assert set(endpoints) == {"/predict", "/predict_batch", "/explain", "/model_info"}
    for endpoint in endpoints.values():
        assert len(endpoint["description"]) > 40
    (returned,) = endpoints["/predict"]["returns"]
    assert returned["type"]["properties"]["verdict"]["enum"] == ["real", "fake", "uncertain", "error"]
    assert "p_fake: float | None" in returned["python_type"]["type"]


def test_model_info_is_what_the_model_folder_says(client: Client) -> None:
    answer = client.predict(api_name="/model_info")
    config = json.loads((run_folder() / "config.json").read_text())["bonaface"]
    figures = json.loads((run_folder() / "report" / "metrics.json").read_text())["figures"]
    assert answer["status"] == "ready"
    assert answer["labels"] == ["fake", "real"]
    assert answer["data_fingerprint"] == config["data_fingerprint"]
    assert answer["band"] == [config["band"]["low"], config["band"]["high"]]
    assert answer["figures"]["auc"] == [figures["auc"][key] for key in ("value", "low", "high")]


def test_curl_as_in_the_readme(app: Server, image: Path) -> None:
    """One command with the bytes inside the question; or upload, then ask."""

    def curl(*arguments: str) -> Any:
        command = ["curl", "-sS", "-m", "60", "-H", "Content-Type: application/json", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, input=question).stdout)

    question = json.dumps({"data": [inline(image)]})
    answer = curl("-d", "@-", f"{app.url}/gradio_api/run/predict")["data"][0]
    assert answer["verdict"] == "fake"
    uploaded = subprocess.run(
        ["curl", "-sS", "-F", f"files=@{image}", f"{app.url}/gradio_api/upload"], check=True, capture_output=True
    )
    question = json.dumps({"data": [{"path": json.loads(uploaded.stdout)[0], "meta": FILE}]})
    again = curl("-d", "@-", f"{app.url}/gradio_api/run/predict")["data"][0]
    assert again["p_fake"] == answer["p_fake"]
    info = curl("-d", '{"data": []}', f"{app.url}/gradio_api/run/model_info")["data"][0]
    assert info["status"] == "ready"


def test_many_at_the_same_moment_get_their_own_answers(app: Server, tmp_path: Path) -> None:
    images = []
    for i in range(24):
        images.append(tmp_path / f"{i}.png")
        Image.fromarray(noise(100 + i, dark=i % 2 == 0)).save(images[-1])
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda path: prediction_of(call(app, "predict", [inline(path)])), images))
    assert [answer["p_fake"] > 0.5 for answer in answers] == [i % 2 == 0 for i in range(24)]  # type: ignore[operator]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["predict", "predict_batch", "explain"])
def test_an_address_is_refused_and_never_fetched(app: Server, elsewhere: tuple[str, list[str]], name: str) -> None:
    address, asked = elsewhere
    for file in (
        {"path": address, "meta": FILE},
        {"path": address, "url": address, "orig_name": "a.png", "meta": FILE},
        {"path": None, "url": address, "meta": FILE},
        {"path": address},
    ):
        for data in ([file], [[file]]):
            answers = call(app, name, list(data)), post(f"{app.url}/gradio_api/run/{name}", {"data": list(data)})
            for answer in answers:
                assert b"p_fake" not in answer
                assert b"event: complete" not in answer
    time.sleep(0.2)
    assert asked == []


def test_a_file_of_the_server_is_not_a_file_of_the_visitor(app: Server, tmp_path: Path, image: Path) -> None:
    for file in ({"path": str(image), "meta": FILE}, {"path": str(image)}, {"path": "/etc/passwd", "meta": FILE}):
        answer = call(app, "predict", [file]).decode()
        assert "event: complete" not in answer
        assert "p_fake" not in answer


def test_what_is_too_large_is_refused(app: Server) -> None:
    boundary = "x"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = head + bytes(6_000_000) + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{app.url}/gradio_api/upload", body, kind)
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert getattr(refused.value, "code", 413) == 413
    assert b"413" not in app.get("/health")[1]
    assert app.get("/health")[0] == 200


def test_bytes_that_are_no_image_are_said_so(app: Server) -> None:
    text = "data:image/png;base64," + base64.b64encode(b"just some text, long enough to be one").decode()
    answer = prediction_of(call(app, "predict", [{"url": text}]))
    assert (answer["verdict"], answer["status"]) == ("error", "not an image")


def test_the_page_may_load_nothing_from_elsewhere(app: Server) -> None:
    with urllib.request.urlopen(app.url) as response:
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert response.headers["X-Content-Type-Options"] == "nosniff"


# --- tools ---------------------------------------------------------------------------------------------------------


def test_tools_answer_and_refuse_addresses_too(app: Server, elsewhere: tuple[str, list[str]], image: Path) -> None:
    address, asked = elsewhere

    async def use() -> tuple[set[str], Any, Any]:
        url = f"{app.url}/gradio_api/mcp/"
        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            answer = await session.call_tool("predict", {"image": inline(image)["url"]})
            return names, answer, await session.call_tool("predict", {"image": address})

    names, answer, refusal = asyncio.run(use())
    assert {"predict", "predict_batch", "explain", "model_info"} <= names
    assert "'verdict': 'fake'" in answer.content[0].text
    assert refusal.isError
    assert "never fetched" in refusal.content[0].text
    assert asked == []


# --- other ways to start ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Server:
    """One with a password, asked while its model still loads."""
    return server("--auth", "me:a-long:secret", ready=False)


def test_the_page_is_there_before_the_model_and_health_says_so(guarded: Server) -> None:
    status, body = guarded.get("/health")
    assert (status, json.loads(body)["status"]) in ((503, "loading"), (200, "ready"))
    guarded.wait("/health")
    assert json.loads(guarded.get("/health")[1])["status"] == "ready"


def test_without_the_password_there_is_no_answer(guarded: Server, image: Path) -> None:
    assert guarded.get("/gradio_api/info")[0] == 401
    answer = post(f"{guarded.url}/gradio_api/call/predict", {"data": [inline(image)]}).decode()
    assert "event_id" not in answer
    client = Client(guarded.url, auth=("me", "a-long:secret"), verbose=False)
    assert client.predict(handle_file(image), api_name="/predict")["verdict"] == "fake"


def test_without_a_model_the_page_opens_and_says_how_to_make_one(tmp_path: Path) -> None:
    """And when the server is stopped, nothing that it wrote is left."""
    found = server("--max-waiting", "3", models=(), ready=False)
    status, body = found.get("/health")
    assert status == 503
    assert "python train_hf.py --data DATA" in json.loads(body)["message"]
    assert b"python train_hf.py --data DATA" in found.get("/config")[1]
    assert b"There is no model yet" in call(found, "predict", [inline_noise()])
    assert any(found.temporary.iterdir())
    found.process.send_signal(signal.SIGTERM)
    found.process.wait(30)
    assert list(found.temporary.iterdir()) == []


@pytest.mark.parametrize("forwarded", [True, False])
def test_below_a_path_of_a_reverse_proxy_every_way_in_works(image: Path, tmp_path: Path, forwarded: bool) -> None:
    found = server("--root-path", "/tools/faces")
    with reverse_proxy(found.url, "/tools/faces", forwarded=forwarded) as url:
        below = replace(found, url=url)
        assert json.loads(below.get("/health")[1])["status"] == "ready"
        assert json.loads(below.get("/config")[1])["root"] == url
        client = Client(f"{url}/", verbose=False, download_files=str(tmp_path))
        answer = client.predict(handle_file(image), api_name="/predict")
        assert (answer["name"], answer["verdict"]) == ("an image.png", "fake")
        _, overlay = client.predict(handle_file(image), api_name="/explain")  # fetched from an address of the app
        with Image.open(overlay) as drawn:
            assert drawn.size == (36, 36)
        assert prediction_of(call(below, "predict", [inline(image)]))["p_fake"] == answer["p_fake"]
        assert replace(found, url=url.removesuffix("/tools/faces")).get("/health")[0] == 404
    assert found.get("/health")[0] == 200  # whoever watches it asks without the path


def inline_noise() -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(noise(1, dark=True)).save(buffer, "PNG")
    return {"url": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}


def test_the_documentation_names_only_endpoints_that_are_there(app: Server) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "serve.md").read_text(encoding="utf-8")
    named = set(re.findall(r'api_name="(/\w+)"', page)) | {f"/{name}" for name in re.findall(r"/run/(\w+)", page)}
    assert named
    assert named <= set(json.loads(app.get("/gradio_api/info")[1])["named_endpoints"])
