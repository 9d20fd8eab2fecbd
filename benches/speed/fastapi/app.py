"""A contender of `cargo bench --bench speed`: FastAPI and sqlite3, durable before the answer."""

import hashlib
import json
import os
import pathlib
import sqlite3
import threading
import time
import uuid

import uvicorn
from fastapi import FastAPI, Request

STATEMENTS = json.loads(pathlib.Path(__file__).parent.with_name("statements.json").read_text())
app = FastAPI()
local = threading.local()


def connection():
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(
            os.environ["DATABASE"], isolation_level=None, timeout=60
        )
        for pragma in (
            "journal_mode = wal",
            "synchronous = full",
            "foreign_keys = on",
            "secure_delete = on",
        ):
            local.connection.execute(f"pragma {pragma}")
    return local.connection


@app.post("/callbacks/{job}/{signature}")
async def receive(job: uuid.UUID, signature: str, request: Request):
    body = await request.body()
    result = json.loads(body)
    write(job.bytes, body, result)
    return {"outcome": "stored"}


def write(job_id, body, result):
    database = connection()
    now = int(time.time() * 1000)
    digest = hashlib.sha256(body).digest()
    delivery_id = uuid.uuid4()
    database.execute("begin immediate")
    (seq, _) = database.execute(STATEMENTS["find_job"], (job_id,)).fetchone()
    database.execute(STATEMENTS["find_outputs"], (seq,)).fetchall()
    database.execute(STATEMENTS["find_deliveries"], (seq,)).fetchall()
    delivery = database.execute(
        STATEMENTS["insert_delivery"], (delivery_id.bytes, seq, now, len(body), digest)
    ).lastrowid
    database.execute(STATEMENTS["insert_body"], (delivery, body))
    database.execute(STATEMENTS["update_job"], (now, delivery, digest, seq))
    database.execute(
        STATEMENTS["upsert_output"], (seq, result["outputFiles"]["meshes"][0]["url"])
    )
    data = {"deliveryId": str(delivery_id), "status": "succeeded", "success": True}
    database.execute(STATEMENTS["insert_event"], (job_id, now, json.dumps(data)))
    database.execute("commit")


if __name__ == "__main__":
    config = uvicorn.Config(app, port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    config.load()
    socket = config.bind_socket()
    print(f"http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
    server.run(sockets=[socket])
