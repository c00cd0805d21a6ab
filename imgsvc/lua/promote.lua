-- Move what is due back to its mailbox.
-- Guarantees: judged by Redis' clock alone and moved in one step, so several clocks never send
-- one entry twice.
-- KEYS  1 mailbox  2 delayed ZSET  3 waiting hash (request -> entries)
-- ARGV  1 most entries to move
-- Returns {entries moved, ms until the next is due (-1: none waits)}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local entry = cjson.decode(member)
  redis.call('XADD', KEYS[1], '*', 'k', entry[1], 'm', entry[2], 'n', '0')
  redis.call('ZREM', KEYS[2], member)
  local request = string.match(entry[1], '^[^/]+')
  if redis.call('HINCRBY', KEYS[3], request, -1) <= 0 then redis.call('HDEL', KEYS[3], request) end
end
local nearest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #nearest == 0 then return {#due, -1} end
return {#due, math.max(0, math.ceil(nearest[2] - now))}
