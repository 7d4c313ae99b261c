#!lua flags=allow-oom
-- Media is given up: its piece is replaced by one that says so, before anything is published, so that
-- nobody who takes over decides otherwise.
-- KEYS: lease, list of media; ARGV: token, the piece, the one that takes its place.
-- Does nothing if the piece is gone.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then
  return 0
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('ZADD', KEYS[2], now, ARGV[3])
return 1
