#!lua flags=allow-oom
-- Notes what the first publication of an item says of media that isn't stored, before it goes out:
-- whoever publishes the item again says the same. A note that comes late, when its entry is
-- acknowledged, is left out. KEYS: lease, media, stream; ARGV: token, group, entry id, note.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
local pending = redis.pcall('XPENDING', KEYS[3], ARGV[2], ARGV[3], ARGV[3], 1)
if not pending.err and #pending > 0 then
  redis.call('HSET', KEYS[2], ARGV[3], (redis.call('HGET', KEYS[2], ARGV[3]) or '') .. ARGV[4])
end
return 1
