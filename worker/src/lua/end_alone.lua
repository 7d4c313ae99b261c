#!lua flags=allow-oom
-- A suspect's bytes are read: it is named no more, and a death that was counted for it meanwhile, since
-- the worker was taken for dead, is taken back.
-- KEYS: alone, deaths; ARGV: entry id, token of the tenure.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
local died_in = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local from, to = string.find(died_in, ARGV[2] .. ',', 1, true)
if from then
  redis.call('HSET', KEYS[2], ARGV[1], string.sub(died_in, 1, from - 1) .. string.sub(died_in, to + 1))
end
return 1
