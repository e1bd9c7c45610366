"""LLM providers, the tracking server and ports: what is reached over the network, or by it."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, Any

from musicrec.cli.console import spelt
from musicrec.cli.doctor.findings import Asked, Finding, State
from musicrec.cli.doctor.packages import install_command
from musicrec.database.home import location

#: Seconds to wait for a provider, and for a server of our own.
PROVIDER_SECONDS, SERVER_SECONDS = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is asked for something that costs nothing.

    Attributes:
        key: the environment variable of its key; no value is ever shown.
        base_url: that of another server.
        at: its own address.
        path: its list of models.
    """

    key: str
    base_url: str
    at: str
    path: str

    def headers(self, key: str) -> Mapping[str, str]:
        if self.key == "ANTHROPIC_API_KEY":
            return {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return {"Authorization": f"Bearer {key}"}


PROVIDERS = {
    "anthropic": Provider(
        "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "https://api.anthropic.com", "/v1/models"
    ),
    "openai": Provider("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1", "/models"),
}


def llm(asked: Asked) -> Iterator[Finding]:
    for name, provider in PROVIDERS.items():
        check = f"LLM {name}"
        key = os.environ.get(provider.key, "").strip()
        if not key:
            fix = f"export {provider.key}=…, if you want its graphs; --provider local needs none"
            yield Finding(check, "not set", f"{provider.key} is not set", fix)
        elif not (key.isascii() and key.isprintable()) or " " in key:
            said = f"{provider.key} holds spaces or odd characters, which no key has"
            yield Finding(
                check, "broken", said, f"export {provider.key}=… anew, without quotes in it"
            )
        elif importlib.util.find_spec(name) is None:
            said = f"{provider.key} is set; the package {name} is missing"
            yield Finding(check, "broken", said, install_command("llm"))
        elif not asked.online:
            said = f"{provider.key} is set; not asked whether it is good"
            yield Finding(check, "ok", said, "")
        else:
            yield _reached(check, provider, key)


def _reached(check: str, provider: Provider, key: str) -> Finding:
    base = os.environ.get(provider.base_url, "").strip().rstrip("/") or provider.at
    started = time.monotonic()
    try:
        status, _ = fetch(f"{base}{provider.path}", PROVIDER_SECONDS, provider.headers(key))
    except (OSError, ValueError) as error:
        took = time.monotonic() - started
        proxy = "set HTTPS_PROXY if there is a proxy" if not _proxied() else "check HTTPS_PROXY"
        if isinstance(error, TimeoutError) or isinstance(
            getattr(error, "reason", None), TimeoutError
        ):
            said = f"no answer from {base} within {took:.0f} s"
            fix = (
                f"curl -m 20 -sSI {base} shows whether the network is to blame ({proxy}); graphs "
                "wait llm.timeout_seconds=90 for a call, and --provider local asks nobody"
            )
        else:
            said = f"{base} cannot be reached: {getattr(error, 'reason', error)}"
            fix = f"{proxy}, correct {provider.base_url}, or use --provider local"
        return Finding(check, "broken", said, fix)
    took = time.monotonic() - started
    if status in (401, 403):
        fix = f"export {provider.key}=… with a key that is valid at {base}"
        return Finding(check, "broken", f"{base} refuses the key (HTTP {status})", fix)
    if status >= 500 or status == 429:
        fix = "try again later; a graph job waits and goes on by itself"
        return Finding(check, "warning", f"{base} answers HTTP {status}", fix)
    return Finding(check, "ok", f"{base} answered HTTP {status} in {took:.1f} s")


def _proxied() -> bool:
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whoever it names."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def fetch(url: str, seconds: float, headers: Mapping[str, str]) -> tuple[int, str]:
    """The status of an answer, and how it begins.

    Raises:
        OSError: there is none.
        ValueError: the address is none.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is no address of HTTP")
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  seen to above
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as answer:
            return answer.status, answer.read(1 << 16).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def tracking(_: Asked) -> Iterator[Finding]:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if importlib.util.find_spec("mlflow") is None:
        state: State = "broken" if uri else "not set"
        said = f"{uri or 'TensorBoard alone'}; MLflow's client is not installed"
        yield Finding("tracking", state, said, install_command("tracking"))
    elif not uri:
        store = location() / "mlflow" / "mlflow.db"
        there = "" if store.exists() else ", made by the first run with tracking=mlflow"
        yield Finding("tracking", "ok", f"no server is named: {store}{there}")
    elif not uri.startswith(("http://", "https://")):
        yield Finding("tracking", "ok", f"{uri}, which needs no server")
    else:
        yield _server(uri.rstrip("/"))


def _server(uri: str) -> Finding:
    try:
        status, _ = fetch(f"{uri}/health", SERVER_SECONDS, {})
    except (OSError, ValueError) as error:
        said = f"{uri} cannot be reached: {getattr(error, 'reason', error)}"
        fix = (
            "make mlflow, or correct MLFLOW_TRACKING_URI; trainings go on without it, and "
            f"{spelt('upload-run', 'run=FOLDER')} sends what it missed"
        )
        return Finding("tracking", "broken", said, fix)
    if status == 200:
        return Finding("tracking", "ok", f"{uri} answers")
    said = f"{uri} answers HTTP {status} where MLflow says that it is well"
    return Finding("tracking", "warning", said, "correct MLFLOW_TRACKING_URI")


#: port -> whose it is, where it answers, and what it says there if it is that; the way round it.
_PORTS = {
    8000: ("the service", "/openapi.json", "musicrec", "port=8001"),
    6006: ("TensorBoard", "/", "TensorBoard", 'make tensorboard ARGS="--port 6007"'),
    5000: ("MLflow", "/health", "OK", 'make mlflow ARGS="--port 5001"'),
}


def ports(_: Asked) -> Iterator[Finding]:
    for port, (who, path, sign, instead) in _PORTS.items():
        check = f"port {port}"
        if _is_free(port):
            yield Finding(check, "ok", f"free for {who}")
            continue
        try:
            text = fetch(f"http://127.0.0.1:{port}{path}", SERVER_SECONDS, {})[1]
        except (OSError, ValueError):
            text = ""
        if sign in text:
            yield Finding(check, "ok", f"{who} answers there")
        else:
            fix = f"{instead}; `ss -ltnp sport = :{port}` shows whose it is"
            yield Finding(check, "warning", f"taken by something that is not {who}", fix)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
