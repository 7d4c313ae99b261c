// The work of ingress as it is usually done in Node: raw body, HMAC, ids, ingress' own script in Redis, 200.
// node server.mjs express|fastify, with PORT, REDIS_URL, SECRET, SCRIPT (the script's file).
import { createHash, createHmac, randomUUID, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.env.MODULES + '/');
const Redis = require('ioredis');
const PARTITIONS = 16;
const redis = new Redis(process.env.REDIS_URL, { enableAutoPipelining: true });
redis.defineCommand('intake', { numberOfKeys: 3, lua: readFileSync(process.env.SCRIPT, 'utf8') });

function isSigned(body, header) {
  const expected = createHmac('sha256', process.env.SECRET).update(body).digest();
  const given = Buffer.from((header ?? '').slice('sha256='.length), 'hex');
  return given.length === expected.length && timingSafeEqual(given, expected);
}

function identity(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) {
    hash.update(`${part.length}:${part}`);
  }
  return hash.digest().subarray(0, 14);
}

function identities(value) {
  const number = value.metadata.phone_number_id;
  const messages = (value.messages ?? []).map((m) => identity('messages.messages', number, m.id));
  const statuses = (value.statuses ?? []).map((s) => identity('messages.statuses', number, s.id, s.status));
  return [...messages, ...statuses];
}

function partition(waba) {
  return createHash('sha256').update(waba).digest().readUInt16BE(0) % PARTITIONS;
}

/** The status to answer. */
async function take(body, headers) {
  const signature = headers['x-hub-signature-256'];
  if (!isSigned(body, signature)) {
    return 401;
  }
  for (const entry of JSON.parse(body).entry) {
    const tag = `whatsapp:{${partition(entry.id)}}`;
    const found = entry.changes.flatMap((change) => identities(change.value));
    const [outcome] = await redis.intake(
      `${tag}:stream`, `${tag}:seen`, `${tag}:rate:${entry.id}`,
      86400, 1000000, '1', '', entry.id, randomUUID(), Date.now(), body, signature, '', '', '', 16, ...found,
    );
    if (outcome === 'limited') {
      return 429;
    }
  }
  return 200;
}

async function express() {
  const express = require('express');
  const app = express();
  app.use(express.raw({ type: 'application/json', limit: '4mb' }));
  app.post('/webhook/meta', async (request, response) => {
    response.status(await take(request.body, request.headers)).end();
  });
  app.listen(process.env.PORT, '127.0.0.1');
}

async function fastify() {
  const app = require('fastify')({ bodyLimit: 4 << 20 });
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_, body, done) => done(null, body));
  app.post('/webhook/meta', async (request, reply) => {
    reply.code(await take(request.body, request.headers));
    return reply.send();
  });
  await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
}

await { express, fastify }[process.argv[2]]();
