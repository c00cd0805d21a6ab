-- Put work that is not in flight yet into a shared mailbox, while it has room.
-- Guarantees: one key is in flight once, however many dealers there are; the mailbox never grows
-- beyond `window` entries per live replica (0: no bound).
-- KEYS  1 mailbox  2 in-flight ZSET (key -> when to doubt it)  3 replicas ZSET (id -> expiry)
-- ARGV  1 window  2 lease in ms  3.. pairs: key, job
-- Returns {pairs looked at, entries added}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window = tonumber(ARGV[1])
local replicas = math.max(1, redis.call('ZCOUNT', KEYS[3], now, '+inf'))
local length = redis.call('XLEN', KEYS[1])
local seen, added = 0, 0
for i = 3, #ARGV, 2 do
  if window > 0 and length >= window * replicas then break end
  seen = seen + 1
  if redis.call('ZADD', KEYS[2], 'NX', now + ARGV[2], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'k', ARGV[i], 'm', ARGV[i + 1], 'n', '0')
    length, added = length + 1, added + 1
  end
end
return {seen, added}
