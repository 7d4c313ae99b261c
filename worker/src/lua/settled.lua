#!lua flags=allow-oom
-- The object of an entry that was put back lies where it belongs: its piece goes away, and is counted
-- for the replay, once.
-- KEYS: later, returning, replayed; ARGV: id of the piece, key of the object, replay id, `d` or `f`.
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], 'i') == ARGV[3] then
  redis.call('HINCRBY', KEYS[3], ARGV[4], 1)
end
return 1
