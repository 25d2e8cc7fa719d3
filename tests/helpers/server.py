"""A real HTTP server on localhost that speaks OpenAI's protocol."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Server:
    """A real HTTP server on localhost that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.delay = 0.0
        self.lists = True
        self.script: list[Answer] = []
        """Answers to give first; then it echoes."""
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not server.lists:
                    return self._send(500, {"error": {"message": "no list"}})
                return self._send(200, {"object": "list", "data": [{"id": "echo-7b", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.asked.append(body)
                    server.keys.append(self.headers["Authorization"])
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    answer = server.script.pop(0) if server.script else echo
                time.sleep(server.delay)
                with server._lock:
                    server.at_once -= 1
                self._send(*answer(body))

            def _send(self, status: int, body: Any) -> None:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def reply(texts: list[Any], reason: str = "stop") -> dict[str, Any]:
    choices = [
        {"index": number, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        for number, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


def echo(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, reply([body["messages"][-1]["content"].upper()] * body.get("n", 1))


def refuse(status: int, message: str) -> Answer:
    return lambda body: (status, {"error": {"message": message, "type": "x", "code": None}})
