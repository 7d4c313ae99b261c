#!lua flags=allow-oom
-- Notes which items of entries are done. KEYS: lease, progress; ARGV: token, then of each entry: id,
-- numbers.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
