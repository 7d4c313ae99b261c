// Prints one line per event of a queue. AMQP_URL and QUEUE say which; BIND makes the queue its own.
// @ts-check
'use strict';

const { consume, Ranks } = require('whatsapp-events');

const ranks = new Ranks();

/** @type {(event: import('whatsapp-events').Event, replayId: string) => void} */
function handle(event, replayId) {
  /** @type {(string | null | undefined)[]} */
  const words = [event.eventType];
  if (event.eventType === 'message.received') {
    words.push(event.message.type, event.message.id);
  } else if (event.eventType === 'status.updated') {
    const { status } = event;
    words.push(status.status, status.messageId, ranks.isLate(status) ? 'late' : '');
  } else if (event.eventType === 'media.stored' || event.eventType === 'media.failed') {
    const item = 'message' in event ? event.message : event.call;
    words.push(item.id, item.media?.key);
  } else {
    words.push(event.eventId);
  }
  console.log([...words, replayId && 'replay'].filter(Boolean).join(' '));
}

const url = process.env.AMQP_URL ?? '';
const queue = process.env.QUEUE ?? 'INBOUND_WHATSAPP_MESSAGES';
consume({ url, queue, handle, bind: process.env.BIND?.split(',') ?? [] });
