"""The calls of the Batch API, whose errors hold no API key and say whether the server may have done its work."""

import asyncio
from typing import Any, Final

from alkd_jax.llm import refusals
from alkd_jax.llm.connection import Connection

PATH: Final = "/v1/chat/completions"


class RefusedError(ConnectionError):
    """The server has refused a call, and has done nothing for it.

    Attributes:
        status: of the HTTP answer.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class BatchCalls:
    """The calls of one connection.

    Every method raises `RefusedError` where the server has refused the call, and `ConnectionError` where the call
    failed and may have been carried out.

    Attributes:
        connection: to the server.
        seconds: for one call.
    """

    def __init__(self, connection: Connection, seconds: int | float):
        self.connection, self.seconds = connection, seconds

    async def upload(self, shard: str, lines: bytes) -> str:
        """Uploads the file of a shard and returns its id."""
        upload = self.connection.sdk.files.create(file=(f"{shard[:16]}.jsonl", lines), purpose="batch")
        return str((await self._await(upload)).id)

    async def create(self, shard: str, input_file: str) -> Any:
        """Creates the batch of an uploaded shard."""
        return await self._await(
            self.connection.sdk.batches.create(
                completion_window="24h", endpoint=PATH, input_file_id=input_file, metadata={"shard": shard}
            )
        )

    async def find(self, shard: str) -> Any:
        """Returns the batch of a shard that was created but not recorded, or None."""

        async def search() -> Any:
            async for batch in self.connection.sdk.batches.list(limit=100):
                if (batch.metadata or {}).get("shard") == shard:
                    return batch
            return None

        return await self._await(search())

    async def retrieve(self, batch_id: str) -> Any:
        """Returns a batch as the server has it, or None where it has it no more."""
        try:
            return await self._await(self.connection.sdk.batches.retrieve(batch_id))
        except RefusedError as error:
            if error.status in (404, 410):
                return None
            raise

    async def cancel(self, batch_id: str) -> Any:
        """Cancels a batch and returns it."""
        return await self._await(self.connection.sdk.batches.cancel(batch_id))

    async def download(self, file_id: str) -> bytes | None:
        """Returns the content of a file, or None where the server has it no more."""

        async def fetch() -> bytes:
            return (await self.connection.sdk.files.content(file_id)).content

        try:
            return bytes(await self._await(fetch()))
        except RefusedError as error:
            if error.status in (404, 410):
                return None
            raise

    async def _await(self, call: Any) -> Any:
        """Awaits a call of the SDK and replaces its exceptions, which hold the API key."""
        import openai

        try:
            async with asyncio.timeout(self.seconds):
                return await call
        except openai.APIStatusError as error:
            raw, status = self.connection.redact_bytes(error.response.content), error.status_code
            message = refusals.classify(status, raw, error.response.headers, body={}, now=0.0).error
            if 400 <= status < 500 and status not in (408, 409):
                raise RefusedError(f"batch: {self.connection.redact(message)}", status) from None
        except openai.OpenAIError as error:
            message = f"{type(error).__name__}: {error}"
        except TimeoutError:
            message = f"no answer within {self.seconds:g} s"
        raise ConnectionError(f"batch: {self.connection.redact(message)}; run again to continue")
