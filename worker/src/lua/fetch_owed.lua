#!lua flags=no-writes
-- The entries of pieces that are still owed.
-- KEYS: list, stream; ARGV: most bytes (one entry more), number of entries that are known, those, pieces
-- Returns of each piece: 0: it is no longer owed; 1: its entry is known, or came with a piece before;
-- 2: there is no room for its entry; else {id, fields}, without fields where the entry is gone.
local found, bytes, known = {}, 0, {}
local first = 3 + tonumber(ARGV[2])
for i = 3, first - 1 do
  known[ARGV[i]] = true
end
for i = first, #ARGV do
  local id = string.match(ARGV[i], '^[^ ]+')
  if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    found[#found + 1] = 0
  elseif known[id] then
    found[#found + 1] = 1
  elseif bytes >= tonumber(ARGV[1]) then
    found[#found + 1] = 2
  else
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1] or {id, false}
    for _, part in ipairs(entry[2] or {}) do
      bytes = bytes + #part
    end
    found[#found + 1], known[id] = entry, true
  end
end
return found
