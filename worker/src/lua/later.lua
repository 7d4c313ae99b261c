#!lua flags=allow-oom
-- Pieces of the later-list, without those of some groups. KEYS: later.
-- ARGV: id after which, most pieces, most bytes (one piece more), most to look at, groups to leave out,
--       each between commas: a kind (field `k`), or a kind, `:` and the piece's field `o`.
-- Returns {pieces, id of the last one looked at, or '' at the end of the list}.
local after, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local pieces, bytes = {}, 0
for _ = 1, tonumber(ARGV[4]) do
  if #pieces >= most or bytes >= most_bytes then
    return {pieces, after}
  end
  -- One by one: COUNT knows no bytes, and a piece may have 3 MB.
  local piece = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
  if not piece then
    return {pieces, ''}
  end
  after = piece[1]
  local kind, of = '', ''
  for f = 1, #piece[2], 2 do
    if piece[2][f] == 'k' then kind = piece[2][f + 1] end
    if piece[2][f] == 'o' then of = piece[2][f + 1] end
  end
  if not string.find(ARGV[5], ',' .. kind .. ',', 1, true)
    and not string.find(ARGV[5], ',' .. kind .. ':' .. of .. ',', 1, true) then
    pieces[#pieces + 1] = piece
    for _, part in ipairs(piece[2]) do
      bytes = bytes + #part
    end
  end
end
return {pieces, after}
