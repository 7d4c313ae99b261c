#!lua flags=allow-oom
-- The object of an entry that was put back lies where it belongs: its piece goes away, and is counted
-- for the replay, once. From here on nobody puts back what was read of the object before: see put_back.lua.
-- KEYS: later, returning, replayed, settled
-- ARGV: id of the piece, key of the object, replay id, `d` or `f`, field of `settled`
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[4], ARGV[5], 1)
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], 'i') == ARGV[3] then
  redis.call('HINCRBY', KEYS[3], ARGV[4], 1)
end
return 1
