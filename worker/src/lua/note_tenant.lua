#!lua flags=allow-oom
-- Notes whose the entries of an account are, before the first of them goes out under that tenant.
-- KEYS: lease, tenants; ARGV: token, account, note (empty: there is nothing to note any more).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
else
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
return 1
