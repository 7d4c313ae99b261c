#!lua
-- Gives a partition that holds nothing a new partition count; else tells what it holds.
-- KEYS: stream, later-list, later-list of media, lease, seen; ARGV: count ('': only tell)
-- Returns {entries, pieces of the later-list, of media, 1 if a worker owns it, the count it had, or ''}.
local entries, later, media = redis.call('XLEN', KEYS[1]), redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[3])
local leased = redis.call('EXISTS', KEYS[4])
local before = redis.call('HGET', KEYS[5], 'partitions') or ''
if ARGV[1] ~= '' and entries + later + media + leased == 0 then
  redis.call('HSET', KEYS[5], 'partitions', ARGV[1])
end
return {entries, later, media, leased, before}
