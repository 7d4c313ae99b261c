#!lua flags=no-writes
-- What has become due in lists of what is owed. KEYS: lists
-- ARGV: most pieces of a list, then of each list the score from which on, or the last piece that is known
--       and its score before it (`1764412345678 <piece>`), or '': it isn't asked for
-- Returns {now (ms), of each list: {where there may be more: as above, {piece, score, ...}, score of the
--         next one that isn't due yet, or ''}}.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local most = tonumber(ARGV[1])

local function due(key, from)
  local score, last = string.match(from, '^(%S+) (.*)$')
  -- Many may be due in one moment, so those behind the last one are found by its place. If it is done, or
  -- due later by now, all of its moment come again.
  if not last or redis.call('ZSCORE', key, last) ~= score then
    return redis.call('ZRANGEBYSCORE', key, score or from, now, 'WITHSCORES', 'LIMIT', 0, most)
  end
  local rank = redis.call('ZRANK', key, last)
  local pieces = redis.call('ZRANGE', key, rank + 1, rank + most, 'WITHSCORES')
  while #pieces > 0 and tonumber(pieces[#pieces]) > tonumber(now) do
    pieces[#pieces] = nil
    pieces[#pieces] = nil
  end
  return pieces
end

local lists = {}
for k, key in ipairs(KEYS) do
  local from = ARGV[k + 1]
  if from == '' or redis.call('ZCARD', key) == 0 then
    lists[k] = {now, {}, ''}
  else
    local pieces = due(key, from)
    local later = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    local is_full = #pieces == 2 * most
    -- In this very moment another piece may still become due.
    local more = is_full and pieces[#pieces] .. ' ' .. pieces[#pieces - 1] or now
    lists[k] = {more, pieces, later or ''}
  end
end
return {now, lists}
