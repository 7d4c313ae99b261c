#!lua
-- Puts an object back into the stream, past the dedup, unless that was done already.
--
-- What is in `returning` is under way: as an entry, or (empty) acknowledged and not settled yet. An
-- entry that is gone without that was acknowledged by a worker of a version before `returning`.
-- A replay goes through the keys in ascending order, so what isn't after the last one is done, whoever
-- asks: the one who did it, another one who goes on after them, or both side by side.
--
-- What was settled has left `returning`. The caller has read how often that happened before it looked
-- whether the object still is what it was: if it happened since, it may not be.
--
-- KEYS: stream, returning, replayed, settled, owed
-- ARGV: replay id (empty: it comes back by itself), key of the object, most entries in the stream
--       that nobody has read, field of `settled`, what it counted, fields of the entry
-- Returns `put`, `under_way`, `before`, `busy`, `unsure` (something was settled meanwhile), or `over` (a
-- later replay has begun).
local replay, source, most = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Byte by byte: `<` on strings goes by the server's locale.
local function after(one, other)
  for i = 1, math.max(#one, #other) do
    local a, b = string.byte(one, i) or -1, string.byte(other, i) or -1
    if a ~= b then
      return a > b
    end
  end
  return false
end

local function number(id)
  return tonumber(string.match(id, '%d+') or '0')
end

if replay ~= '' then
  local current = redis.call('HGET', KEYS[3], 'i') or ''
  if current ~= replay then
    if number(current) > number(replay) then
      return 'over'
    end
    redis.call('DEL', KEYS[3])
    redis.call('HSET', KEYS[3], 'i', replay)
  end
  local last = redis.call('HGET', KEYS[3], 'k')
  if last and not after(source, last) then
    return 'before'
  end
end
local entry = redis.call('HGET', KEYS[2], source)
if entry and (entry == '' or #redis.call('XRANGE', KEYS[1], entry, entry) > 0) then
  if replay ~= '' then
    redis.call('HSET', KEYS[3], 'k', source)
  end
  return 'under_way'
end
if (redis.call('HGET', KEYS[4], ARGV[4]) or '0') ~= ARGV[5] then
  return 'unsure'
end
-- What is pending doesn't count: what waits for a tenant would hold up everybody else's. Nor does what is
-- acknowledged and still owes something.
local pending = redis.pcall('XPENDING', KEYS[1], 'workers')
local owing = tonumber(redis.call('HGET', KEYS[5], 'entries') or 0)
local unread = redis.call('XLEN', KEYS[1]) - (tonumber(pending[1]) or 0) - owing
if unread >= most then
  return 'busy'
end
local fields = {}
for i = 6, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
local id = redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('HSET', KEYS[2], source, id)
if replay ~= '' then
  redis.call('HSET', KEYS[3], 'k', source)
  redis.call('HINCRBY', KEYS[3], 'n', 1)
end
return 'put'
