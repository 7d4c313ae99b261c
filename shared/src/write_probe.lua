#!lua
-- Whether the node of a key takes writes now, and how full it is. A script that may write is refused
-- by a node that is full, read-only, loading, or has lost its disk, as intake is.
--
-- KEYS: one that nothing else uses, of the partition in question
-- Returns used memory in thousandths of maxmemory; 0 where there is no limit.
redis.call('SET', KEYS[1], '1', 'PX', 60000)
local info = redis.call('INFO', 'memory')
local used = tonumber(string.match(info, 'used_memory:(%d+)'))
local most = tonumber(string.match(info, 'maxmemory:(%d+)'))
if not used or not most or most == 0 then
  return 0
end
return math.floor(1000 * used / most)
