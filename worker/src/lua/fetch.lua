#!lua flags=allow-oom
-- Entries again, in the order asked for. KEYS: stream; ARGV: most bytes (one entry more), ids.
-- Returns {id, fields} each, without fields where the entry is gone.
local entries, bytes = {}, 0
for i = 2, #ARGV do
  if bytes >= tonumber(ARGV[1]) then
    break
  end
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1] or {ARGV[i], false}
  entries[#entries + 1] = entry
  for _, part in ipairs(entry[2] or {}) do
    bytes = bytes + #part
  end
end
return entries
