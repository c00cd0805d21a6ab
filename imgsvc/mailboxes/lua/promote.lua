-- Move what is due back to its mailbox.
-- Guarantees: judged by Redis' clock alone and moved in one step, so several clocks never send
-- one entry twice.
-- Images with priority (on the wire: hurry) go to the priority mailbox while it has room.
-- KEYS  1 mailbox  2 delayed ZSET  3 waiting hash (request -> entries)  4 priority
--       mailbox  5 replicas ZSET (id -> expiry)
-- ARGV  1 most entries to move  2 entries that mailbox 4 has room for per live replica
-- Returns {entries moved, ms until the next is due (-1: none waits)}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
local room = ARGV[2] * math.max(1, redis.call('ZCOUNT', KEYS[5], now, '+inf'))
for _, member in ipairs(due) do
  local entry = cjson.decode(member)
  local priority = cjson.decode(entry[2]).hurry and redis.call('XLEN', KEYS[4]) < room
  local lost = entry[3] or '0' -- older versions put none there
  redis.call('XADD', priority and KEYS[4] or KEYS[1], '*', 'k', entry[1], 'm', entry[2], 'n', lost)
  redis.call('ZREM', KEYS[2], member)
  local request = string.match(entry[1], '^[^/]+')
  if redis.call('HINCRBY', KEYS[3], request, -1) <= 0 then redis.call('HDEL', KEYS[3], request) end
end
local nearest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #nearest == 0 then return {#due, -1} end
return {#due, math.max(0, math.ceil(nearest[2] - now))}
