#!lua flags=allow-oom
-- Takes an account off the list, unless something of it was set aside since that was counted.
-- KEYS: unknown; ARGV: account, count.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1])) == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
