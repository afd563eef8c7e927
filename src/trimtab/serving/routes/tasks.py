"""Tasks: what there are, and answers to them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from trimtab.predictions import Records
from trimtab.serving.routes import refusals, results, service_of
from trimtab.serving.service import classes_of
from trimtab.serving.wire import Answers, Ask, Classified, Classify, ClassScores, Task, Tasks

router = APIRouter(tags=["tasks"])


@router.get("/tasks", response_model=Tasks, responses=refusals())
def tasks(request: Request) -> dict[str, Any]:
    """All tasks."""
    service = service_of(request)
    found = [service.describe(name) for name in service.catalog.names]
    return {"backbone": service.name, "can_write": service.backbone.family.is_causal, "tasks": found}


@router.get("/tasks/{task}", response_model=Task, responses=refusals(404, 422))
def task(request: Request, task: str) -> dict[str, Any]:
    """One task."""
    return service_of(request).describe(task)


@router.post("/tasks/{task}", response_model=Answers, responses=refusals(400, 404, 422))
async def ask(request: Request, task: str, body: Ask) -> dict[str, Any]:
    """Answers to inputs: classes with scores, tags, spans, words or texts, as the task has them."""
    records = await _records(request, task, body)
    return {"task": task, "bare": body.bare, "predictions": [r.as_json() for r in records]}


@router.post("/classify", response_model=Classified, responses=refusals(400, 404, 422))
async def classify(request: Request, body: Classify) -> Classified:
    """Classes with the probability of each, not rounded, for tasks that choose one."""
    found = classes_of(await _records(request, body.task, body), body.task)
    scores = [ClassScores(id=p.id, label=str(p.label), scores=dict(p.scores)) for p in found]
    return Classified(task=body.task, bare=body.bare, predictions=scores)


async def _records(request: Request, task: str, body: Ask) -> Records:
    service = service_of(request)
    request.scope["trimtab_facts"] = {"task": task, "inputs": len(body.inputs), "bare": body.bare}
    question = await run_in_threadpool(service.ask, task, body.inputs, body.bare)
    values = await results(request, question.futures)
    records: Records = await run_in_threadpool(question.conclude, values)
    return records
