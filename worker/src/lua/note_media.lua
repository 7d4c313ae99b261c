#!lua flags=allow-oom
-- Notes what the first publication of an item says of media that isn't stored, before it goes out:
-- whoever publishes the item again says the same. KEYS: lease, media; ARGV: token, entry id, note.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
redis.call('HSET', KEYS[2], ARGV[2], (redis.call('HGET', KEYS[2], ARGV[2]) or '') .. ARGV[3])
return 1
