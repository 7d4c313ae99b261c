#!lua flags=no-writes
-- What has become due in lists of what is owed. KEYS: lists
-- ARGV: pieces of a list (and those that are due in the same moment as the last one), then of each list
--       the score from which on, or '': it isn't asked for
-- Returns {now (ms), of each list: {score from which on there may be more, {piece, score, ...}, score of
--         the next one that isn't due yet, or ''}}.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local lists = {}
for k, key in ipairs(KEYS) do
  local from = ARGV[k + 1]
  if from == '' or redis.call('ZCARD', key) == 0 then
    lists[k] = {now, {}, ''}
  else
    local last = redis.call('ZRANGEBYSCORE', key, from, now, 'WITHSCORES', 'LIMIT', ARGV[1] - 1, 1)[2]
    local pieces = redis.call('ZRANGEBYSCORE', key, from, last or now, 'WITHSCORES')
    local later = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    -- In this very moment another piece may still become due.
    lists[k] = {last and '(' .. last or now, pieces, later or ''}
  end
end
return {now, lists}
