"""Prints one line per event of a queue. AMQP_URL and QUEUE say which; BIND makes the queue its own."""

import os
import sys
from typing import Any, cast

from whatsapp_events import Consumer, Event, Ranks

ranks = Ranks()


def handle(event: Event, replay_id: str) -> None:
    words: list[str | None] = [event["eventType"]]
    if event["eventType"] == "message.received":
        words += [event["message"]["type"], event["message"]["id"]]
    elif event["eventType"] == "status.updated":
        status = event["status"]
        words += [status["status"], status["messageId"], "late" if ranks.is_late(status) else None]
    elif event["eventType"] == "media.stored" or event["eventType"] == "media.failed":
        # Of a message, or a call's recording or transcript.
        fields = cast(dict[str, Any], event)
        item = fields.get("message") or fields["call"]
        media = item.get("media")
        words += [item["id"], media and media["key"]]
    else:
        words.append(event["eventId"])
    print(*filter(None, [*words, replay_id and "replay"]), flush=True)


url, queue = os.environ["AMQP_URL"], os.environ.get("QUEUE", "INBOUND_WHATSAPP_MESSAGES")
bind = tuple(filter(None, os.environ.get("BIND", "").split(",")))
try:
    Consumer(url, queue, handle, bind=bind).run()
except KeyboardInterrupt:
    sys.exit(130)
