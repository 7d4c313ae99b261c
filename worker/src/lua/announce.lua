#!lua flags=allow-oom
-- Announces that a suspected entry is in work alone, and in which tenure.
-- KEYS: lease, alone; ARGV: token, entry id.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[1])
return 1
