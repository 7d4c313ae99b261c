#!lua flags=no-writes
-- Whether items are remembered. KEYS: seen; ARGV: identities, as ingress writes them.
-- Returns {number of the identity, generation, mark, when its hash expires (s)} of each that is.
local found = {}
local known = redis.call('HGETALL', KEYS[1])
for i, identity in ipairs(ARGV) do
  for f = 1, #known, 2 do
    if string.match(known[f], '^s?%d+$') then
      for level in string.gmatch(known[f + 1], '%d+') do
        local bucket = math.floor(struct.unpack('>H', identity) / 2 ^ (16 - level))
        local key = KEYS[1] .. ':' .. known[f] .. ':' .. level .. ':' .. bucket
        local mark = redis.call('HGET', key, string.sub(identity, 3))
        if mark then
          found[#found + 1] = {i, known[f], tonumber(mark), redis.call('EXPIRETIME', key)}
        end
      end
    end
  end
end
return found
