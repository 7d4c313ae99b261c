#!lua flags=allow-oom
-- How much waits in a partition. KEYS: stream, later, later-list of media; ARGV: group.
-- Returns {entries, pieces, pieces of media, pending entries, age of the oldest entry (ms)}.
local entries = redis.call('XLEN', KEYS[1])
local pending, age = 0, 0
if entries > 0 then
  local group = redis.pcall('XPENDING', KEYS[1], ARGV[1])
  if group and not group.err then
    pending = group[1]
  end
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
  local now = redis.call('TIME')
  age = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first, '^%d+'))
end
return {entries, redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[3]), pending, math.max(age, 0)}
