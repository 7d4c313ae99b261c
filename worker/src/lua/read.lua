#!lua flags=allow-oom
-- The fenced read. A worker whose lease is gone gets nothing, however late its request comes.
-- A missing stream or group (an empty Redis) is made again, from the beginning.
--
-- KEYS: lease, stream
-- ARGV: token, group, consumer, `>` or the id after which pending entries are read, bytes, count
-- Returns {entries, id of the last entry ever delivered to the group, number of pending entries}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
local after = ARGV[4]
local most_bytes, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, bytes, healed = {}, 0, false
while #entries < most and bytes < most_bytes do
  -- One by one: COUNT knows no bytes, and an entry may have 3 MB.
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[2], after)
  if reply and reply.err then
    if healed or not string.find(reply.err, 'NOGROUP', 1, true) then
      return reply
    end
    redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
    healed = true
  elseif not reply or #reply[1][2] == 0 then
    break
  else
    local entry = reply[1][2][1]
    entries[#entries + 1] = entry
    for _, part in ipairs(entry[2] or {}) do
      bytes = bytes + #part
    end
    if after ~= '>' then
      after = entry[1]
    end
  end
end
local last, pending = '0-0', 0
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
  local name, delivered, waiting
  for i = 1, #group, 2 do
    if group[i] == 'name' then name = group[i + 1] end
    if group[i] == 'last-delivered-id' then delivered = group[i + 1] end
    if group[i] == 'pending' then waiting = group[i + 1] end
  end
  if name == ARGV[2] then last, pending = delivered, waiting end
end
return {entries, last, pending}
