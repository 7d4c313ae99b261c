#!lua flags=allow-oom
-- Notes numbers that have traffic in this hour. KEYS: traffic
-- ARGV: hour (since 1970), most numbers, hours that are remembered, numbers (account:number).
-- A number's field is its last hour, `:`, and a character per hour back from there: 1 with traffic.
local hour, most, length = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, #ARGV do
  local last, hours = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+):([01]+)$')
  if not last then
    if redis.call('HLEN', KEYS[1]) < most then
      redis.call('HSET', KEYS[1], ARGV[i], hour .. ':1')
    end
  elseif hour > tonumber(last) then
    local none = math.min(hour - tonumber(last) - 1, length)
    hours = string.sub('1' .. string.rep('0', none) .. hours, 1, length)
    redis.call('HSET', KEYS[1], ARGV[i], hour .. ':' .. hours)
  end
end
return 1
