// What ingress does, as a Node developer would do it: raw body, HMAC, JSON, one short script in Redis, 200.
// node server.mjs express|fastify, with PORT, REDIS_URL, SECRET and MODULES (the folder of node_modules).
//
// Its script does less than that of ingress: a counter of the minute instead of an exact window, a key an id
// instead of 40 bytes, one stream, and an entry of the body and the fresh ids alone.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createRequire } from 'node:module';

const require = createRequire(process.env.MODULES + '/');
const Redis = require('ioredis');

// KEYS: stream, counter, a key for each id; ARGV: body, webhooks a minute, ids.
const SCRIPT = `
local fresh = {}
for i = 3, #KEYS do
  if redis.call('SET', KEYS[i], 1, 'NX', 'EX', 86400) then
    fresh[#fresh + 1] = ARGV[i]
  end
end
if #fresh == 0 then
  return 'duplicate'
end
local used = redis.call('INCR', KEYS[2])
if used == 1 then
  redis.call('EXPIRE', KEYS[2], 60)
end
if used > tonumber(ARGV[2]) then
  return 'limited'
end
redis.call('XADD', KEYS[1], '*', 'body', ARGV[1], 'ids', table.concat(fresh, ','))
return 'stored'
`;
const redis = new Redis(process.env.REDIS_URL, { enableAutoPipelining: true });
redis.defineCommand('take', { lua: SCRIPT });

function isSigned(body, header) {
  const expected = createHmac('sha256', process.env.SECRET).update(body).digest();
  const given = Buffer.from((header ?? '').slice('sha256='.length), 'hex');
  return given.length === expected.length && timingSafeEqual(given, expected);
}

function ids(value) {
  const messages = (value.messages ?? []).map((message) => message.id);
  const statuses = (value.statuses ?? []).map((status) => `${status.id}:${status.status}`);
  return [...messages, ...statuses];
}

/** The status to answer. */
async function take(body, headers) {
  if (!isSigned(body, headers['x-hub-signature-256'])) {
    return 401;
  }
  for (const entry of JSON.parse(body).entry) {
    const found = entry.changes.flatMap((change) => ids(change.value));
    const minute = Math.floor(Date.now() / 60000);
    const keys = ['webhooks', `rate:${entry.id}:${minute}`, ...found.map((id) => `seen:${id}`)];
    const outcome = await redis.take(keys.length, ...keys, body, 1000000, ...found);
    if (outcome === 'limited') {
      return 429;
    }
  }
  return 200;
}

async function express() {
  const express = require('express');
  const app = express();
  app.set('etag', false);
  app.disable('x-powered-by');
  app.use(express.raw({ type: 'application/json', limit: '4mb' }));
  app.post('/webhook/meta', (request, response, next) => {
    take(request.body, request.headers).then((status) => response.status(status).end(), next);
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
