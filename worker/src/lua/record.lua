#!lua flags=allow-oom
-- The one place that acknowledges: what an entry still owes goes to the lists of what is owed, and
-- everything noted about it goes away; so does the entry, unless it owes something. Of entries that go
-- on it is noted which items are done. All of it together or not at all.
--
-- KEYS: lease, stream, progress, suspects, deaths, media, alone, returning, owed, and the lists of
--       what is owed: put, state, settle, media,
--       other_media
-- ARGV: token, group, number of entries that are done; of each its id, the number of pieces it owes, and
--       of each piece: number of its list, the piece, key of the object that settles (else empty);
--       then of each entry that goes on: id, numbers of its items that are done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
local SETTLE, LISTS = 3, 9

local function is_pending(id)
  -- (A group that was destroyed has nothing pending.)
  local pending = redis.pcall('XPENDING', KEYS[2], ARGV[2], id, id, 1)
  return not pending.err and #pending > 0
end

local now
local function owe(id, from, pieces)
  if not now then
    local time = redis.call('TIME')
    now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  end
  -- An entry may owe something from before: its group was destroyed, and it was delivered again. What
  -- is in a list already is counted already.
  local added, owed, seen = 0, tonumber(redis.call('HGET', KEYS[9], id)) or 0, {}
  local function add(list, score, piece)
    local new = redis.call('ZADD', KEYS[LISTS + list], score, piece)
    if new == 0 and not seen[piece] then
      owed = math.max(owed, 1)
    end
    seen[piece], added = true, added + new
    return new
  end
  local puts, settle = 0, nil
  for i = from, from + 3 * (pieces - 1), 3 do
    local list, piece = tonumber(ARGV[i]), ARGV[i + 1]
    if list == SETTLE then
      settle = piece
      redis.call('HSET', KEYS[8], ARGV[i + 2], '')
    else
      local new = add(list, now, piece)
      puts = puts + (list == 1 and new or 0)
    end
  end
  -- An object leaves its old place once what replaces it is written.
  if settle then
    local before = string.match(redis.call('HGET', KEYS[9], id .. ':settle') or '', '^%d+')
    puts = puts + (tonumber(before) or 0)
    add(SETTLE, puts > 0 and '+inf' or now, settle)
    if puts > 0 then
      redis.call('HSET', KEYS[9], id .. ':settle', puts .. ' ' .. settle)
    end
  end
  if owed + added > 1 then
    redis.call('HSET', KEYS[9], id, owed + added)
  end
  if owed == 0 then
    redis.call('HINCRBY', KEYS[9], 'entries', 1)
  end
end

local ids, gone, at = {}, {}, 4
for n = 1, tonumber(ARGV[3]) do
  local id, pieces = ARGV[at], tonumber(ARGV[at + 1])
  ids[n] = id
  if pieces == 0 then
    gone[#gone + 1] = id
  elseif is_pending(id) then
    owe(id, at + 2, pieces)
  end
  -- Else it was recorded before, and the answer was lost: it owes nothing a second time. (Or its group
  -- was destroyed: it is delivered again.)
  at = at + 2 + 3 * pieces
end
if #ids > 0 then
  redis.call('XACK', KEYS[2], ARGV[2], unpack(ids))
  if #gone > 0 then
    redis.call('XDEL', KEYS[2], unpack(gone))
  end
  for i = 3, 6 do
    redis.call('HDEL', KEYS[i], unpack(ids))
  end
  local alone = string.match(redis.call('GET', KEYS[7]) or '', '^%S+')
  for _, id in ipairs(ids) do
    if id == alone then
      redis.call('DEL', KEYS[7])
    end
  end
end
-- A note that comes late, when its entry is acknowledged, would stay for ever: it is left out.
for i = at, #ARGV, 2 do
  if is_pending(ARGV[i]) then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return 1
