#!lua flags=allow-oom
-- Whose turn a replay is: one process puts back at a time, and the next one goes on where it was when
-- nothing is heard of it. The lease's end is in Redis' time.
--
-- KEYS: replay
-- ARGV: token, lease (ms), then for one that may begin a replay: selection (JSON), total
-- Returns {standing, id, selection, total, at, left}; standing: `none`, `mine`, `others` or `ended`.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, ended, runner, until_ms, selection, total, at, left = unpack(redis.call('HMGET', KEYS[1],
  'id', 'ended', 'runner', 'until', 'selection', 'total', 'at', 'left'))
local standing
if not id or (ended and ARGV[3]) then
  if not ARGV[3] then
    return {'none', '', '', 0, '', 0}
  end
  -- Ids ascend, whatever the clock does.
  local last = tonumber(string.match(id or '', '%d+') or '0')
  id = string.format('r%.0f', math.max(now, last + 1))
  selection, total, at, left = ARGV[3], ARGV[4], '', '0'
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'id', id, 'selection', selection, 'total', total, 'at', at, 'left', left)
  standing = 'mine'
elseif ended then
  standing = 'ended'
elseif runner == ARGV[1] or tonumber(until_ms or '0') < now then
  standing = 'mine'
else
  standing = 'others'
end
if standing == 'mine' then
  redis.call('HSET', KEYS[1], 'runner', ARGV[1], 'until', now + ARGV[2])
end
return {standing, id, selection, tonumber(total), at, tonumber(left)}
