#!lua flags=allow-oom
-- No requests for a business phone number for a while. A longer pause stays.
-- KEYS: pause; ARGV: ms.
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
end
return 1
