"""The files and batches of a provider, and what its batches may bring."""

import json
import random
import re

from tests.helpers.fault_server import completion, error, http

BATCH_FIELDS = {"object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": 1}


class BatchApi:
    """Files and batches of a provider; `outcome` decides what a batch brings."""

    def __init__(self, outcome=None, fail=()):
        self.files, self.batches, self.outcome, self.fail = {}, {}, outcome or whole, list(fail)
        self.created = 0

    def __call__(self, call):
        path = call.path.split("?")[0]
        name = (call.method, re.sub(r"(file|batch)_\d+", "ID", path.removeprefix("/v1")))
        if self.fail and self.fail[0][0] == name:
            _, before = self.fail.pop(0)
            if before:
                return [error(500, "down")]
            list(self._answer(name, path, call))
            return [error(500, "down after the work was done")]
        return self._answer(name, path, call)

    def _answer(self, name, path, call):
        if name == ("POST", "/files"):
            lines = [json.loads(line) for line in call.raw.splitlines() if line.startswith(b'{"custom_id"')]
            file = f"file_{len(self.files)}"
            self.files[file] = lines
            yield http({"id": file, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"})
        elif name == ("POST", "/batches"):
            self.created += 1
            batch = {"id": f"batch_{self.created}", "status": "in_progress", **BATCH_FIELDS, **call.body}
            self.batches[batch["id"]] = batch
            yield http(batch)
        elif name == ("GET", "/batches"):
            yield http({"object": "list", "data": list(self.batches.values()), "has_more": False})
        elif name == ("GET", "/batches/ID"):
            batch = self.batches[path.rsplit("/")[-1]]
            if batch["status"] == "in_progress":
                lines = self.files[batch["input_file_id"]]
                status, output, errors, *more = self.outcome(lines, call)
                batch["status"] = status
                done = {"completed": len(output or []), "failed": len(errors or []), "total": len(lines)}
                batch |= {"request_counts": done} | (more[0] if more else {})
                for kind, lines in (("output", output), ("error", errors)):
                    if lines is not None:
                        self.files[f"file_{len(self.files)}"] = lines
                        batch[f"{kind}_file_id"] = f"file_{len(self.files) - 1}"
            yield http(batch)
        elif name == ("POST", "/batches/ID/cancel"):
            batch = self.batches[path.split("/")[-2]]
            batch["status"] = "cancelled"
            batch["request_counts"] = {"completed": 0, "failed": 0, "total": len(self.files[batch["input_file_id"]])}
            yield http(batch)
        elif name == ("GET", "/files/ID/content"):
            file = path.split("/")[-2]
            if self.files[file] == "gone":
                yield error(404, "not_found")
            else:
                yield http("".join(json.dumps(line) + "\n" for line in self.files[file]).encode())
        else:
            yield error(404, "unknown")


def answered(line, call):
    call.body, call.raw = line["body"], json.dumps(line["body"]).encode()
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": completion(call)}, "error": None}


def failed(line):
    return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": {"error": {"message": "no"}}}}


def whole(lines, call):
    done = [answered(line, call) for line in lines]
    random.Random(0).shuffle(done)
    return "completed", done, None


def faulty(message, code):
    errors = {"object": "list", "data": [{"code": code, "message": message, "line": 2}]}
    counts = {"completed": 0, "failed": 0, "total": 4}
    return lambda lines, call: ("failed", None, None, {"errors": errors, "request_counts": counts})
