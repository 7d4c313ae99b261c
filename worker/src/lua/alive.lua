#!lua flags=allow-oom
-- A worker that lost its lease without dying takes back the death that was counted for it.
-- KEYS: deaths; ARGV: entry id, token of the tenure.
local died_in = redis.call('HGET', KEYS[1], ARGV[1])
if not died_in then
  return 0
end
local from, to = string.find(died_in, ARGV[2] .. ',', 1, true)
if not from then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.sub(died_in, 1, from - 1) .. string.sub(died_in, to + 1))
return 1
