#!lua flags=allow-oom
-- What became of pieces that were owed: done, or due again later. The last piece that is done takes its
-- entry along. A piece that is done twice counts once, so this needs no lease.
--
-- What settles is counted for its replay, and from there on nobody puts back what was read of the object
-- before: see put_back.lua.
--
-- KEYS: stream, owed, returning, replayed, settled, and the lists of what is owed: put, state, settle,
--       media, other_media
-- ARGV: of each piece: number of its list, the piece, its score ('': it is done); and of one that
--       settles: key of the object, field of `settled`, replay id, `d` or `f` (else empty)
local SETTLE, LISTS = 3, 5

-- What waits for the entry's last `put` is due now.
local function put_is_done(id)
  local puts, settle = string.match(redis.call('HGET', KEYS[2], id .. ':settle') or '', '^(%d+) (.*)$')
  if not puts then
    return
  end
  if tonumber(puts) > 1 then
    redis.call('HSET', KEYS[2], id .. ':settle', (puts - 1) .. ' ' .. settle)
    return
  end
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('ZADD', KEYS[LISTS + SETTLE], 'XX', now, settle)
  redis.call('HDEL', KEYS[2], id .. ':settle')
end

for i = 1, #ARGV, 7 do
  local list, piece, score = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if score ~= '' then
    redis.call('ZADD', KEYS[LISTS + list], 'XX', score, piece)
  elseif redis.call('ZREM', KEYS[LISTS + list], piece) == 1 then
    local id = string.match(piece, '^[^ ]+')
    if list == 1 then
      put_is_done(id)
    elseif list == SETTLE then
      redis.call('HDEL', KEYS[3], ARGV[i + 3])
      redis.call('HINCRBY', KEYS[5], ARGV[i + 4], 1)
      if ARGV[i + 5] ~= '' and redis.call('HGET', KEYS[4], 'i') == ARGV[i + 5] then
        redis.call('HINCRBY', KEYS[4], ARGV[i + 6], 1)
      end
    end
    -- Only of those that owe several pieces it is noted how many.
    if not redis.call('HGET', KEYS[2], id) or redis.call('HINCRBY', KEYS[2], id, -1) <= 0 then
      redis.call('HDEL', KEYS[2], id)
      redis.call('XDEL', KEYS[1], id)
      if redis.call('HINCRBY', KEYS[2], 'entries', -1) <= 0 then
        redis.call('HDEL', KEYS[2], 'entries')
      end
    end
  end
end
return 1
