#!lua
-- Makes one account's webhook durable: fresh items? -> rate limit -> XADD -> marks. Redis does not
-- roll back a script that fails half-way, so the marks come last: an error before them may double,
-- never lose.
--
-- KEYS: stream, seen, rate window of the account. Marks lie in hashes named after `seen`, of the same
--       hash tag and so of the same slot.
-- ARGV: 1 dedup ttl (s), 2 webhooks per minute (0: no limit, whatever the account's own is),
--       3 "1" to refuse what is beyond, 4 "1" while memory is short, 5-11 fields w c t b s p r,
--       12 "1" if the identity is the whole body's, so that no item numbers are written,
--       13 the partition count that the caller goes by,
--       14.. identities: 2 bytes bucket, 12 bytes field
-- Returns {"stored", "over" (stored beyond the limit), "limited" or "duplicate"; fresh items;
--          webhooks left in the window; ms until its oldest one leaves it; the limit}.
--
-- Redis spends more on Lua than on the commands, so numbers become text by %d (anything else takes
-- the way of floating point), and nothing is made that a webhook of one fresh item doesn't need.
local call, format, floor = redis.call, string.format, math.floor
local WINDOW_MS = 60000
local SHORT_TTL = 3600
local SEEN, RATE = KEYS[2], KEYS[3]
local time = call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
local now = now_ms / 1000

-- Marks. A generation of marks lives as long as a mark must, and is kept for one more, since its
-- last mark is made at its end. A mark is the fortieth of the generation in which it was made: exact
-- to 2.5 %, and two bytes. A hash stays compact up to 128 marks, so when one fills up, the next marks
-- of its generation go to eight times as many. Where a mark lies follows from the levels its
-- generation had: the exponents of two of its numbers of hashes.
local STEPS, FULL, FIRST, FURTHER, LAST = 40, 110, 6, 3, 15

local ttl = tonumber(ARGV[1])
local short_ttl = math.min(SHORT_TTL, ttl)
local generation, short_generation = floor(now / ttl), floor(now / short_ttl)
-- The generation that comes is there already if the clock was set back.
local names = {
  format('%d', generation), format('%d', generation - 1), format('%d', generation + 1),
  format('s%d', short_generation), format('s%d', short_generation - 1), format('s%d', short_generation + 1),
}
-- Of each of them its levels, such as "6,9".
local known = call('HMGET', SEEN, names[1], names[2], names[3], names[4], names[5], names[6], 'l' .. ARGV[5],
  'partitions')
-- `worker repartition` was here: this account belongs to another partition now.
if known[8] and known[8] ~= ARGV[13] then
  return redis.error_reply('REPARTITIONED this deployment has ' .. known[8] .. ' partitions now')
end

-- Of a level: what its hashes' names begin with, and what an identity's bucket is divided by for the
-- rest of the name.
local function hashes(name, level)
  return SEEN .. ':' .. name .. ':' .. level .. ':', 2 ^ (16 - level)
end

local function bucket(identity)
  local high, low = string.byte(identity, 1, 2)
  return high * 256 + low
end

-- Wherever a mark may lie, and the earliest one there that still counts.
local prefixes, divisors, earliest = {}, {}, {}
local function look_in(at, number, lasts)
  for level in string.gmatch(known[at], '%d+') do
    local i = #prefixes + 1
    prefixes[i], divisors[i] = hashes(names[at], level)
    earliest[i] = floor(now * STEPS / lasts) - (number + 1) * STEPS
  end
end
if known[1] then look_in(1, generation, ttl) end
if known[2] then look_in(2, generation - 1, ttl) end
if known[3] then look_in(3, generation + 1, ttl) end
if known[4] then look_in(4, short_generation, short_ttl) end
if known[5] then look_in(5, short_generation - 1, short_ttl) end
if known[6] then look_in(6, short_generation + 1, short_ttl) end

local function remembered(identity)
  local bucket, field = bucket(identity), string.sub(identity, 3)
  for i = 1, #prefixes do
    local mark = call('HGET', prefixes[i] .. format('%d', bucket / divisors[i]), field)
    if mark and tonumber(mark) >= earliest[i] then
      return true
    end
  end
  return false
end

local fresh, numbers, met = {}, {}, {}
for i = 14, #ARGV do
  local identity = ARGV[i]
  if not met[identity] then
    met[identity] = true
    if not remembered(identity) then
      fresh[#fresh + 1] = identity
      numbers[#numbers + 1] = i - 14
    end
  end
end
if #fresh == 0 then
  return {'duplicate', 0, 0, 0, 0}
end

-- The window holds the times of the last webhooks. One that lies ahead is from before the clock was
-- set back.
local limit, outcome = tonumber(ARGV[2]), 'stored'
if limit > 0 and known[7] then
  limit = tonumber(known[7]) or limit
end
local used, oldest = 0, now_ms
-- A time stays in it for one window at most. So, at the latest a window after it was given its time to
-- live, something is taken out, and it is given two more.
local function keep_window()
  call('PEXPIRE', RATE, 2 * WINDOW_MS)
end
if limit > 0 then
  local first, taken_out = call('LINDEX', RATE, 0), false
  while first and (tonumber(first) <= now_ms - WINDOW_MS or tonumber(first) > now_ms) do
    call('LPOP', RATE)
    taken_out = true
    first = call('LINDEX', RATE, 0)
  end
  if first then
    oldest, used = tonumber(first), call('LLEN', RATE)
    if taken_out then
      keep_window()
    end
  end
  if used >= limit then
    if ARGV[3] == '1' then
      return {'limited', 0, 0, oldest + WINDOW_MS - now_ms, limit}
    end
    outcome = 'over'
  end
end

-- Such as "0-3,5".
local function ranges()
  local text, first = {}, numbers[1]
  for i = 1, #numbers do
    local last = numbers[i]
    if numbers[i + 1] ~= last + 1 then
      text[#text + 1] = first == last and format('%d', first) or format('%d-%d', first, last)
      first = numbers[i + 1]
    end
  end
  return table.concat(text, ',')
end
call('XADD', KEYS[1], '*', 'v', '1', 'w', ARGV[5], 'c', ARGV[6], 't', ARGV[7],
  'n', ARGV[12] == '1' and '' or ranges(), 'b', ARGV[8], 's', ARGV[9], 'p', ARGV[10], 'r', ARGV[11])

if limit > 0 then
  used = call('RPUSH', RATE, format('%d', now_ms))
  if used > limit then
    call('LTRIM', RATE, -limit, -1)
  end
  if used == 1 then
    keep_window()
  end
end

local at, number, lasts = 1, generation, ttl
if ARGV[4] == '1' then
  at, number, lasts = 4, short_generation, short_ttl
end
local name, levels = names[at], known[at]
if not levels then
  local most = tonumber(string.match(known[at + 1] or '', '%d+$') or FIRST)
  levels = format('%d', math.max(FIRST, most - FURTHER))
  call('HSET', SEEN, name, levels)
  -- Those before the last one have expired; those far below are of another time to live, whose
  -- generations have other numbers.
  for _, other in ipairs(call('HKEYS', SEEN)) do
    local of_short = string.sub(other, 1, 1) == 's'
    local old = tonumber(of_short and string.sub(other, 2) or other)
    local current = of_short and short_generation or generation
    if old and old < current - 1 and old > current * 0.99 then
      call('HDEL', SEEN, other)
    end
  end
end
local level = tonumber(string.match(levels, '%d+$'))
local prefix, divisor = hashes(name, level)
local mark = format('%d', floor(now * STEPS / lasts) - number * STEPS)
for _, identity in ipairs(fresh) do
  local key = prefix .. format('%d', bucket(identity) / divisor)
  call('HSET', key, string.sub(identity, 3), mark)
  local length = call('HLEN', key)
  if length == 1 then
    call('EXPIREAT', key, math.ceil((number + 2) * lasts + lasts / STEPS))
  elseif length >= FULL and level < LAST then
    level = level + FURTHER
    levels = levels .. ',' .. level
    prefix, divisor = hashes(name, level)
    call('HSET', SEEN, name, levels)
  end
end
return {outcome, #fresh, math.max(0, limit - used), oldest + WINDOW_MS - now_ms, limit}
