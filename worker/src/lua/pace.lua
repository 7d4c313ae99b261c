#!lua flags=allow-oom
-- A place among the requests for a business phone number, evenly spaced over all workers.
--
-- KEYS: pace, pause
-- ARGV: requests per second, most ms to wait
-- Returns the ms to wait before the request may go; negative: it may not, and this many ms (less the
-- sign) from now at the earliest.
local paused = redis.call('PTTL', KEYS[2])
if paused > 0 then
  return -paused
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = 1000000 / ARGV[1]
local mine = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = math.ceil((mine - now) / 1000)
if wait > tonumber(ARGV[2]) then
  return -wait
end
redis.call('SET', KEYS[1], string.format('%.0f', mine + interval), 'PX', wait + 2000)
return wait
