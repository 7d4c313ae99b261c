#!lua flags=no-writes
-- What a partition holds. KEYS: stream, later-list, later-list of media, lease
-- ARGV: group, pieces of the later-list that are looked at, bytes of them
-- Returns {entries, delivered and not acknowledged, id of the oldest or '', now (ms), owner's token or
--          '', pieces of the later-list, of media, {kind, how many of those looked at, ...}}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local kinds, after, left, bytes = {}, '-', tonumber(ARGV[2]), tonumber(ARGV[3])
while left > 0 and bytes > 0 do
  -- One by one: a piece may have 3 MB.
  local piece = redis.call('XRANGE', KEYS[2], after, '+', 'COUNT', 1)[1]
  if not piece then
    break
  end
  after, left = '(' .. piece[1], left - 1
  for f = 1, #piece[2], 2 do
    bytes = bytes - #piece[2][f + 1]
    if piece[2][f] == 'k' then
      local kind = piece[2][f + 1]
      kinds[kind] = (kinds[kind] or 0) + 1
    end
  end
end
local counted = {}
for kind, count in pairs(kinds) do
  counted[#counted + 1] = kind
  counted[#counted + 1] = tostring(count)
end
return {redis.call('XLEN', KEYS[1]), pending.err and 0 or pending[1], oldest and oldest[1] or '', now,
  redis.call('GET', KEYS[4]) or '', redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[3]), counted}
