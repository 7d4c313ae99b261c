#!lua flags=allow-oom
-- The one place that acknowledges: what an entry still owes goes to the later-lists, and the entry and
-- everything noted about it goes away; of entries that go on it is noted which items are done. All of
-- it together or not at all.
--
-- KEYS: lease, stream, progress, suspects, deaths, media, alone, later, later-list of media, returning
-- ARGV: token, group, number of entries that are done; of each its id, the number of pieces it owes, and
--       of each piece: kind, key, attributes, body (empty: of an object the entry's own, else none);
--       then of each entry that goes on: id, numbers of its items that are done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end

local function is_pending(id)
  -- (A group that was destroyed has nothing pending.)
  local pending = redis.pcall('XPENDING', KEYS[2], ARGV[2], id, id, 1)
  return not pending.err and #pending > 0
end

local function own_body(id)
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  for f = 1, entry and #entry[2] or 0, 2 do
    if entry[2][f] == 'b' then
      return entry[2][f + 1]
    end
  end
  return ''
end

local function owe(id, kind, key, attributes, body)
  if kind == 'media' then
    redis.call('XADD', KEYS[9], '*', 't', key, 'm', attributes, 'b', body)
    return
  end
  if kind == 'settle' then
    redis.call('HSET', KEYS[10], key, '')
  end
  if kind == 'put' and body == '' then
    body = own_body(id)
  end
  redis.call('XADD', KEYS[8], '*', 'k', kind, 'o', key, 'm', attributes, 'b', body)
end

local ids, at = {}, 4
for n = 1, tonumber(ARGV[3]) do
  local id, pieces = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  ids[n] = id
  -- Recorded before, if the answer was lost: it is gone, and owes nothing a second time.
  if pieces > 0 and (is_pending(id) or #redis.call('XRANGE', KEYS[2], id, id) > 0) then
    for i = at, at + 4 * (pieces - 1), 4 do
      owe(id, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    end
  end
  at = at + 4 * pieces
end
if #ids > 0 then
  redis.call('XACK', KEYS[2], ARGV[2], unpack(ids))
  redis.call('XDEL', KEYS[2], unpack(ids))
  for i = 3, 6 do
    redis.call('HDEL', KEYS[i], unpack(ids))
  end
  local alone = redis.call('GET', KEYS[7])
  for _, id in ipairs(ids) do
    if id == alone then
      redis.call('DEL', KEYS[7])
    end
  end
end
-- A note that comes late, when its entry is acknowledged, would stay for ever: it is left out.
for i = at, #ARGV, 2 do
  if is_pending(ARGV[i]) then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return 1
