#!lua flags=allow-oom
-- Ends a tenure cleanly. KEYS: lease, owner, alone; ARGV: token.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
