#!lua flags=allow-oom
-- The fenced read. A worker whose lease is gone gets nothing, however late its request comes. A read of
-- new entries says which entry it expects to be the last one delivered: one that was given up and comes
-- late can't take entries that nobody waits for any more before newer ones.
-- A missing stream or group (an empty Redis) is made again, from the beginning.
--
-- KEYS: lease, stream
-- ARGV: token, group, consumer, `>` or the id after which pending entries are read, bytes, count, the
--       last id delivered that is expected with `>`
-- Returns {entries, id of the last entry ever delivered to the group, number of pending entries, 1 if
--          nothing was read since another entry is the last one delivered}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end

local function group()
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
  for _, group in ipairs(groups.err and {} or groups) do
    local name, delivered, pending
    for i = 1, #group, 2 do
      if group[i] == 'name' then name = group[i + 1] end
      if group[i] == 'last-delivered-id' then delivered = group[i + 1] end
      if group[i] == 'pending' then pending = group[i + 1] end
    end
    if name == ARGV[2] then
      return delivered, pending
    end
  end
end

local last, pending = group()
if not last then
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
  last, pending = group()
end
local after = ARGV[4]
if after == '>' and last ~= ARGV[7] then
  return {{}, last, pending, 1}
end
local most_bytes, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, bytes = {}, 0
while #entries < most and bytes < most_bytes do
  -- One by one: COUNT knows no bytes, and an entry may have 3 MB.
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[2], after)
  if not reply or #reply[1][2] == 0 then
    break
  end
  local entry = reply[1][2][1]
  entries[#entries + 1] = entry
  for _, part in ipairs(entry[2] or {}) do
    bytes = bytes + #part
  end
  if after == '>' then
    last, pending = entry[1], pending + 1
  else
    after = entry[1]
  end
end
return {entries, last, pending, 0}
