"""Faults of the servers around: the store, the models, the SSH host, the web site."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.faults.field import FAILED_FOR_GOOD, Field
from tests.stand_ins import faults as model_faults
from tests.stand_ins.gcs_server import Fault as StoreFault
from tests.stand_ins.http_exchange import Exchange

Play = Callable[[Field, float], None]

_POLL_S = 0.05
_TRANSCRIBE = "/transcribe"  # of the speech model; its replies are no chat


def faults() -> dict[str, Play]:
    """All of this file, by kind."""
    return {
        "store_503": _store("store_503", lambda chance: StoreFault("any", times=2 + int(4 * chance))),
        "store_upload_cut": _store("store_upload_cut", lambda _: StoreFault("upload", "cut", times=2)),
        "store_answer_lost": _store("store_answer_lost", lambda _: StoreFault("upload", "lose_answer")),
        "store_download_damaged": _store("store_download_damaged", _damaged),
        "store_hangs": _store("store_hangs", lambda _: StoreFault("upload", "hang")),
        "model_500": _model("model_500", lambda chance: [model_faults.status(500)] * (1 + int(3 * chance))),
        "model_429": _model("model_429", lambda chance: [model_faults.too_many(after_s=1 + int(5 * chance))]),
        "model_breaks_off": _model("model_breaks_off", _breaking),
        "model_garbage": _model("model_garbage", _garbage),
        "model_hangs": _model("model_hangs", lambda _: [model_faults.hang]),
        "model_refuses": _model_refuses,
        "ssh_restarted": _ssh_restarted,
        "ssh_dropped": _ssh_dropped,
        "site_503": _site("site_503", 503),
        "site_breaks_off": _site("site_breaks_off", "cut"),
    }


def _damaged(chance: float) -> StoreFault:
    return StoreFault("download", "cut" if chance < 0.5 else "corrupt", times=2)


def _breaking(chance: float) -> list[model_faults.Fault]:
    kinds = (model_faults.broken_off, model_faults.half_json, model_faults.reset)
    return [kinds[int(chance * len(kinds))]]


def _garbage(chance: float) -> list[model_faults.Fault]:
    kinds = (model_faults.not_json, model_faults.prose, model_faults.cut_by_length, model_faults.wrong_schema)
    chosen = kinds[int(chance * len(kinds))]

    def play(exchange: Exchange) -> None:
        is_chat = exchange.asked.path != _TRANSCRIBE
        (chosen if is_chat else model_faults.json_of_another_kind)(exchange)

    return [play]


def _store(kind: str, make: Callable[[float], StoreFault]) -> Play:
    def play(field: Field, chance: float) -> None:
        gcs, fault = field.stand.gcs, make(chance)
        at_work = [row["video_id"] for row in field.watch.at_work()]
        gcs.faults.append(fault)
        at, times = time.monotonic(), fault.times
        while fault.times == times:
            if time.monotonic() - at > field.patience_s:
                field.missed.append(kind)
                gcs.faults.remove(fault)
                return
            time.sleep(_POLL_S)
        # The store's requests don't say which work they are for; where one alone was at work, it was that one's.
        field.hit(kind, at_work if len(at_work) == 1 else [])

    return play


def _model(kind: str, make: Callable[[float], list[model_faults.Fault]]) -> Play:
    def play(field: Field, chance: float) -> None:
        planned = [_ModelFault(field, kind, fault) for fault in make(chance)]
        waiting = field.stand.model_faults
        waiting.extend(planned)
        deadline = time.monotonic() + field.patience_s
        while planned[0] in waiting and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if planned[0] in waiting:
            field.missed.append(kind)
            for fault in planned:
                waiting.remove(fault)

    return play


class _ModelFault:
    """Notes whose call it is that gets the fault, then plays it."""

    def __init__(self, field: Field, kind: str, fault: model_faults.Fault) -> None:
        self._field = field
        self._kind = kind
        self._fault = fault

    def __call__(self, exchange: Exchange) -> None:
        called = _on_its_way(self._field, exchange.asked.path)
        if self._kind == "model_garbage":
            for video in called:  # such a reply is refused for good, whoever of them asked for it
                self._field.foreseen_videos[video] |= FAILED_FOR_GOOD
        self._field.hit(self._kind, called[:1])
        self._fault(exchange)


def _on_its_way(field: Field, path: str) -> list[str]:
    """Videos whose model calls are open, the oldest first; of the speech model or of the others."""
    assets = ["transcript"] if path == _TRANSCRIBE else ["moments", "refined_moments"]
    return [row["video_id"] for row in field.watch.at_work() if row["asset"] in assets]


def _model_refuses(field: Field, chance: float) -> None:
    row = field.victim("model_refuses", "transcript")
    if row:
        with field.restarting:
            field.hit("model_refuses", [row["video_id"]])
            field.stand.restart_models(2 + 6 * chance)


def _ssh_restarted(field: Field, chance: float) -> None:
    row = field.victim("ssh_restarted", "moments")
    if row:
        with field.restarting:
            field.hit("ssh_restarted", [row["video_id"]])
            field.stand.ssh.pause()
            time.sleep(1 + 5 * chance)
            field.stand.ssh.resume()


def _ssh_dropped(field: Field, _chance: float) -> None:
    row = field.victim("ssh_dropped", "transcript")
    if row:
        field.hit("ssh_dropped", [row["video_id"]])
        field.stand.ssh.drop_connections()


def _site(kind: str, failure: int | str) -> Play:
    def play(field: Field, _chance: float) -> None:
        site = field.stand.site
        before, deadline = len(site.struck), time.monotonic() + field.patience_s
        site.failures.append(failure)
        while len(site.struck) == before:
            if time.monotonic() > deadline:
                field.missed.append(kind)
                site.failures.clear()
                return
            time.sleep(_POLL_S)
        address = site.struck[before][1]
        found = field.stand.patient_rows("select video_id from public.url_intake where url = :url", url=address)
        field.hit(kind, [row["video_id"] for row in found if row["video_id"]][:1])

    return play
