#!lua flags=allow-oom
-- A suspect's bytes are read: it is named no more, unless by a later tenure, and a death that was counted
-- for it in this tenure, since the worker was taken for dead, is taken back.
-- KEYS: alone, deaths; ARGV: entry id, token of the tenure.
if redis.call('GET', KEYS[1]) == ARGV[1] .. ' ' .. ARGV[2] then
  redis.call('DEL', KEYS[1])
end
local died_in = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local from, to = string.find(died_in, ARGV[2] .. ',', 1, true)
if from then
  local others = string.sub(died_in, 1, from - 1) .. string.sub(died_in, to + 1)
  if others == '' then
    redis.call('HDEL', KEYS[2], ARGV[1])
  else
    redis.call('HSET', KEYS[2], ARGV[1], others)
  end
end
return 1
