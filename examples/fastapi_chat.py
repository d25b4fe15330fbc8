"""A chat backend in one file: `uvicorn examples.fastapi_chat:app`, then open http://127.0.0.1:8000.

An answer belongs to the server, not to a connection: a browser that lost it comes back for the rest (`Last-Event-ID`).
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

from fastapi import Cookie, FastAPI, Header, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from guidance_agent import AdvisorAgent, event_to_json
from guidance_agent.errors import GuidanceAgentError, InputError, UnknownTurnError

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
FOR_THE_CUSTOMER = {  # cost, model figures and error messages stay here
    "turn_started": ("consultation_id", "simulated"),
    "text_delta": ("text",),
    "corrected": ("start", "end", "replacement"),
}
CustomerId = Annotated[str, Cookie(alias="customer")]  # in a real backend: whoever your sign-in says it is
advisor = AdvisorAgent()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with advisor:
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    text: str = Field(min_length=1)
    consultation_id: str | None = None


@app.get("/")
async def page(customer: Annotated[str | None, Cookie()] = None) -> HTMLResponse:
    response = HTMLResponse(PAGE)
    response.set_cookie("customer", customer or f"visitor-{uuid.uuid4().hex}", httponly=True, samesite="strict")
    return response


@app.post("/turns")
async def ask(question: Question, customer_id: CustomerId) -> dict[str, str]:
    customer = {"customer_id": customer_id, "presenting_question": question.text}
    return {"turn_id": await advisor.start_turn(customer, consultation_id=question.consultation_id)}


@app.get("/turns/{turn_id}", response_class=EventSourceResponse)
async def follow(
    turn_id: str, customer_id: CustomerId, last_event_id: Annotated[int, Header()] = -1
) -> AsyncIterator[ServerSentEvent]:
    with suppress(UnknownTurnError):
        async for event in advisor.events(turn_id, after=last_event_id, customer_id=customer_id):
            values = event_to_json(event)
            shown = {name: values[name] for name in FOR_THE_CUSTOMER.get(values["type"], ())}
            yield ServerSentEvent(event=values["type"], id=str(event.sequence), data=shown)
    yield ServerSentEvent(event="end", data={})


@app.delete("/turns/{turn_id}")
async def stop(turn_id: str, customer_id: CustomerId) -> dict[str, bool]:
    return {"stopped": await advisor.stop_turn(turn_id, customer_id=customer_id)}


@app.exception_handler(GuidanceAgentError)
async def failed(_: Request, error: GuidanceAgentError) -> JSONResponse:
    status = 422 if isinstance(error, InputError) else 503
    return JSONResponse({"error": str(error) if status == 422 else "Try again later."}, status_code=status)
