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
-- COUNT knows no bytes, and an entry may have 3 MB: how many come at once follows from the heaviest so
-- far, so that light ones cost few calls, and few heavy ones come that weren't expected.
local TOGETHER, TOGETHER_BYTES = 16, 262144
local entries, bytes, heaviest = {}, 0, TOGETHER_BYTES
while #entries < most and bytes < most_bytes do
  local count = math.min(math.floor(TOGETHER_BYTES / heaviest), TOGETHER, most - #entries)
  count = math.min(count, math.floor((most_bytes - bytes) / heaviest))
  count = math.max(count, 1)
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', count, 'STREAMS', KEYS[2], after)
  local read = reply and reply[1][2] or {}
  if #entries == 0 then
    heaviest = 1
  end
  for _, entry in ipairs(read) do
    local weight = 0
    for _, part in ipairs(entry[2] or {}) do
      weight = weight + #part
    end
    entries[#entries + 1] = entry
    bytes, heaviest = bytes + weight, math.max(heaviest, weight)
  end
  if #read == 0 then
    break
  end
  if after == '>' then
    last, pending = read[#read][1], pending + #read
  else
    after = read[#read][1]
  end
  if #read < count then
    break
  end
end
return {entries, last, pending, 0}
