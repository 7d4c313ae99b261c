#!lua
-- KEYS: partition count; ARGV: the count as it should be, the new one. Returns 1 if it was so.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
