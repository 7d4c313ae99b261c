#!lua flags=no-writes
-- What a partition holds. Entries that are acknowledged and still owe something lie in the stream, too,
-- and aren't counted among its entries.
-- KEYS: stream, lease, owed, and the lists of what is owed: put, state, settle, media,
--       other_media; ARGV: group.
-- Returns {entries, delivered and not acknowledged, age of the oldest (ms; negative: there is none),
--          owner's token or '', pieces of each list, entries that were ever read}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owing = tonumber(redis.call('HGET', KEYS[3], 'entries') or 0)
local entries = math.max(redis.call('XLEN', KEYS[1]) - owing, 0)
local group = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local pending, oldest, read, ever_read = 0, nil, '-', 0
if not group.err then
  pending, oldest = group[1], group[2]
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local name, delivered, count
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
      if info[i] == 'last-delivered-id' then delivered = info[i + 1] end
      if info[i] == 'entries-read' then count = info[i + 1] end
    end
    if name == ARGV[1] then
      read, ever_read = '(' .. delivered, count or 0
    end
  end
end
-- What is pending was read before what isn't read yet.
if entries > 0 and not oldest then
  local first = redis.call('XRANGE', KEYS[1], read, '+', 'COUNT', 1)[1]
  oldest = first and first[1]
end
local age = oldest and math.max(now - string.match(oldest, '^%d+'), 0) or -1
local owed = {}
for k = 4, #KEYS do
  owed[#owed + 1] = redis.call('ZCARD', KEYS[k])
end
return {entries, pending, age, redis.call('GET', KEYS[2]) or '', owed, ever_read}
