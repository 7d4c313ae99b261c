#!lua flags=allow-oom
-- The one place that acknowledges: what is still owed goes to the later-lists, and the entry and
-- everything noted about it goes away, together or not at all.
--
-- KEYS: lease, stream, later, progress, suspects, deaths, media, alone, later-list of media,
--       returning
-- ARGV: token, group, entry id, number of media that is owed, for each of these: tenant id, head,
--       body; then for each other piece that is owed: kind, key, attributes, body (empty: of an
--       object the entry's own, else none)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
-- Sent again, because the answer was lost: all of it is done, and the entry's body is gone.
-- (A group that was destroyed has nothing pending.)
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1)
if (pending.err or #pending == 0) and #redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3]) == 0 then
  return 1
end
local pieces = 5 + 3 * ARGV[4]
for i = 5, pieces - 1, 3 do
  redis.call('XADD', KEYS[9], '*', 't', ARGV[i], 'm', ARGV[i + 1], 'b', ARGV[i + 2])
end
local own
for i = pieces, #ARGV, 4 do
  local body = ARGV[i + 3]
  if body == '' and ARGV[i] == 'put' then
    if not own then
      own = ''
      local entry = redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3])[1]
      for f = 1, entry and #entry[2] or 0, 2 do
        if entry[2][f] == 'b' then own = entry[2][f + 1] end
      end
    end
    body = own
  end
  if ARGV[i] == 'settle' then
    redis.call('HSET', KEYS[10], ARGV[i + 1], '')
  end
  redis.call('XADD', KEYS[3], '*', 'k', ARGV[i], 'o', ARGV[i + 1], 'm', ARGV[i + 2], 'b', body)
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
for i = 4, 7 do
  redis.call('HDEL', KEYS[i], ARGV[3])
end
if redis.call('GET', KEYS[8]) == ARGV[3] then
  redis.call('DEL', KEYS[8])
end
return 1
