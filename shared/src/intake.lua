#!lua
-- Makes webhooks of one partition durable, one after the other: fresh items? -> rate limit -> XADD ->
-- marks. Redis does not roll back a script that fails half-way, so the marks of a webhook come after its
-- entry: an error before them may double, never lose. They also tell a later webhook of the same call what
-- it repeats.
--
-- KEYS: stream, seen, then the rate window of each account. Marks lie in hashes named after `seen`, of the
--       same hash tag and so of the same slot.
-- ARGV: 1 dedup ttl (s), 2 webhooks per minute (0: no limit, whatever an account's own is),
--       3 "1" to refuse what is beyond, 4 "1" while memory is short, 5 the partition count that the caller
--       goes by, then of each account the field of `seen` with its own limit ('': nothing is limited),
--       then six of each webhook: the number of its account, the header and the body of its entry, how many
--       items it has, its identities by bucket (2 bytes bucket, 12 bytes field; each once), and in the same
--       order the numbers of their items (2 bytes each)
-- Returns five numbers of each webhook: 0 (duplicate), 1 (stored), 2 (stored beyond the limit) or 3 (refused
--         beyond it); fresh items; webhooks left in the window; ms until its oldest one leaves it; the limit.
--
-- Redis spends more on Lua than on the commands, so numbers become text by %d (anything else takes
-- the way of floating point), and nothing is made that a webhook of one fresh item doesn't need.
local call, format, floor, byte, sub = redis.call, string.format, math.floor, string.byte, string.sub
local WINDOW_MS, SHORT_TTL = 60000, 3600
-- Marks. A generation of marks lives as long as a mark must, and is kept for one more, since its
-- last mark is made at its end. A mark is the fortieth of the generation in which it was made: exact
-- to 2.5 %, and two bytes. A hash stays compact up to 128 marks, so when one fills up, the next marks
-- of its generation go to eight times as many. Where a mark lies follows from the levels its
-- generation had: the exponents of two of its numbers of hashes.
local STEPS, FULL, FIRST, FURTHER, LAST = 40, 110, 6, 3, 15
-- Marks that are written to a hash, and looked up in one, by one command.
local WRITTEN, ASKED = 16, 128

local SEEN = KEYS[2]
local time = call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
local now = now_ms / 1000
local ttl, most, accounts = tonumber(ARGV[1]), tonumber(ARGV[2]), #KEYS - 2
local short_ttl = ttl < SHORT_TTL and ttl or SHORT_TTL
local generation, short_generation = floor(now / ttl), floor(now / short_ttl)
-- The generation that comes is there already if the clock was set back.
local numbers = {
  generation, generation - 1, generation + 1,
  short_generation, short_generation - 1, short_generation + 1,
}
local names = {
  format('%d', numbers[1]), format('%d', numbers[2]), format('%d', numbers[3]),
  format('s%d', numbers[4]), format('s%d', numbers[5]), format('s%d', numbers[6]), 'partitions',
}
for a = 1, accounts do
  names[7 + a] = ARGV[5 + a]
end
-- Of each generation its levels, such as "6,9"; the partition count; of each account its own limit.
local known = call('HMGET', SEEN, unpack(names))
-- `worker repartition` was here: these accounts belong to another partition now.
if known[7] and known[7] ~= ARGV[5] then
  return redis.error_reply('REPARTITIONED this deployment has ' .. known[7] .. ' partitions now')
end

-- Wherever a mark may lie: what the names of the hashes begin with, what an identity's bucket is divided
-- by for the rest of the name, and the earliest mark there that still counts.
local prefixes, divisors, earliest = {}, {}, {}
local function look_in(at, level)
  local i, lasts = #prefixes + 1, at < 4 and ttl or short_ttl
  prefixes[i] = SEEN .. ':' .. names[at] .. ':' .. level .. ':'
  divisors[i] = 2 ^ (16 - level)
  earliest[i] = floor(now * STEPS / lasts) - (numbers[at] + 1) * STEPS
end
for at = 1, 6 do
  local levels = known[at]
  if levels and #levels == 1 then
    look_in(at, levels)
  elseif levels then
    for level in string.gmatch(levels, '%d+') do
      look_in(at, level)
    end
  end
end

-- Where new marks go, once one is made.
local target = ARGV[4] == '1' and 4 or 1
local lasts = target == 1 and ttl or short_ttl
local mark = format('%d', floor(now * STEPS / lasts) - numbers[target] * STEPS)
local levels, level, prefix, divisor = known[target], nil, nil, nil

local function begin_generation()
  local before = tonumber(string.match(known[target + 1] or '', '%d+$') or FIRST)
  levels = format('%d', math.max(FIRST, before - FURTHER))
  call('HSET', SEEN, names[target], levels)
  look_in(target, levels)
  -- Those before the last one have expired; those far below are of another time to live, whose
  -- generations have other numbers.
  for _, other in ipairs(call('HKEYS', SEEN)) do
    local of_short = sub(other, 1, 1) == 's'
    local old = tonumber(of_short and sub(other, 2) or other)
    local current = of_short and short_generation or generation
    if old and old < current - 1 and old > current * 0.99 then
      call('HDEL', SEEN, other)
    end
  end
end

-- The end of the identities from `i` on that lie in the hash of the first of them.
local function end_of_hash(buckets, i, most_of_it, divisor, number)
  local last = i
  while last - i + 1 < most_of_it and buckets[last + 1] and floor(buckets[last + 1] / divisor) == number do
    last = last + 1
  end
  return last
end

-- Which of many identities are fresh: their fields, their buckets, and (nil: all) which ones they are.
local function fresh_of(identities)
  local fields, buckets, which = {}, {}, nil
  for i = 1, #identities / 14 do
    local from = 14 * i - 13
    local high, low = byte(identities, from, from + 1)
    fields[i], buckets[i] = sub(identities, from + 2, from + 13), high * 256 + low
  end
  for p = 1, #prefixes do
    local i, n, known_ones, remembered = 1, #fields, nil, 0
    while i <= n do
      local number = floor(buckets[i] / divisors[p])
      local last = end_of_hash(buckets, i, ASKED, divisors[p], number)
      local marks = call('HMGET', prefixes[p] .. format('%d', number), unpack(fields, i, last))
      for k = i, last do
        local found = marks[k - i + 1]
        if found and tonumber(found) >= earliest[p] then
          known_ones = known_ones or {}
          known_ones[k], remembered = true, remembered + 1
        end
      end
      i = last + 1
    end
    if remembered > 0 then
      local left_fields, left_buckets, left_which, l = {}, {}, {}, 0
      for k = 1, n do
        if not known_ones[k] then
          l = l + 1
          left_fields[l], left_buckets[l], left_which[l] = fields[k], buckets[k], which and which[k] or k
        end
      end
      fields, buckets, which = left_fields, left_buckets, left_which
    end
  end
  return fields, buckets, which
end

-- Numbers of items, such as "0-3,5". `places`: two bytes each; `which` of them (nil: all).
local function ranges(places, which)
  local items = {}
  for i = 1, which and #which or #places / 2 do
    local from = 2 * (which and which[i] or i)
    local high, low = byte(places, from - 1, from)
    items[i] = high * 256 + low
  end
  table.sort(items)
  local text, first = {}, items[1]
  for i = 1, #items do
    local last = items[i]
    if items[i + 1] ~= last + 1 then
      text[#text + 1] = first == last and format('%d', first) or format('%d-%d', first, last)
      first = items[i + 1]
    end
  end
  return table.concat(text, ',')
end

-- Of each account's window how many webhooks it has, when the oldest one came, and how many it has more
-- after this call.
local used, oldest, more = {}, {}, {}
local reply, r, at, last = {}, 0, 6 + accounts, #ARGV
while at < last do
  local account, identities, count = tonumber(ARGV[at]), ARGV[at + 4], tonumber(ARGV[at + 3])
  local outcome, taken, fields, buckets, which = 1, 0, nil, nil, nil
  local limit = (most > 0 and ARGV[5 + account] ~= '') and (tonumber(known[7 + account] or most) or most) or 0
  if #identities == 14 then
    local high, low = byte(identities, 1, 2)
    local bucket, field = high * 256 + low, sub(identities, 3)
    taken = 1
    for p = 1, #prefixes do
      local found = call('HGET', prefixes[p] .. format('%d', bucket / divisors[p]), field)
      if found and tonumber(found) >= earliest[p] then
        taken = 0
        break
      end
    end
    fields, buckets = {field}, {bucket}
  else
    fields, buckets, which = fresh_of(identities)
    taken = #fields
  end
  if taken == 0 then
    outcome, limit = 0, 0
  elseif limit > 0 then
    -- The window holds the times of the last webhooks. One that lies ahead is from before the clock was
    -- set back.
    if not used[account] then
      local rate, gone = KEYS[2 + account], nil
      local first = tonumber(call('LINDEX', rate, '0') or nil)
      while first and (first <= now_ms - WINDOW_MS or first > now_ms) do
        call('LPOP', rate)
        gone, first = first, tonumber(call('LINDEX', rate, '0') or nil)
      end
      used[account], oldest[account], more[account] = 0, first or now_ms, 0
      if first then
        used[account] = call('LLEN', rate)
        -- A time stays for one window. The first one that is left goes past each full minute, and once it
        -- does, the window is kept for three minutes, so it is there whenever the next one is passed.
        if gone and floor(gone / WINDOW_MS) ~= floor(first / WINDOW_MS) then
          call('PEXPIRE', rate, 3 * WINDOW_MS)
        end
      end
    end
    if used[account] + more[account] >= limit then
      outcome = ARGV[3] == '1' and 3 or 2
    end
  end
  if outcome == 1 or outcome == 2 then
    if taken == count or count == 0 then
      call('XADD', KEYS[1], '*', 'h', ARGV[at + 1], 'b', ARGV[at + 2])
    else
      call('XADD', KEYS[1], '*', 'h', ARGV[at + 1], 'b', ARGV[at + 2], 'n', ranges(ARGV[at + 5], which))
    end
    if not levels then
      begin_generation()
    end
    if not level then
      level = tonumber(#levels == 1 and levels or string.match(levels, '%d+$'))
      prefix, divisor = SEEN .. ':' .. names[target] .. ':' .. format('%d', level) .. ':', 2 ^ (16 - level)
    end
    local i = 1
    while i <= taken do
      local number, added = floor(buckets[i] / divisor), nil
      local key = prefix .. format('%d', number)
      local last = end_of_hash(buckets, i, WRITTEN, divisor, number)
      if last == i then
        added = call('HSET', key, fields[i], mark)
      else
        local written = {}
        for k = i, last do
          written[#written + 1], written[#written + 2] = fields[k], mark
        end
        added = call('HSET', key, unpack(written))
      end
      i = last + 1
      local length = call('HLEN', key)
      if length == added then
        call('EXPIREAT', key, math.ceil((numbers[target] + 2) * lasts + lasts / STEPS))
      elseif length >= FULL and level < LAST then
        level = level + FURTHER
        levels = levels .. ',' .. format('%d', level)
        call('HSET', SEEN, names[target], levels)
        look_in(target, format('%d', level))
        prefix, divisor = SEEN .. ':' .. names[target] .. ':' .. format('%d', level) .. ':', 2 ^ (16 - level)
      end
    end
    if limit > 0 then
      more[account] = more[account] + 1
    end
  end
  local remaining, resets_in = 0, 0
  if limit > 0 then
    remaining = limit - used[account] - more[account]
    resets_in = oldest[account] + WINDOW_MS - now_ms
  end
  reply[r + 1], reply[r + 2], reply[r + 3] = outcome, outcome == 3 and 0 or taken, remaining > 0 and remaining or 0
  reply[r + 4], reply[r + 5] = resets_in, limit
  r, at = r + 5, at + 6
end

for account, count in pairs(more) do
  if count > 0 then
    local rate, limit = KEYS[2 + account], tonumber(known[7 + account] or most) or most
    local length
    if count == 1 then
      length = call('RPUSH', rate, format('%d', now_ms))
    else
      local times = {}
      for i = 1, count do
        times[i] = format('%d', now_ms)
      end
      length = call('RPUSH', rate, unpack(times))
    end
    if length > limit then
      call('LTRIM', rate, -limit, -1)
    end
    if length == count then
      call('PEXPIRE', rate, 3 * WINDOW_MS)
    end
  end
end
return reply
