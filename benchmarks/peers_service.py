"""Services to compare ours with: the same student in ONNX Runtime behind FastAPI, and one that answers a constant.

    python -m benchmarks.peers_service onnx FOLDER

Both run in uvicorn with its own settings. Where FastAPI is not installed, the first is a Starlette application, which
has less to do: FastAPI is Starlette with checks of the request.
"""

import importlib.util
import json
import pathlib
import sys
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

FRAMEWORK = "fastapi" if importlib.util.find_spec("fastapi") else "starlette"
ABSENT = None if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed"


def onnx_application(folder: pathlib.Path) -> Any:
    """The plain service: it looks ids up in a dictionary and calls ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = onnxruntime.InferenceSession(str(folder / "student.onnx"), options, providers=["CPUExecutionProvider"])
    catalogue = json.loads((folder / "items.json").read_text())
    ids, titles = catalogue["item_ids"], catalogue["titles"]
    number = {item_id: item for item, item_id in enumerate(ids, start=1)}
    length = model.get_inputs()[0].shape[1]

    def recommend(session: list[str], k: int) -> dict[str, Any]:
        known = [number[item_id] for item_id in session if item_id in number]
        items = np.zeros((1, length), np.int32)
        items[0, : len(known[-length:])] = known[-length:]
        scores, found = model.run(["scores", "ids"], {"items": items, "exclude": np.array([known], np.int32)})
        best = zip(found[0, :k].tolist(), scores[0, :k].tolist(), strict=True)
        items_found = [{"id": ids[item - 1], "title": titles[item - 1], "score": score} for item, score in best]
        return {"items": items_found, "unknown": len(session) - len(known)}

    if FRAMEWORK == "fastapi":
        import fastapi
        import pydantic

        question = pydantic.create_model("Question", session=(list[str], ...), k=(int, 10))
        application = fastapi.FastAPI()

        async def answer(body: question) -> dict[str, Any]:  # type: ignore[valid-type]
            return recommend(body.session, body.k)  # type: ignore[attr-defined]

        application.post("/recommend")(answer)
        return application

    async def answer_request(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse(recommend(body["session"], body["k"]))

    return Starlette(routes=[Route("/recommend", answer_request, methods=["POST"])])


def constant_application(folder: pathlib.Path) -> Any:
    """A service that reads the request and always answers the same: what a framework costs without a student."""
    item = {"id": "item-1234", "title": "item-1234", "score": 1.2345678806304932}

    async def answer_request(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({"items": [item] * 10, "unknown": 0})

    return Starlette(routes=[Route("/recommend", answer_request, methods=["POST"])])


if __name__ == "__main__":
    applications = {"onnx": onnx_application, "constant": constant_application}
    uvicorn.run(applications[sys.argv[1]](pathlib.Path(sys.argv[2])), port=0, access_log=False)
