#!lua flags=allow-oom
-- Tells that this worker lives. KEYS: workers; ARGV: worker id, ttl (ms; 0: it leaves).
-- Returns the ids of all live workers, sorted.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
local workers = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(workers)
return workers
