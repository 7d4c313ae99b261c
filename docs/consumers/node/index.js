// Consumes events of the WhatsApp webhook service: connects, again and again, acknowledges what was
// handled, and leaves out what was handled before. Types are in index.d.ts and events.d.ts.
'use strict';

const amqp = require('amqplib');

const EXCHANGE = 'whatsapp.inbound';
const PREFETCH = 50;
const REMEMBERED = 100_000;
const LONGEST_PAUSE_MS = 30_000;
// Of returns of a dead letter. Without it RabbitMQ 4 deletes one that was returned 20 times.
const NO_LIMIT = 2_147_483_647;

class Reject extends Error {}

// The last 100,000 of what was put in.
class Recent extends Map {
  set(key, value) {
    this.delete(key);
    super.set(key, value);
    if (this.size > REMEMBERED) this.delete(this.keys().next().value);
    return this;
  }
}

class SeenInMemory {
  #keys = new Recent();
  async has(key) {
    return this.#keys.has(key);
  }
  async add(key) {
    this.#keys.set(key, true);
  }
}

// The highest rank of each message's statuses, which come in any order.
class Ranks {
  #ranks = new Recent();
  // `failed` and others without a rank never are late, nor is one that is handled again. Each member of a
  // group has statuses of their own.
  isLate({ rank, messageId, recipientParticipantUserId, recipientParticipantId }) {
    if (rank === null) return false;
    const key = `${messageId} ${recipientParticipantUserId ?? recipientParticipantId ?? ''}`;
    if (rank < (this.#ranks.get(key) ?? -1)) return true;
    this.#ranks.set(key, rank);
    return false;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function declare(channel, queue, keys) {
  const dead = `${queue}.DLQ`;
  const quorum = { 'x-queue-type': 'quorum' };
  const toDead = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': dead };
  // RabbitMQ keeps a dead letter until the other queue has it; that takes `reject-publish`.
  const safely = { 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish' };
  const limit = { 'x-delivery-limit': NO_LIMIT };
  await channel.assertQueue(dead, { durable: true, arguments: { ...quorum, ...limit } });
  await channel.assertQueue(queue, { durable: true, arguments: { ...quorum, ...toDead, ...safely } });
  for (const key of keys) await channel.bindQueue(queue, EXCHANGE, key);
}

async function take(channel, delivery, handle, seen) {
  const replayId = String(delivery.properties.headers?.['x-replay-id'] ?? '');
  // A crash of the worker repeats an event with the same key, a replay publishes it with another one.
  const key = JSON.stringify([delivery.properties.messageId ?? '', replayId]);
  if (await seen.has(key)) return channel.ack(delivery);
  let event;
  try {
    event = JSON.parse(delivery.content.toString());
    if (typeof event?.eventType !== 'string') throw new Reject('not an event');
  } catch (error) {
    console.error(`rejected: ${error.message}`);
    return channel.nack(delivery, false, false);
  }
  try {
    await handle(event, replayId);
  } catch (error) {
    if (error instanceof Reject) {
      console.error(`rejected: ${error.message}`);
      return channel.nack(delivery, false, false);
    }
    console.error(`handling an event failed; it returns to the queue: ${error.stack}`);
    await pause(1000);
    return channel.nack(delivery, false, true);
  }
  await seen.add(key);
  channel.ack(delivery);
}

// One connection, to its end. Events are handled one after the other.
async function session({ url, queue, bind, handle, seen }, connected) {
  const connection = await amqp.connect(url);
  const closed = new Promise((resolve) => {
    connection.on('error', () => {});
    connection.on('close', resolve);
  });
  const channel = await connection.createChannel();
  const channelClosed = new Promise((resolve) => {
    channel.on('error', (error) => console.error(error.message));
    channel.on('close', resolve);
  });
  if (bind.length > 0) await declare(channel, queue, bind);
  await channel.prefetch(PREFETCH);
  let last = Promise.resolve();
  const gone = new Promise((resolve) => {
    const consuming = channel.consume(queue, (delivery) => {
      if (delivery === null) return resolve();
      // What belongs to a channel that has closed is delivered again.
      last = last.then(() => take(channel, delivery, handle, seen)).catch(resolve);
    });
    consuming.then(connected, resolve);
  });
  await Promise.race([closed, channelClosed, gone]);
  await connection.close().catch(() => {});
  await last.catch(() => {});
}

async function consume({ url, queue, handle, bind = [], seen = new SeenInMemory() }) {
  for (let wait = 1000; ; wait = Math.min(2 * wait, LONGEST_PAUSE_MS)) {
    try {
      await session({ url, queue, bind, handle, seen }, () => (wait = 1000));
    } catch (error) {
      console.error(`no connection to RabbitMQ: ${error.message}`);
    }
    await pause(wait);
  }
}

module.exports = { consume, Ranks, Reject, SeenInMemory };
