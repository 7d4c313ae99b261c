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
local WINDOW_MS = 60000
local SHORT_TTL = 3600
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = now_ms / 1000

-- Marks. A generation of marks lives as long as a mark must, and is kept for one more, since its
-- last mark is made at its end. A mark is the fortieth of the generation in which it was made: exact
-- to 2.5 %, and two bytes. A hash stays compact up to 128 marks, so when one fills up, the next marks
-- of its generation go to eight times as many. Where a mark lies follows from the levels its
-- generation had: the exponents of two of its numbers of hashes.
local STEPS, FULL, FIRST, FURTHER, LAST = 40, 110, 6, 3, 15

local function lasting(name, ttl)
  return {name = name, ttl = ttl, generation = math.floor(now / ttl), tick = math.floor(now * STEPS / ttl)}
end

local function read_levels(text)
  local levels = {}
  for level in string.gmatch(text or '', '%d+') do
    levels[#levels + 1] = tonumber(level)
  end
  return levels
end

local function hash(marks, generation, level, identity)
  local bucket = math.floor(struct.unpack('>H', identity) / 2 ^ (16 - level))
  return KEYS[2] .. ':' .. marks.name .. generation .. ':' .. level .. ':' .. bucket
end

local long = lasting('', tonumber(ARGV[1]))
local short = lasting('s', math.min(SHORT_TTL, long.ttl))
-- The generation that comes is there already if the clock was set back.
local known = redis.call('HMGET', KEYS[2], long.generation, long.generation - 1, long.generation + 1,
  's' .. short.generation, 's' .. (short.generation - 1), 's' .. (short.generation + 1), 'l' .. ARGV[5],
  'partitions')
local own_limit = known[7]
-- `worker repartition` was here: this account belongs to another partition now.
if known[8] and known[8] ~= ARGV[13] then
  return redis.error_reply('REPARTITIONED this deployment has ' .. known[8] .. ' partitions now')
end
long.levels, long.before, long.ahead = read_levels(known[1]), read_levels(known[2]), read_levels(known[3])
short.levels, short.before, short.ahead = read_levels(known[4]), read_levels(known[5]), read_levels(known[6])

local function in_generation(marks, generation, levels, identity, field)
  for _, level in ipairs(levels) do
    local mark = redis.call('HGET', hash(marks, generation, level, identity), field)
    if mark and marks.tick - (generation * STEPS + mark) <= STEPS then
      return true
    end
  end
  return false
end

local function remembered(marks, identity, field)
  return in_generation(marks, marks.generation, marks.levels, identity, field)
    or in_generation(marks, marks.generation - 1, marks.before, identity, field)
    or in_generation(marks, marks.generation + 1, marks.ahead, identity, field)
end

local fresh, numbers, met = {}, {}, {}
for i = 14, #ARGV do
  local identity = ARGV[i]
  if not met[identity] then
    met[identity] = true
    local field = string.sub(identity, 3)
    if not (remembered(long, identity, field) or remembered(short, identity, field)) then
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
if limit > 0 then
  limit = tonumber(own_limit or '') or limit
end
local used, oldest = 0, now_ms
if limit > 0 then
  local first = tonumber(redis.call('LINDEX', KEYS[3], 0))
  while first and (first <= now_ms - WINDOW_MS or first > now_ms) do
    redis.call('LPOP', KEYS[3])
    first = tonumber(redis.call('LINDEX', KEYS[3], 0))
  end
  if first then
    oldest, used = first, redis.call('LLEN', KEYS[3])
  end
  if used >= limit then
    if ARGV[3] == '1' then
      return {'limited', 0, 0, oldest + WINDOW_MS - now_ms, limit}
    end
    outcome = 'over'
  end
end

local ranges = {}
if ARGV[12] ~= '1' then
  local first, last = numbers[1], numbers[1]
  local function close()
    ranges[#ranges + 1] = first == last and tostring(first) or (first .. '-' .. last)
  end
  for i = 2, #numbers do
    if numbers[i] ~= last + 1 then
      close()
      first = numbers[i]
    end
    last = numbers[i]
  end
  close()
end
redis.call('XADD', KEYS[1], '*', 'v', '1', 'w', ARGV[5], 'c', ARGV[6], 't', ARGV[7],
  'n', table.concat(ranges, ','), 'b', ARGV[8], 's', ARGV[9], 'p', ARGV[10], 'r', ARGV[11])

if limit > 0 then
  used = redis.call('RPUSH', KEYS[3], now_ms)
  if used > limit then
    redis.call('LTRIM', KEYS[3], -limit, -1)
  end
  redis.call('PEXPIRE', KEYS[3], WINDOW_MS)
end

local marks = ARGV[4] == '1' and short or long
if #marks.levels == 0 then
  local most = marks.before[#marks.before] or FIRST
  marks.levels[1] = math.max(FIRST, most - FURTHER)
  redis.call('HSET', KEYS[2], marks.name .. marks.generation, marks.levels[1])
  -- Those before the last one have expired; those far below are of another time to live, whose
  -- generations have other numbers.
  for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
    local of_short = string.sub(name, 1, 1) == 's'
    local generation = tonumber(of_short and string.sub(name, 2) or name)
    local current = (of_short and short or long).generation
    if generation and generation < current - 1 and generation > current * 0.99 then
      redis.call('HDEL', KEYS[2], name)
    end
  end
end
for _, identity in ipairs(fresh) do
  local level = marks.levels[#marks.levels]
  local key = hash(marks, marks.generation, level, identity)
  redis.call('HSET', key, string.sub(identity, 3), marks.tick - marks.generation * STEPS)
  local length = redis.call('HLEN', key)
  if length == 1 then
    redis.call('EXPIREAT', key, math.ceil((marks.generation + 2) * marks.ttl + marks.ttl / STEPS))
  elseif length >= FULL and level < LAST then
    marks.levels[#marks.levels + 1] = level + FURTHER
    redis.call('HSET', KEYS[2], marks.name .. marks.generation, table.concat(marks.levels, ','))
  end
end
return {outcome, #fresh, math.max(0, limit - used), oldest + WINDOW_MS - now_ms, limit}
