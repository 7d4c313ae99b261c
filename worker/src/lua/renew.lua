#!lua flags=allow-oom
-- KEYS: lease; ARGV: token, ttl (ms; 0 ends it). Returns 1 if the lease was still this token's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
