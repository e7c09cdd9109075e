"""The pages of `dlp label` over HTTP: every address begins with a secret token.

Nothing is served but the page's own files, what the session knows, and the images of its points, by
number: no request names a file.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dlp_plugins.errors import DlpError
from dlp_plugins.labeling import export
from dlp_plugins.labeling.session import Session, Source
from dlp_plugins.labeling.store import SKIPPED, Answer, check_new_class_name

WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # only the page's own scripts run, and no other site may frame it or learn its address
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LABEL_STUDIO_PREFIX = "/data/local-files/?d="

Person = Annotated[str, Field(min_length=1, max_length=64)]
MostMarks = 100_000


class AnswerRequest(BaseModel):
    """seen: [point, version] of each point; label: a class, 'skip', or None to take it away."""

    person: Person
    seen: Annotated[list[tuple[int, int]], Field(min_length=1, max_length=MostMarks)]
    label: int | str | None


class PersonRequest(BaseModel):
    person: Person


class ClassRequest(BaseModel):
    name: Annotated[str, Field(max_length=1000)]


class CardsRequest(BaseModel):
    """As `Session.cards`."""

    person: Person
    source: Source
    count: Annotated[int, Field(ge=1, le=500)]
    label: int = 0
    points: Annotated[list[int], Field(max_length=500)] = []
    exclude: Annotated[list[int], Field(max_length=MostMarks)] = []


def create_app(session: Session, token: str, *, title: str = "") -> FastAPI:
    """The application that serves a session to whoever knows the token.

    Args:
        title: what is being labelled, for the page's heading.
    """

    def check(token_given: str) -> None:
        if not secrets.compare_digest(token_given.encode(), token.encode()):
            raise HTTPException(404)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # a page of another site that points its own name at 127.0.0.1 gets nothing
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    routes = APIRouter(prefix="/{token_given}", dependencies=[Depends(check)])

    @app.middleware("http")
    async def protect(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(DlpError)
    def explain(request: Request, error: DlpError) -> Response:
        return Response(str(error), 400, media_type="text/plain")

    @routes.get("/")
    def page() -> Response:
        return web_file("index.html")

    @routes.get("/web/{name}")
    def web_file(name: str) -> Response:
        files = {path.name: path for path in WEB.iterdir() if path.suffix in TYPES}
        if name not in files:
            raise HTTPException(404)
        return Response(files[name].read_bytes(), media_type=TYPES[files[name].suffix])

    @routes.get("/api/setup")
    def setup() -> dict[str, Any]:
        return {
            "title": title,
            "points": session.points,
            "images": session.images is not None,
            "state": session.summary(),
        }

    @routes.get("/api/state")
    def state() -> dict[str, Any]:
        return session.summary()

    @routes.post("/api/cards")
    def cards(asked: CardsRequest) -> dict[str, Any]:
        found = session.cards(
            asked.person, asked.source, asked.count, label=asked.label, points=asked.points,
            exclude=frozenset(asked.exclude),
        )  # fmt: skip
        return {"cards": found}

    @routes.post("/api/answer")
    def answer(asked: AnswerRequest) -> dict[str, Any]:
        label = SKIPPED if asked.label == "skip" else asked.label
        if isinstance(label, str):
            raise HTTPException(422, "label must be a class's number, 'skip' or null")
        return outcome(asked.person, session.answer(asked.person, dict(asked.seen), label))

    @routes.post("/api/undo")
    def undo(asked: PersonRequest) -> dict[str, Any]:
        return outcome(asked.person, session.undo(asked.person))

    def outcome(person: str, done: Answer) -> dict[str, Any]:
        """The changed and refused points as they are now, and the new counts."""
        points = [*done.changed, *done.refused][:500]
        return {
            "changed": len(done.changed),
            "refused": done.refused,
            "cards": session.cards(person, "points", len(points) or 1, points=points),
            "state": session.summary(),
        }

    @routes.post("/api/classes")
    def add_class(asked: ClassRequest) -> dict[str, Any]:
        label = session.store.add_class(check_new_class_name(asked.name))
        return {"label": label, "state": session.summary()}

    @routes.get("/api/places")
    def places() -> Response:
        return Response(session.places(), media_type="application/octet-stream")

    @routes.get("/api/colours")
    def colours() -> Response:
        return Response(session.colours(), media_type="application/octet-stream")

    @routes.get("/image/{point}")
    def image(point: int) -> Response:
        found = None
        if session.images is not None and 0 <= point < session.points:
            found = session.images.thumbnail(point)
        if found is None:
            raise HTTPException(404)
        kind = "image/png" if found.startswith(b"\x89PNG") else "image/jpeg"
        return Response(found, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})

    @routes.get("/export/labels.csv")
    def labels_csv() -> Response:
        text = export.labels_csv(session.live.view, session.store.classes(), session.ids)
        return download(text, "labels.csv", "text/csv")

    @routes.get("/export/label_studio.json")
    def label_studio() -> Response:
        text = export.label_studio_json(
            session.live.view, session.store.classes(), session.name, LABEL_STUDIO_PREFIX
        )
        return download(text, "label_studio.json", "application/json")

    def download(text: str, name: str, kind: str) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text, media_type=kind, headers=headers)

    app.include_router(routes)
    return app
