#!lua flags=allow-oom
-- Takes a free partition. If its last tenure ended by a crash (`owner` still there, of another
-- process), what was in work then is counted: the entry announced in `alone` died by itself, else
-- every pending entry becomes a suspect once more. Counting and taking over are one step, so that
-- no crash is counted twice or not at all.
--
-- KEYS: lease, owner, stream, suspects, deaths, alone, and lists of a version before the first release
-- ARGV: token, ttl (ms), group, prefix of this process' tokens
-- Returns 1 if taken, else 0.
for i = 7, 8 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    return redis.error_reply('FORMER ' .. KEYS[i] .. ' has what another version owes: run that to its end, or delete it')
  end
end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 0
end
local last = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[2], ARGV[1])
local alone, died = string.match(redis.call('GET', KEYS[6]) or '', '^(%S+) (.+)$')
redis.call('DEL', KEYS[6])
-- A process that lives lost its lease to an absent Redis or to a pause: nothing crashed.
if not last or string.sub(last, 1, #ARGV[4]) == ARGV[4] then
  return 1
end
if alone then
  -- With the token of the tenure, so that a worker that turns out to live can take it back.
  local died_in = redis.call('HGET', KEYS[5], alone) or ''
  redis.call('HSET', KEYS[5], alone, died_in .. died .. ',')
  return 1
end
local pending = redis.pcall('XPENDING', KEYS[3], ARGV[3], '-', '+', 10000)
if not pending.err then
  for _, entry in ipairs(pending) do
    redis.call('HINCRBY', KEYS[4], entry[1], 1)
  end
end
return 1
