#!lua flags=no-writes
-- The entries of pieces that are still owed. KEYS: list, stream; ARGV: most bytes (one entry more), pieces.
-- Returns of each piece: 0: it is no longer owed; 1: its entry is the one before; else {id, fields},
-- without fields where the entry is gone. Pieces behind the bytes are left out.
local found, bytes, before = {}, 0, nil
for i = 2, #ARGV do
  local id = string.match(ARGV[i], '^[^ ]+')
  if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    found[#found + 1] = 0
  elseif id == before then
    found[#found + 1] = 1
  elseif bytes >= tonumber(ARGV[1]) then
    break
  else
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1] or {id, false}
    for _, part in ipairs(entry[2] or {}) do
      bytes = bytes + #part
    end
    found[#found + 1], before = entry, id
  end
end
return found
