"""Where the app listens, by options and environment: what is wrong is named before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from bonaface.errors import UsageError
from bonaface.web.app import main
from bonaface.web.settings import (
    UNSET,
    bindable,
    check_environment,
    prepare_environment,
    server_port,
    server_root,
    switch,
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRADIO_SERVER_PORT", "abc"),
        ("GRADIO_SERVER_PORT", "70000"),
        ("GRADIO_SERVER_NAME", "no.such.host.invalid"),
        ("GRADIO_NUM_PORTS", "many"),
        ("GRADIO_NODE_NUM_PORTS", "1.5"),
        ("GRADIO_ROOT_PATH", "two words"),
        ("GRADIO_SHARE", "perhaps"),
        ("GRADIO_MCP_SERVER", "1"),
        ("GRADIO_ALLOWED_PATHS", "/no/such/place"),
        ("GRADIO_NODE_PATH", "/no/such/node"),
        ("GRADIO_HEARTBEAT_INTERVAL", "0.0"),
        ("SSL_CERT_FILE", "/no/such/certificates.pem"),
        ("HF_ENDPOINT", "hub.example"),
        ("WEB_CONCURRENCY", "all"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("BONAFACE_YUNET", "/no/such/weights.onnx"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        main([])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "abc"],
        ["--port", "-1"],
        ["--port", "65536"],
        ["--host", "192.0.2.1"],  # documentation's own, no machine's
        ["--host", "http://0.0.0.0"],
        ["--root-path", "bonaface"],
        ["--root-path", "/a b"],
        ["--max-files", "0"],
        ["--max-upload", "-1"],
        ["--max-waiting", "few"],
    ],
)
def test_a_wrong_option_is_named(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=arguments[0]):
        main(arguments)


def test_valid_values_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GRADIO_SERVER_PORT": "8080", "GRADIO_ROOT_PATH": "/faces/", "GRADIO_SHARE": "True", "GRADIO_NUM_PORTS": "7",
        "GRADIO_DEFAULT_CONCURRENCY_LIMIT": "none", "GRADIO_HEARTBEAT_INTERVAL": "0.5", "GRADIO_ALLOWED_PATHS": ".",
        "WEB_CONCURRENCY": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    check_environment()
    assert (server_port(None), server_port("0"), server_port("9000")) == (8080, 0, 9000)
    assert server_root(None) == "/faces"
    assert server_root("") == ""  # the command line beats the environment
    assert server_root("https://example.org/a/b/") == "https://example.org/a/b"
    assert switch("GRADIO_SHARE")


def test_what_serves_to_develop_gradio_itself_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them lets every visitor edit a file."""
    for name in (*UNSET, "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):  # also so that they are restored
        monkeypatch.setenv(name, "1")
    prepare_environment("127.0.0.1", 7860, outside=False)
    assert not any(name in os.environ for name in UNSET)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_named_and_another_offered(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of {host} is in use") as refused:
            bindable(host, port)
    assert "--port" in refused.value.hint
    assert bindable(host, port) == port
    assert bindable(host, 0) > 0


@pytest.mark.slow
def test_the_command_ends_with_two_lines_and_2() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(ROOT) / "app.py"), "--port", "abc"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: --port is 'abc'")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("model", ["/no/such/run", "./runs/none", "no/such/run/at all", "user/nobody"])
def test_a_model_that_is_not_there_ends_the_start(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=f"cannot load the model {model}"):
        main(["--port", "0", "--model", model])


def test_a_folder_that_holds_no_model_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no config"):
        main(["--port", "0", "--model", str(tmp_path)])


def test_a_trust_list_that_cannot_be_read_stops_the_app_before_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not every image of every visitor."""
    monkeypatch.setenv("BONAFACE_C2PA_TRUST", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match=r"cannot read the trust list .*none\.pem"):
        main(["--port", "0"])
