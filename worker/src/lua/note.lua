#!lua flags=allow-oom
-- Notes which items of entries are done. A note that comes late, when its entry is acknowledged, would
-- stay for ever: it is left out.
-- KEYS: lease, progress, stream; ARGV: token, group, then of each entry: id, numbers.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
for i = 3, #ARGV, 2 do
  local pending = redis.pcall('XPENDING', KEYS[3], ARGV[2], ARGV[i], ARGV[i], 1)
  if not pending.err and #pending > 0 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1
