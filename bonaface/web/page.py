"""The whole page, and the server's settings around it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bonaface.memory import trim_memory
from bonaface.web.about import about_html, model_card
from bonaface.web.api import build_api
from bonaface.web.choice import HOW_TO_MAKE_ONE
from bonaface.web.clients import RateLimit
from bonaface.web.compare import build_compare
from bonaface.web.connections import close_silent
from bonaface.web.examples import example_images
from bonaface.web.guards import GuardedBlocks, RequestGuard
from bonaface.web.jobs import Jobs
from bonaface.web.many import ManyTab
from bonaface.web.markup import render
from bonaface.web.one import OneTab, notice
from bonaface.web.panels import PRIVATE, panel
from bonaface.web.service import Service
from bonaface.web.theme import NAMES_FOR_SCREEN_READERS, STYLE, Calm
from bonaface.web.uploads import Leftovers
from bonaface.web.video import VideoTab

SWEEP_SECONDS = 60
FRAMING = 100_000  # bytes of an upload's body beside the file
SPACES = "https://huggingface.co https://*.hf.space"  # show a Space in a frame


def build_page(service: Service, folder: Path) -> gr.Blocks:
    """The interface. ``folder`` takes example images and uploads in progress; it lasts as long as the server."""
    limits = service.limits
    jobs, saved, clips = (Jobs(limits, folder) for _ in range(3))
    first = service.models[0] if service.models else None
    with GuardedBlocks(
        title="bonaface", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, limits.keep_seconds)
    ) as page:
        header = panel(render("header", situation=service.situation), elem_id="header")
        with gr.Tabs():
            with gr.Tab("Image", id="one"):
                OneTab(service, example_images(first, folder), saved)
            with gr.Tab("Batch", id="many"):
                ManyTab(service, jobs)
            with gr.Tab("Video", id="video"):
                VideoTab(service, clips)
            with gr.Tab("About", id="about"):
                about = panel(_about(service)[0], elem_id="about")
                with gr.Accordion("Model card", open=False, elem_id="card"):
                    card = gr.Markdown(_about(service)[1])
            with gr.Tab("Compare", id="compare"):
                build_compare(service)
        build_api(service)

        async def follow() -> AsyncIterator[tuple[Any, ...]]:
            yield render("header", situation=service.situation), *_about(service)
            if service.situation.status == "loading":
                while service.situation.status == "loading":
                    await asyncio.sleep(0.3)
                yield render("header", situation=service.situation), *_about(service)

        page.load(follow, None, [header, about, card], show_progress="hidden", concurrency_limit=None, **PRIVATE)

        def forget(request: gr.Request) -> None:
            for kept in (jobs, saved, clips):
                kept.drop(request.session_hash or "")

        page.unload(forget)
    page.queue(max_size=limits.waiting, default_concurrency_limit=limits.together)
    return page


@asynccontextmanager
async def housekeeping(app: Any, *, keep_seconds: float) -> AsyncIterator[None]:
    """While the server runs: no connection is held open for nothing, no upload and no freed memory is kept."""

    async def sweep() -> None:
        left = Leftovers(keep_seconds)
        while True:
            await asyncio.sleep(SWEEP_SECONDS / 4)
            await asyncio.to_thread(left.delete)
            trim_memory()

    async def close() -> None:
        while getattr(app.get_blocks(), "server", None) is None:  # it is noted once it runs
            await asyncio.sleep(0.1)
        await close_silent(app.get_blocks().server)

    tasks = [asyncio.create_task(sweep()), asyncio.create_task(close())]
    yield
    for task in tasks:
        task.cancel()


def launch_options(service: Service, *, login: bool = False) -> dict[str, Any]:
    """The arguments of ``Blocks.launch`` other than the address: theme, limits, middleware."""
    limits = service.limits
    guard = Middleware(
        RequestGuard,
        largest=limits.upload_bytes + FRAMING,
        most=limits.together + limits.waiting,
        rate=RateLimit(limits.per_minute) if limits.per_minute else None,
        behind_proxy=limits.behind_proxy,
        login=login,
        framed_by=SPACES if os.environ.get("SPACE_ID") else "",
    )

    async def health(_: Request) -> JSONResponse:
        situation = service.situation
        body = {"status": situation.status, "message": situation.message}
        return JSONResponse(body, status_code=200 if situation.status == "ready" else 503)

    return {
        "theme": Calm(),
        "css_paths": [STYLE],
        "js": NAMES_FOR_SCREEN_READERS,
        "max_file_size": limits.upload_bytes,
        "footer_links": ["api"],
        "run_history": False,
        "state_session_capacity": limits.waiting,  # 0.2 MB each, for callers of the API too
        "ssr_mode": False,
        "show_error": False,
        "app_kwargs": {
            "routes": [Route("/health", health)],
            "middleware": [guard],
            "lifespan": partial(housekeeping, keep_seconds=limits.keep_seconds),
        },
    }


def _about(service: Service) -> tuple[str, str]:
    """What the page says about the model, and its card."""
    situation = service.situation
    if situation.status == "ready":
        judge = service.judge()
        return about_html(judge, service.limits), model_card(judge)
    kind, title = {
        "loading": ("loading", "The model is loading"),
        "no model": ("empty", "There is no model yet"),
        "failed": ("error", "The model failed to load"),
    }[situation.status]
    command = HOW_TO_MAKE_ONE if situation.status == "no model" else ""
    return notice(kind, title, [situation.message], command), ""
