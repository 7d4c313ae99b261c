"""Consumes events of the WhatsApp webhook service: connects, again and again, acknowledges what was
handled, and leaves out what was handled before. Types of events are in `whatsapp_events.events`."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast

import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]

from .events import Event, Status

__all__ = ["Consumer", "Event", "Ranks", "Reject", "Seen", "SeenInMemory"]

EXCHANGE = "whatsapp.inbound"
PREFETCH = 50
REMEMBERED = 100_000
LONGEST_PAUSE_S = 30.0
# Of returns of a dead letter. Without it RabbitMQ 4 deletes one that was returned 20 times.
NO_LIMIT = 2_147_483_647
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
log = logging.getLogger(__name__)


class Reject(Exception):
    """Raised by a handler for an event that it can never handle: it goes to `<queue>.DLQ`."""


class Seen(Protocol):
    """What was handled. In earnest a table whose rows are written in the transaction of the work. The key
    is (`message_id`, `x-replay-id`): a crash of the worker repeats an event with the same key, a replay
    publishes it with another one."""

    def __contains__(self, key: tuple[str, str], /) -> bool: ...

    def add(self, key: tuple[str, str], /) -> None: ...


class SeenInMemory:
    """The last 100,000 keys; forgotten when the process ends."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __contains__(self, key: tuple[str, str], /) -> bool:
        return key in self._keys

    def add(self, key: tuple[str, str], /) -> None:
        _put(self._keys, key, None)


class Ranks:
    """The highest rank of each message's statuses, which come in any order."""

    def __init__(self) -> None:
        self._ranks: OrderedDict[Hashable, int] = OrderedDict()

    def is_late(self, status: Status) -> bool:
        """Whether a later status of the same message was seen. `failed` and others without a rank never
        are late, nor is one that is handled again. Each member of a group has statuses of their own."""
        rank = status["rank"]
        if rank is None:
            return False
        member = status.get("recipientParticipantUserId") or status.get("recipientParticipantId")
        key = status["messageId"], member
        if rank < self._ranks.get(key, -1):
            return True
        _put(self._ranks, key, rank)
        return False


class Consumer:
    """Hands the events of a queue to `handle(event, replay_id)`, one at a time; `replay_id` is `""` unless
    a replay published it. When `handle` returns the event is acknowledged. `Reject` sends it to the dead
    letters, as what is no event; any other exception gives it back to the queue.

    `bind`: the queue is the consumer's own, declared here and bound by these keys, those of one tenant for
    example: `message.*.acme`."""

    def __init__(
        self,
        url: str,
        queue: str,
        handle: Callable[[Event, str], None],
        *,
        bind: tuple[str, ...] = (),
        seen: Seen | None = None,
    ) -> None:
        self._url, self._queue, self._handle, self._bind = url, queue, handle, bind
        self._seen: Seen = SeenInMemory() if seen is None else seen
        self._pause_s = 1.0

    def run(self) -> None:
        """Consumes for ever."""
        while True:
            try:
                self._consume()
            # A name that can't be resolved is no AMQPError.
            except (pika.exceptions.AMQPError, OSError) as error:
                log.warning("the connection to RabbitMQ ended: %r", error)
            time.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _consume(self) -> None:
        channel = pika.BlockingConnection(pika.URLParameters(self._url)).channel()
        if self._bind:
            self._declare(channel)
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(self._queue, self._on_message)
        self._pause_s = 1.0
        channel.start_consuming()

    def _declare(self, channel: Any) -> None:
        dead = f"{self._queue}.DLQ"
        quorum = {"x-queue-type": "quorum"}
        limit = {"x-delivery-limit": NO_LIMIT}
        channel.queue_declare(dead, durable=True, arguments=quorum | limit)
        to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        # RabbitMQ keeps a dead letter until the other queue has it; that takes `reject-publish`.
        safely = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        arguments = quorum | to_dead | safely
        channel.queue_declare(self._queue, durable=True, arguments=arguments)
        for key in self._bind:
            channel.queue_bind(self._queue, EXCHANGE, key)

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        replay_id = _text((properties.headers or {}).get("x-replay-id"))
        key = _text(properties.message_id), replay_id
        if key in self._seen:
            channel.basic_ack(method.delivery_tag)
            return
        try:
            self._handle(_event(body), replay_id)
        except Reject as error:
            log.error("rejected: %s", error)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        except Exception:
            log.exception("handling an event failed; it returns to the queue")
            time.sleep(1)
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        self._seen.add(key)
        channel.basic_ack(method.delivery_tag)


def _event(body: bytes) -> Event:
    try:
        event = json.loads(body)
    except ValueError as error:
        raise Reject(f"not JSON: {error}") from error
    if not isinstance(event, dict) or "eventType" not in event:
        raise Reject("not an event")
    return cast(Event, event)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _put(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
