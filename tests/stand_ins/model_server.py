"""A stand-in for the servers of models: chat completions (vLLM), transcription (Parakeet), faults on demand.

    with ModelServer(answer=lambda asked: '{"moments": []}', service_s=0.5) as server:
        server.faults.append(too_many(after_s=1))
        ...                                            # call server.url + "/v1/chat/completions"
        assert server.most_at_once == 1

Alone, for benchmarks: `python -m tests.stand_ins.model_server --port 0 --service-s 0.5` prints its address and runs
until it gets SIGTERM or its parent ends; GET /record tells what it did.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moments_core.model_entry import ModelEntry, parse_entry
from tests.stand_ins.chat_completions import Answer, ChatServer
from tests.stand_ins.faults import FAULTS, Fault, error_body
from tests.stand_ins.heard_sound import Recording, SpeechServer
from tests.stand_ins.http_exchange import Asked, Exchange, HttpStandIn, Reply


class ModelServer(HttpStandIn):
    """All models on one port. A call takes `service_s` seconds and any number run side by side.

    `asked`: all calls (POST) in the order in which they came; `looked`: the others. `most_at_once`: the highest
    number of calls at one time. `busy_intervals`: (start, end) of each call that is over, in `time.monotonic()`.
    `faults` are played by the next calls in turn, `fault_for` chooses one by the request; `models_fault` is played
    by GET /v1/models.
    """

    def __init__(
        self,
        *,
        answer: Answer | None = None,
        served: tuple[str, ...] | None = None,
        api_key: str | None = None,
        longest_video_s: float = 600.0,
        recording: Recording | None = None,
        longest_sound_s: float = 3600.0,
        service_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.chat = ChatServer(answer, served, longest_video_s, api_key)
        self.speech = SpeechServer(recording, longest_sound_s)
        self.service_s = service_s
        self.faults: deque[Fault] = deque()
        self.fault_for: Callable[[Asked], Fault | None] = lambda _: None
        self.models_fault: Fault | None = None
        self.asked: list[Asked] = []
        self.looked: list[Asked] = []
        self.busy_intervals: list[tuple[float, float]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        super().__init__(self._answer, self._proper, port=port)

    def entry(self, key: str = "stand-in", kind: str = "vision", **fields: Any) -> ModelEntry:
        """An entry that leads here directly."""
        named = {} if kind == "asr" else {"served_name": "stand-in"}
        place = {} if "base_url" in fields else {"remote_host": "127.0.0.1", "remote_port": self.port}
        return parse_entry(key, {"kind": kind, **named, **place, **fields})

    def record(self) -> dict[str, Any]:
        """What happened so far, as plain data."""
        with self._lock:
            return {
                "calls": len(self.asked),
                "most_at_once": self.most_at_once,
                "busy_intervals": list(self.busy_intervals),
                "statuses": [asked.status for asked in self.asked],
                "faults": [asked.fault for asked in self.asked],
            }

    def _answer(self, exchange: Exchange) -> None:
        if exchange.asked.method == "POST":
            self._call(exchange)
            return
        if exchange.asked.path == "/record":
            exchange.send(Reply(200, json.dumps(self.record()).encode()))
            return
        self.looked.append(exchange.asked)
        if self.models_fault is not None and exchange.asked.path == "/v1/models":
            self.models_fault(exchange)
        else:
            exchange.send(exchange.proper())

    def _call(self, exchange: Exchange) -> None:
        with self._at_work(exchange) as started:
            fault = self._next_fault(exchange.asked)
            if fault is not None:
                exchange.asked.fault = getattr(fault, "__name__", repr(fault))
                fault(exchange)
                return
            reply = exchange.proper()
            if exchange.wait(max(0.0, started + self.service_s - time.monotonic())):
                exchange.send(reply)

    @contextmanager
    def _at_work(self, exchange: Exchange) -> Iterator[float]:
        """Count a call from its start to the first byte of its answer: the client's next call may come before this
        thread runs again, and would seem to be a second one at the same time."""
        started = time.monotonic()
        with self._lock:
            self.asked.append(exchange.asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

        def done() -> None:
            exchange.before_answer = lambda: None
            with self._lock:
                self._at_once -= 1
                self.busy_intervals.append((started, time.monotonic()))

        exchange.before_answer = done
        try:
            yield started
        finally:
            exchange.before_answer()

    def _next_fault(self, asked: Asked) -> Fault | None:
        chosen = self.fault_for(asked)
        if chosen is not None:
            return chosen
        with self._lock:
            return self.faults.popleft() if self.faults else None

    def _proper(self, asked: Asked) -> Reply:
        routes = {
            ("GET", "/v1/models"): self.chat.models,
            ("POST", "/v1/chat/completions"): self.chat.complete,
            ("POST", "/transcribe"): self.speech.transcribe,
        }
        route = routes.get((asked.method, asked.path))
        return route(asked) if route else Reply(404, error_body("Not Found", 404))


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for the servers of models, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--service-s", type=float, default=0.0, help="seconds that each call takes")
    parser.add_argument("--served", action="append", help="name of a model that it knows; any, if not given")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS), help="played by the next call")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # a benchmark that is killed leaves no server behind
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    served = tuple(arguments.served) if arguments.served else None
    with ModelServer(service_s=arguments.service_s, served=served, port=arguments.port) as server:
        server.faults.extend(FAULTS[name] for name in arguments.fault)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
