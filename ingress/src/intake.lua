#!lua
-- Makes one account's webhook durable: fresh items? -> rate limit -> XADD -> marks. Redis does not
-- roll back a script that fails half-way, so the marks come last: an error before them may double,
-- never lose.
--
-- KEYS: stream, seen prefix, rate key of the account (all of one partition, so of one slot; the
--       buckets below `seen` carry the same hash tag)
-- ARGV: 1 dedup ttl (s), 2 webhooks per minute (0: no limit), 3-9 fields w c t b s p r,
--       10 "1" if the identity is the whole body's, so that no item numbers are written,
--       11.. identities: 2 bytes bucket, 12 bytes field
-- Returns {"stored", fresh} or {"duplicate", 0}.
local ttl = tonumber(ARGV[1])
local now = tonumber(redis.call('TIME')[1])
-- A mark holds the time in steps of a fortieth of the ttl: a small integer, exact to 2.5 %.
local step = math.max(1, math.floor(ttl / 40))
local tick = math.floor(now / step)
local oldest = tick - math.ceil(ttl / step)
local generation = math.floor(now / ttl)

local function bucket(gen, identity)
  return KEYS[2] .. ':' .. gen .. ':' .. struct.unpack('>H', identity) % 1024
end

local fresh, numbers, met = {}, {}, {}
for i = 11, #ARGV do
  local identity = ARGV[i]
  if not met[identity] then
    met[identity] = true
    local field = string.sub(identity, 3)
    local mark = redis.call('HGET', bucket(generation, identity), field)
      or redis.call('HGET', bucket(generation - 1, identity), field)
    if not mark or tonumber(mark) < oldest then
      fresh[#fresh + 1] = identity
      numbers[#numbers + 1] = i - 11
    end
  end
end
if #fresh == 0 then
  return {'duplicate', 0}
end

-- The rate limit stands here: after duplicates, which must not cost anything, and before XADD.

local ranges = {}
if ARGV[10] ~= '1' then
  local first, last = numbers[1], numbers[1]
  local function close()
    ranges[#ranges + 1] = first == last and tostring(first) or (first .. '-' .. last)
  end
  for i = 2, #numbers do
    if numbers[i] ~= last + 1 then
      close()
      first = numbers[i]
    end
    last = numbers[i]
  end
  close()
end
redis.call('XADD', KEYS[1], '*', 'v', '1', 'w', ARGV[3], 'c', ARGV[4], 't', ARGV[5],
  'n', table.concat(ranges, ','), 'b', ARGV[6], 's', ARGV[7], 'p', ARGV[8], 'r', ARGV[9])

local expires = {}
for _, identity in ipairs(fresh) do
  local key = bucket(generation, identity)
  redis.call('HSET', key, string.sub(identity, 3), tick)
  if not expires[key] then
    expires[key] = true
    redis.call('EXPIREAT', key, (generation + 2) * ttl + step)
  end
end
return {'stored', #fresh}
