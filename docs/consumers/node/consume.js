// Prints one line per event of a queue. AMQP_URL and QUEUE say which. Needs amqplib.
'use strict';

const amqp = require('amqplib');

const seen = new Set(); // In earnest: a table with the event id as its key, in the transaction of the work.
const ranks = new Map(); // Of each message that we sent: the highest status so far.

// The word of the event, and the id of what it is about.
function what({ eventId, message, status, call, account }) {
  if (status) return [status.status, status.messageId ?? status.id];
  if (call) return [call.event, call.id];
  if (account) return [account.field, eventId];
  return [message.type, message.id];
}

// Statuses come in any order; `failed` and others without rank always count.
function isLate({ rank, messageId, recipientParticipantUserId, recipientParticipantId }) {
  if (rank === null) return false;
  // Each member of a group has statuses of their own.
  const key = `${messageId} ${recipientParticipantUserId ?? recipientParticipantId}`;
  if (rank <= (ranks.get(key) ?? -1)) return true;
  ranks.set(key, rank);
  return false;
}

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL);
  const channel = await connection.createChannel();
  await channel.prefetch(50);
  await channel.consume(process.env.QUEUE ?? 'INBOUND_WHATSAPP_MESSAGES', (delivery) => {
    if (delivery === null) throw new Error('the queue is gone');
    const id = delivery.properties.messageId;
    if (seen.has(id)) return channel.ack(delivery);
    try {
      const event = JSON.parse(delivery.content);
      const words = [event.eventType, ...what(event)];
      if (event.status && isLate(event.status)) words.push('late');
      console.log(words.join(' '));
    } catch (error) {
      console.error(`not an event: ${error.message}`);
      return channel.nack(delivery, false, false); // to <queue>.DLQ
    }
    seen.add(id);
    channel.ack(delivery);
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
