#!lua flags=allow-oom
-- Notes which items of an entry are done. KEYS: lease, progress; ARGV: token, entry id, numbers.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
