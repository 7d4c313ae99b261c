#!lua
-- Gives a partition that holds nothing a new partition count; else tells what it holds.
-- KEYS: stream, lease, seen, owed, and the lists of what is owed: put, state, settle, media,
--       other_media
-- ARGV: count ('': only tell)
-- Returns {entries, pieces that are owed, 1 if a worker owns it, the count it had, or ''}.
local length, owed = redis.call('XLEN', KEYS[1]), 0
for k = 5, #KEYS do
  owed = owed + redis.call('ZCARD', KEYS[k])
end
local leased = redis.call('EXISTS', KEYS[2])
local before = redis.call('HGET', KEYS[3], 'partitions') or ''
if ARGV[1] ~= '' and length + owed + leased == 0 then
  redis.call('HSET', KEYS[3], 'partitions', ARGV[1])
end
local owing = tonumber(redis.call('HGET', KEYS[4], 'entries') or 0)
return {math.max(length - owing, owed == 0 and length or 0, 0), owed, leased, before}
