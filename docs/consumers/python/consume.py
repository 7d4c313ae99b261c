"""Prints one line per event of a queue. AMQP_URL and QUEUE say which. Needs pika."""

import json
import os
import sys

import pika

seen = set()  # In earnest: a table with the event id as its key, in the transaction of the work.
ranks = {}  # Of each message that we sent: the highest status so far.


def what(event):
    """The word of the event, and the id of what it is about."""
    if status := event.get("status"):
        return status["status"], status.get("messageId") or status.get("id")
    if call := event.get("call"):
        return call["event"], call["id"]
    if account := event.get("account"):
        return account["field"], event["eventId"]
    return event["message"]["type"], event["message"]["id"]


def is_late(status):
    """Statuses come in any order; `failed` and others without rank always count."""
    rank = status["rank"]
    if rank is None:
        return False
    # Each member of a group has statuses of their own.
    member = status.get("recipientParticipantUserId") or status.get("recipientParticipantId")
    key = status["messageId"], member
    if rank <= ranks.get(key, -1):
        return True
    ranks[key] = rank
    return False


def on_message(channel, method, properties, body):
    if properties.message_id in seen:
        channel.basic_ack(method.delivery_tag)
        return
    try:
        event = json.loads(body)
        late = " late" if "status" in event and is_late(event["status"]) else ""
        print(event["eventType"], *what(event), end=f"{late}\n", flush=True)
    except (ValueError, KeyError, TypeError) as error:
        print(f"not an event: {error!r}", file=sys.stderr)
        channel.basic_reject(method.delivery_tag, requeue=False)  # to <queue>.DLQ
        return
    seen.add(properties.message_id)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.basic_qos(prefetch_count=50)
channel.basic_consume(os.environ.get("QUEUE", "INBOUND_WHATSAPP_MESSAGES"), on_message)
channel.start_consuming()
