#!lua flags=allow-oom
-- How far a replay is, by whoever's turn it is; it goes on, stops, or ends.
-- KEYS: replay; ARGV: token, lease (ms; 0: it stops), key of the last object that is done, number of
-- objects left alone, "1" if it is the last one
-- Returns 1, or 0 if it is somebody else's turn.
if redis.call('HGET', KEYS[1], 'runner') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = ARGV[2] == '0' and 0 or now + ARGV[2]
redis.call('HSET', KEYS[1], 'at', ARGV[3], 'left', ARGV[4], 'until', until_ms)
if ARGV[5] == '1' then
  redis.call('HSET', KEYS[1], 'ended', '1')
end
return 1
